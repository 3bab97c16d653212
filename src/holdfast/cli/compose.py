"""`holdfast compose`: the Compose that is on the machine, pointed at this engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from holdfast.cli.session import Refused, session
from holdfast.client import choose_url
from holdfast.client.address import parse_url

_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
"""Where the docker client looks for its plugins. Source: docker/cli, cli-plugins/manager, defaultSystemPluginDirs."""

_DEFAULTS = {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0", "COMPOSE_API_VERSION": "1.44"}
"""Builds that the engine can do; and for 1.29 an API in which images still have the `ContainerConfig` that it needs."""

_VERIFIED = {"HOLDFAST_TLS_VERIFY": "1"}


@click.command("compose", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
def compose(words: tuple[str, ...]) -> int:
    """Define and run applications of several containers, by Docker Compose."""
    program = find_compose(os.environ)
    if program is None:
        raise Refused(
            "there is no Docker Compose on this machine",
            hint="install Debian's docker-compose, or put the program docker-compose of version 2 on the PATH",
        )
    asked = session()
    if asked.ca or asked.certificate or asked.key or (asked.use_tls and not asked.verify):
        raise Refused("Compose finds its certificates in the folder HOLDFAST_CERT_PATH and with --tlsverify alone")
    environment = compose_environment({**os.environ, **_VERIFIED} if asked.verify else os.environ, asked.host)
    os.execve(program, [str(program), *words], environment)


def find_compose(environment: Mapping[str, str]) -> Path | None:
    """The plugin of the docker client, which also runs alone, else the program on the PATH."""
    for folder in _plugin_folders(environment):
        path = folder / "docker-compose"
        if path.is_file() and os.access(path, os.X_OK):
            return path
    found = shutil.which("docker-compose", path=environment.get("PATH"))
    return Path(found) if found else None


def compose_environment(environment: Mapping[str, str], host: str | None) -> dict[str, str]:
    """What Compose is to see: this engine, no context of the docker client's, and builds that the engine can do.

    Raises BadAddress. Source: Docker's documentation of the command line, environment variables.
    """
    own = {name: value for name, value in environment.items() if name not in ("DOCKER_CONTEXT", "HOLDFAST_SOCKET")}
    own["DOCKER_HOST"] = parse_url(choose_url(host, environment)).url
    for name, value in _DEFAULTS.items():
        own.setdefault(name, value)
    verify, folder = environment.get("HOLDFAST_TLS_VERIFY", ""), environment.get("HOLDFAST_CERT_PATH", "")
    if verify or folder:
        own["DOCKER_TLS_VERIFY"] = verify or "1"
        own["DOCKER_CERT_PATH"] = folder or os.path.expanduser("~/.holdfast")
    return own


def _plugin_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    config = environment.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    yield Path(config) / "cli-plugins"
    yield from map(Path, _PLUGIN_FOLDERS)
