"""What the stock client sends becomes a request, and comes back from inspect as Docker shows it."""

from __future__ import annotations

import json
from typing import Any

from holdfast.api.container_shapes import create_request
from holdfast.containers.settle import settle
from holdfast.runtime import capabilities
from holdfast.runtime.host import HostFacts
from holdfast.wire import containers as wire
from holdfast.wire.json import decode

CLI_HOST = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
    "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
    "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None, "Dns": [], "ShmSize": 0,
    "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "MaskedPaths": None,
    "BlkioDeviceReadIOps": [], "UTSMode": "",
}


def request(body: dict[str, Any]) -> Any:
    return create_request(decode(wire.ContainerCreate, json.dumps(body).encode()), "n", "", (1, 51))


def test_defaults_are_those_of_docker() -> None:
    made = request({"Image": "x", "HostConfig": CLI_HOST})
    facts = HostFacts("x86_64", (6, 1), False, frozenset(), frozenset(capabilities.DEFAULT))
    host_config, warnings = settle(made.host_config, facts, "crun", lambda name: name)
    assert warnings == ()
    shown = wire.encode_host_config(host_config)
    assert shown["NetworkMode"] == "bridge"
    assert shown["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert (shown["MemorySwappiness"], shown["PidsLimit"]) == (None, None)
    assert (shown["ShmSize"], shown["IpcMode"], shown["CgroupnsMode"]) == (64 << 20, "private", "host")
    assert "/proc/kcore" in shown["MaskedPaths"]
    assert (shown["Binds"], shown["Dns"], shown["CapAdd"]) == (None, (), None)
    assert not {"Mounts", "Tmpfs", "Sysctls", "Annotations", "Init"} & shown.keys()


def test_mounts_are_shown_again_as_they_came() -> None:
    mounts = [
        {"Type": "volume", "Source": "v", "Target": "/a", "VolumeOptions": {"NoCopy": True, "DriverConfig": {}}},
        {"Type": "bind", "Source": "/s", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
        {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
        {"Type": "volume", "Target": "/d", "VolumeOptions": {"Subpath": "x", "Labels": {"a": "b"}}},
    ]
    made = request({"Image": "x", "hostconfig": {"mounts": mounts}})
    assert wire.encode_host_config(made.host_config)["Mounts"] == tuple(mounts)
    first, second, third, fourth = made.mounts
    assert (first.given, first.no_copy) == (frozenset({"VolumeOptions"}), True)
    assert (second.read_only, second.propagation) == (True, "rslave")
    assert (third.tmpfs_size_bytes, third.tmpfs_mode) == (1024, 448)
    assert (fourth.subpath, fourth.labels) == ("x", {"a": "b"})


def test_commands_may_be_texts_and_keys_of_any_case() -> None:
    made = request({"image": "x", "CMD": "ls", "Entrypoint": "", "volumes": {"/v": {}}, "Unknown": [1]})
    assert (made.config.cmd, made.config.entrypoint, made.config.volumes) == (("ls",), ("",), {"/v": {}})


def test_networks_that_the_client_names() -> None:
    made = request({"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["a"], "IPAMConfig": {
        "IPv4Address": "10.0.0.9"}}, "default": None}}})
    assert made.endpoints["net"].aliases == ("a",)
    assert made.endpoints["net"].ipv4_address == "10.0.0.9"
    assert made.endpoints["default"].ipv4_address == ""


def test_commands_in_lists() -> None:
    assert wire.command_text("echo", ["a b", "c"]) == "echo 'a b' c"
    assert wire.encode_time(None) == "0001-01-01T00:00:00Z"
