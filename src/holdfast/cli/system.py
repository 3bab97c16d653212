"""`holdfast version` and `holdfast info`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable

import click

from holdfast import __version__
from holdfast.cli import human
from holdfast.cli.command import command
from holdfast.cli.output import unescape
from holdfast.cli.session import Refused, complain, pass_client
from holdfast.cli.template import Template, TemplateError
from holdfast.client import Client, Document
from holdfast.client.transport import API_VERSION
from holdfast.errors import EngineError

_format = click.option("template", "-f", "--format", default="", metavar="FORMAT", help='"json" or a Go template')


@command("version")
@_format
@pass_client
def version(client: Client, template: str) -> int:
    """Show the versions of the client and, if it answers, of the engine."""
    ours: dict[str, object] = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": sys.platform,
        "Arch": platform.machine(),
    }
    theirs, failure = _asked(client.engine.version)
    if template:
        _by_template(template, {"Client": ours, "Server": dict(theirs.raw) if theirs else None})
    else:
        print("Client:")
        print(f" Version:           {__version__}")
        print(f" API version:       {API_VERSION}")
        print(f" Python version:    {ours['PythonVersion']}")
        print(f" OS/Arch:           {ours['Os']}/{ours['Arch']}")
        if theirs:
            _print_server(theirs)
    if failure:
        sys.stdout.flush()
        complain(failure)
    return 1 if failure else 0


def _print_server(server: Document) -> None:
    print(f"\nServer: {server.document('Platform').text('Name')}".rstrip())
    components = server.documents("Components")
    if not components:
        raw = {"Name": "Engine", "Version": server.text("Version"), "Details": dict(server.raw)}
        components = [Document(raw)]
    for component in components:
        details = component.document("Details")
        print(f" {component.text('Name')}:")
        print(f"  Version:          {component.text('Version')}")
        if component.text("Name") in {"Engine", "Holdfast"}:
            oldest = details.text("MinAPIVersion")
            print(f"  API version:      {details.text('ApiVersion')} (minimum version {oldest})")
            for title, key in (("Git commit", "GitCommit"), ("Built", "BuildTime")):
                if text := details.text(key):
                    print(f"  {title + ':':<17} {text}")
            print(f"  OS/Arch:          {details.text('Os')}/{details.text('Arch')}")
        else:
            for key in sorted(details.raw):
                print(f"  {key + ':':<17} {details.text(key)}")


@command("info")
@_format
@pass_client
def info(client: Client, template: str) -> int:
    """Show the engine's state and settings."""
    theirs, failure = _asked(client.engine.info)
    ours = {"Version": __version__, "Context": "default", "Debug": False, "Host": client.url}
    if template:
        fields = {**theirs.raw} if theirs else {"ServerErrors": [str(failure)]}
        _by_template(template, {**fields, "ClientInfo": ours})
    else:
        print(f"Client:\n Version:    {__version__}\n Engine:     {client.url}\n\nServer:")
        if theirs:
            print("\n".join(_info_lines(theirs)) + "\n")
    sys.stdout.flush()
    if failure:
        complain(failure)
    for warning in theirs.strings("Warnings") if theirs else []:
        print(warning, file=sys.stderr)
    return 1 if failure else 0


def _info_lines(server: Document) -> Iterable[str]:
    yield f" Containers: {server.number('Containers')}"
    for state in ("Running", "Paused", "Stopped"):
        yield f"  {state}: {server.number(f'Containers{state}')}"
    yield f" Images: {server.number('Images')}"
    yield from _texts(server, ("Server Version", "ServerVersion"), ("Storage Driver", "Driver"))
    yield from _pairs(server.raw.get("DriverStatus"))
    yield from _texts(
        server,
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    )
    plugins = server.document("Plugins")
    yield " Plugins:"
    for kind in ("Volume", "Network", "Log", "Authorization"):
        if names := plugins.strings(kind):
            yield f"  {kind}: {' '.join(names)}"
    if state := server.document("Swarm").text("LocalNodeState"):
        yield f" Swarm: {state}"
    yield f" Runtimes: {' '.join(sorted(server.document('Runtimes').raw))}"
    yield from _texts(server, ("Default Runtime", "DefaultRuntime"), ("Init Binary", "InitBinary"))
    runtime = server.text("DefaultRuntime") or "runc"
    for title, key in (("containerd", "ContainerdCommit"), (runtime, "RuncCommit"), ("init", "InitCommit")):
        if commit := server.document(key).text("ID"):
            yield f" {title} version: {commit}"
    yield from _security(server.strings("SecurityOptions"))
    yield from _texts(
        server,
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    )
    yield f" CPUs: {server.number('NCPU')}"
    yield f" Total Memory: {human.binary_size(server.number('MemTotal'))}"
    yield from _texts(server, ("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
    yield f" Debug Mode: {'true' if server.flag('Debug') else 'false'}"
    if labels := server.strings("Labels"):
        yield " Labels:"
        yield from (f"  {label}" for label in labels)
    yield f" Experimental: {'true' if server.flag('ExperimentalBuild') else 'false'}"
    if networks := server.document("RegistryConfig").strings("InsecureRegistryCIDRs"):
        yield " Insecure Registries:"
        yield from (f"  {network}" for network in networks)
    yield f" Live Restore Enabled: {'true' if server.flag('LiveRestoreEnabled') else 'false'}"


def _texts(server: Document, *fields: tuple[str, str]) -> Iterable[str]:
    return [f" {title}: {server.text(key)}" for title, key in fields if server.text(key)]


def _pairs(value: object) -> Iterable[str]:
    """The rows of a status: an array of pairs."""
    for pair in value if isinstance(value, list) else []:
        if isinstance(pair, list) and len(pair) == 2:
            yield f"  {pair[0]}: {pair[1]}"


def _security(options: Iterable[str]) -> Iterable[str]:
    """`name=seccomp,profile=builtin` as a name with its settings below."""
    listed = False
    for option in options:
        if not listed:
            yield " Security Options:"
            listed = True
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        yield f"  {fields.pop('name', option)}"
        for key, value in fields.items():
            yield f"   {key.title()}: {value}"


def _asked(question: Callable[[], Document]) -> tuple[Document | None, EngineError | None]:
    """The engine's answer, or why there is none."""
    try:
        return question(), None
    except EngineError as error:
        return None, error


def _by_template(template: str, fields: dict[str, object]) -> None:
    source = "{{json .}}" if template == "json" else unescape(template)
    try:
        print(Template(source).render(fields))
    except TemplateError as error:
        raise Refused(f"template parsing error: {error}") from error
