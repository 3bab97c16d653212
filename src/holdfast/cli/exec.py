"""`holdfast exec`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.cli.command import command, detach_keys_option
from holdfast.cli.session import Refused, pass_client, require_terminal
from holdfast.client import Client


@command("exec", flags_first=True)
@click.option("-d", "--detach", is_flag=True, help="Run in the background")
@detach_keys_option
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Environment; NAME alone passes ours on")
@click.option("--env-file", multiple=True, metavar="FILE", help="File of environment variables")
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open")
@click.option("--privileged", is_flag=True, help="Give every privilege")
@click.option("-t", "--tty", is_flag=True, help="Allocate a terminal")
@click.option("-u", "--user", default="", metavar="USER", help="User: name|id[:group|id]")
@click.option("-w", "--workdir", default="", metavar="PATH", help="Working directory")
@click.argument("name", metavar="CONTAINER")
@click.argument("words", nargs=-1, required=True, metavar="COMMAND [ARG...]", type=click.UNPROCESSED)
@pass_client
def exec_(
    client: Client,
    name: str,
    words: Sequence[str],
    detach: bool,
    detach_keys: str,
    env: Sequence[str],
    env_file: Sequence[str],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
) -> int:
    """Run COMMAND in a running container; ends with its exit code.

    126 means that COMMAND cannot be run, 127 that it is not there.
    """
    stdin = interactive and not detach
    body: dict[str, object] = {
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Cmd": list(words),
        "DetachKeys": detach_keys,
        "Privileged": privileged,
        "Tty": tty,
        "User": user,
        "WorkingDir": workdir,
    }
    if env or env_file:
        body["Env"] = _environment(env, env_file)
    if detach:
        client.containers.exec_start(client.containers.exec_create(name, body), tty=tty)
        return 0

    from holdfast.cli.streams import Relay
    from holdfast.cli.terminal import terminal_size

    require_terminal(stdin=stdin, tty=tty)
    size = terminal_size() if tty else None
    if size:
        body["ConsoleSize"] = list(size)
    exec_id = client.containers.exec_create(name, body)
    streams = client.containers.exec_attach(exec_id, tty=tty, size=size)
    relay = Relay(
        streams,
        stdin=stdin,
        tty=tty,
        detach_keys=detach_keys,
        resize=lambda aside, rows, columns: aside.containers.exec_resize(exec_id, rows, columns),
        client=client,
    )
    relay.run()
    if relay.detached:
        raise Refused("read escape sequence")
    return client.containers.exec_get(exec_id).number("ExitCode")


def _environment(variables: Sequence[str], files: Sequence[str]) -> list[str]:
    from holdfast.cli.environment import environment

    try:
        return environment(variables, files)
    except ValueError as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"open {error.filename}: {(error.strerror or str(error)).lower()}") from error
