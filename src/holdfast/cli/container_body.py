"""From the flags of `run` and `create` to the request that creates the container."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence

from holdfast.cli.container_flags import FLAGS
from holdfast.cli.environment import environment, lines
from holdfast.cli.mount_flag import split_csv
from holdfast.cli.port_flag import parse_exposed, parse_published
from holdfast.cli.session import Refused
from holdfast.client import Document

Fields = dict[str, object]


def container_body(image: str, words: Sequence[str], values: Mapping[str, object], *, detach: bool) -> Fields:
    """The body of ContainerCreate. Only what was asked for is in it; the engine knows the defaults.

    `values` are the flags by their keys in FLAGS. Raises Refused for flags that contradict each other or make no sense.
    """
    flags = Document({key: list(value) if isinstance(value, tuple) else value for key, value in values.items()})
    host: Fields = {}
    body: Fields = {"Image": image, "HostConfig": host}
    for flag in FLAGS:
        _pass_on(body, flag.sends, flags.raw.get(flag.key))
    try:
        _command(body, words, flags)
        _streams(body, flags, detach=detach)
        _environment_and_labels(body, flags)
        _volumes(body, host, flags)
        _ports(body, host, flags)
        _networks(body, host, flags)
        _health(body, flags)
        _host(host, flags)
        _security(host, flags)
    except ValueError as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"open {error.filename}: {(error.strerror or str(error)).lower()}") from error
    return body


def _pass_on(body: Fields, path: str, value: object) -> None:
    """Put a flag's value at its field, if it was given."""
    if not path or value is None or value is False or value == [] or value == "":
        return
    *outer, name = path.split(".")
    target = body
    for part in outer:
        inner = target[part]
        assert isinstance(inner, dict)
        target = inner
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        value = dict(value)
    target[name] = value


def _command(body: Fields, words: Sequence[str], flags: Document) -> None:
    if words:
        body["Cmd"] = list(words)
    if flags.raw.get("entrypoint") is not None:  # an empty one takes the image's away
        body["Entrypoint"] = [flags.text("entrypoint")]


def _streams(body: Fields, flags: Document, *, detach: bool) -> None:
    asked = flags.strings("attach")
    interactive = flags.flag("interactive")
    if not detach:
        body["AttachStdin"] = interactive or "stdin" in asked
        body["AttachStdout"] = not asked or "stdout" in asked
        body["AttachStderr"] = not asked or "stderr" in asked
    if interactive and not detach:
        body["StdinOnce"] = True


def _environment_and_labels(body: Fields, flags: Document) -> None:
    if variables := environment(flags.strings("env"), flags.strings("env_file")):
        body["Env"] = variables
    labels = [line for path in flags.strings("label_file") for line in lines(path)] + flags.strings("label")
    if labels:
        body["Labels"] = {key: value for key, _, value in (label.partition("=") for label in labels)}


def _volumes(body: Fields, host: Fields, flags: Document) -> None:
    """`-v a:b` is a bind entry, `-v /b` an anonymous volume. A source that begins with a dot is a path from here."""
    binds: list[str] = []
    anonymous: Fields = {}
    for spec in flags.strings("volume"):
        source, colon, rest = spec.partition(":")
        if not spec:
            raise ValueError("invalid empty volume spec")
        if not colon:
            anonymous[spec] = {}
        else:
            binds.append(f"{os.path.abspath(source) if source.startswith('.') else source}:{rest}")
    if binds:
        host["Binds"] = binds
    if anonymous:
        body["Volumes"] = anonymous
    if tmpfs := flags.strings("tmpfs"):
        host["Tmpfs"] = {path: options for path, _, options in (entry.partition(":") for entry in tmpfs)}


def _ports(body: Fields, host: Fields, flags: Document) -> None:
    bindings = parse_published(flags.strings("publish"))
    exposed = [*bindings, *parse_exposed(flags.strings("expose"))]
    if exposed:
        body["ExposedPorts"] = {port: {} for port in exposed}
    if bindings:
        host["PortBindings"] = bindings


def _networks(body: Fields, host: Fields, flags: Document) -> None:
    """The first network is the container's mode; addresses and aliases of the plain flags belong to it."""
    endpoints: dict[str, Fields] = {}
    for spec in flags.strings("network") or ["default"]:
        name, endpoint = _network(spec)
        endpoints[name] = endpoint
    first = next(iter(endpoints))
    host["NetworkMode"] = first
    if aliases := flags.strings("network_alias"):
        endpoints[first]["Aliases"] = aliases
    if (links := flags.strings("link")) and not re.fullmatch("default|bridge|host|none|container:.*", first):
        endpoints[first]["Links"] = links
    for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if address := flags.text(flag):
            _ipam(endpoints[first])[key] = address
    if addresses := flags.strings("link_local_ip"):
        _ipam(endpoints[first])["LinkLocalIPs"] = addresses
    if mac_address := flags.text("mac_address"):
        endpoints[first]["MacAddress"] = mac_address
    if any(endpoints.values()) or len(endpoints) > 1:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}


def _network(spec: str) -> tuple[str, Fields]:
    """`NAME`, or `name=NAME,alias=...,ip=...`."""
    if "=" not in spec:
        return spec, {}
    name, endpoint = "", Fields()
    for field in split_csv(spec):
        key, _, value = field.partition("=")
        match key.strip().lower():
            case "name":
                name = value
            case "alias":
                aliases = endpoint.setdefault("Aliases", [])
                assert isinstance(aliases, list)
                aliases.append(value)
            case "ip":
                _ipam(endpoint)["IPv4Address"] = value
            case "ip6":
                _ipam(endpoint)["IPv6Address"] = value
            case "mac-address":
                endpoint["MacAddress"] = value
            case "driver-opt":
                options = endpoint.setdefault("DriverOpts", {})
                assert isinstance(options, dict)
                option, _, setting = value.partition("=")
                options[option] = setting
            case "gw-priority":
                try:
                    endpoint["GwPriority"] = int(value)
                except ValueError:
                    raise ValueError(f'invalid gw-priority: strconv.Atoi: parsing "{value}": invalid syntax') from None
            case _:
                raise ValueError(f"invalid field key {key}")
    if not name:
        raise ValueError("network name/id is not specified")
    return name, endpoint


def _ipam(endpoint: Fields) -> Fields:
    config = endpoint.setdefault("IPAMConfig", {})
    assert isinstance(config, dict)
    return config


def _health(body: Fields, flags: Document) -> None:
    check: Fields = {}
    if command := flags.text("health_cmd"):
        check["Test"] = ["CMD-SHELL", command]
    for key, name in (
        ("health_interval", "Interval"),
        ("health_timeout", "Timeout"),
        ("health_start_period", "StartPeriod"),
        ("health_start_interval", "StartInterval"),
        ("health_retries", "Retries"),
    ):
        if value := flags.number(key):
            check[name] = value
    if flags.flag("no_healthcheck"):
        if check:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        check = {"Test": ["NONE"]}
    if check:
        body["Healthcheck"] = check


def _host(host: Fields, flags: Document) -> None:
    host["RestartPolicy"] = restart_policy(flags.text("restart"))
    if flags.flag("rm") and host["RestartPolicy"] != {"Name": "no"}:
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    if flags.text("log_driver") or flags.raw.get("log_opt"):
        options = flags.raw.get("log_opt")
        host["LogConfig"] = {
            "Type": flags.text("log_driver"),
            "Config": dict(options) if isinstance(options, list) else {},
        }
    if devices := flags.strings("device"):
        host["Devices"] = [_device(entry) for entry in devices]


def restart_policy(text: str) -> Fields:
    """`POLICY[:COUNT]` as the API has it, `no` for nothing. Raises ValueError in Docker's words."""
    name, given, count = text.partition(":")
    if not text:
        return {"Name": "no"}
    if not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if not given:
        return {"Name": name}
    if not count.isdecimal():
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count)}


def _device(entry: str) -> Fields:
    parts = entry.split(":")
    if len(parts) > 3 or not parts[0].startswith("/"):
        raise ValueError(f"invalid device specification: {entry}")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts = [parts[0], parts[0], parts[1]]
    return {
        "PathOnHost": parts[0],
        "PathInContainer": parts[1] if len(parts) > 1 else parts[0],
        "CgroupPermissions": parts[2] if len(parts) > 2 else "rwm",
    }


def _security(host: Fields, flags: Document) -> None:
    """Security options; a seccomp profile is read here, as the engine may be on another machine."""
    options: list[str] = []
    for option in flags.strings("security_opt"):
        name, given, value = option.partition("=") if "=" in option else option.partition(":")
        if not given and name != "no-new-privileges":
            raise ValueError(f'invalid --security-opt: "{option}"')
        if name == "systempaths" and value == "unconfined":
            host["MaskedPaths"], host["ReadonlyPaths"] = [], []
        elif name == "seccomp" and value not in {"unconfined", "builtin"}:
            options.append(f"seccomp={_profile(value)}")
        else:
            options.append(option)
    if options:
        host["SecurityOpt"] = options


def _profile(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from error
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from error
