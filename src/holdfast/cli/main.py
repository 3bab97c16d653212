"""The `holdfast` command: global flags, the table of commands, and how failures end the program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import click

from holdfast import __version__
from holdfast.cli.command import Invalid
from holdfast.cli.group import Entry, LazyGroup, UnknownCommand
from holdfast.cli.session import Session, complain
from holdfast.errors import EngineError

_CONTAINER = {
    "run": Entry("holdfast.cli.run:run", "Create and run a new container from an image"),
    "exec": Entry("holdfast.cli.exec:exec_", "Execute a command in a running container"),
    "attach": Entry("holdfast.cli.attach:attach", "Attach local standard input, output, and error to a container"),
    "commit": Entry("holdfast.cli.image_push:commit", "Create a new image from a container's changes"),
    "cp": Entry("holdfast.cli.cp:cp", "Copy files/folders between a container and the local filesystem"),
    "create": Entry("holdfast.cli.run:create", "Create a new container"),
    "diff": Entry("holdfast.cli.looking:diff", "Inspect changes to files or directories on a container's filesystem"),
    "export": Entry("holdfast.cli.looking:export", "Export a container's filesystem as a tar archive"),
    "kill": Entry("holdfast.cli.lifecycle:kill", "Kill one or more running containers"),
    "logs": Entry("holdfast.cli.logs:logs", "Fetch the logs of a container"),
    "pause": Entry("holdfast.cli.lifecycle:pause", "Pause all processes within one or more containers"),
    "port": Entry("holdfast.cli.looking:port", "List port mappings or a specific mapping for the container"),
    "rename": Entry("holdfast.cli.lifecycle:rename", "Rename a container"),
    "restart": Entry("holdfast.cli.lifecycle:restart", "Restart one or more containers"),
    "rm": Entry("holdfast.cli.lifecycle:rm", "Remove one or more containers"),
    "start": Entry("holdfast.cli.start:start", "Start one or more stopped containers"),
    "stats": Entry("holdfast.cli.stats:stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": Entry("holdfast.cli.lifecycle:stop", "Stop one or more running containers"),
    "top": Entry("holdfast.cli.looking:top", "Display the running processes of a container"),
    "unpause": Entry("holdfast.cli.lifecycle:unpause", "Unpause all processes within one or more containers"),
    "update": Entry("holdfast.cli.update:update", "Update configuration of one or more containers"),
    "wait": Entry("holdfast.cli.lifecycle:wait", "Block until one or more containers stop, print their exit codes"),
}
_IMAGE = {
    "build": Entry("holdfast.cli.build:build", "Build an image from a Dockerfile"),
    "history": Entry("holdfast.cli.image:history", "Show the history of an image"),
    "import": Entry("holdfast.cli.image_archive:import_", "Make an image of a tarball of a root file system"),
    "load": Entry("holdfast.cli.image_archive:load", "Load images from a tar archive or stdin"),
    "push": Entry("holdfast.cli.image_push:push", "Upload an image to a registry"),
    "pull": Entry("holdfast.cli.image:pull", "Download an image from a registry"),
    "save": Entry("holdfast.cli.image_archive:save", "Save images to a tar archive (to stdout by default)"),
    "tag": Entry("holdfast.cli.image:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
}
_SYSTEM = {
    "events": Entry("holdfast.cli.events:events", "Get real time events from the engine"),
    "info": Entry("holdfast.cli.system:info", "Display system-wide information"),
}
_VOLUME = {
    "create": Entry("holdfast.cli.volume:create", "Create a volume"),
    "inspect": Entry("holdfast.cli.volume:inspect", "Display detailed information on one or more volumes"),
    "ls": Entry("holdfast.cli.volume:ls", "List volumes"),
    "list": Entry("holdfast.cli.volume:ls", ""),
    "prune": Entry("holdfast.cli.volume:prune", "Remove unused local volumes"),
    "rm": Entry("holdfast.cli.volume:rm", "Remove one or more volumes"),
    "remove": Entry("holdfast.cli.volume:rm", ""),
    "protect": Entry("holdfast.cli.volume_trash:protect", "Refuse every removal of volumes"),
    "unprotect": Entry("holdfast.cli.volume_trash:unprotect", "Let volumes be removed again"),
    "check": Entry("holdfast.cli.volume_check:check", "See whether volumes' storage can be reached, step by step"),
    "update": Entry("holdfast.cli.volume_trash:update", "Change a volume's labels"),
    "trash": Entry("holdfast.cli.main:trash", "Manage removed volumes that can be had back"),
}
_TRASH = {
    "ls": Entry("holdfast.cli.volume_trash:ls", "List removed volumes that can be had back"),
    "list": Entry("holdfast.cli.volume_trash:ls", ""),
    "restore": Entry("holdfast.cli.volume_trash:restore", "Take back a removed volume"),
    "empty": Entry("holdfast.cli.volume_trash:empty", "Delete removed volumes for good"),
}

volume = LazyGroup("volume", _VOLUME, help="Manage volumes.")
trash = LazyGroup("trash", _TRASH, help="Manage removed volumes that can be had back.")
container = LazyGroup(
    "container",
    {
        **_CONTAINER,
        "inspect": Entry("holdfast.cli.inspect:inspect_containers", "Display detailed information on containers"),
        "ls": Entry("holdfast.cli.ps:ps", "List containers"),
        "list": Entry("holdfast.cli.ps:ps", ""),
        "ps": Entry("holdfast.cli.ps:ps", ""),
        "prune": Entry("holdfast.cli.lifecycle:prune", "Remove all stopped containers"),
        "remove": Entry("holdfast.cli.lifecycle:rm", ""),
    },
    help="Manage containers.",
)
image = LazyGroup(
    "image",
    {
        **_IMAGE,
        "inspect": Entry("holdfast.cli.inspect:inspect_images", "Display detailed information on images"),
        "ls": Entry("holdfast.cli.image:images", "List images"),
        "list": Entry("holdfast.cli.image:images", ""),
        "prune": Entry("holdfast.cli.image:prune", "Remove unused images"),
        "rm": Entry("holdfast.cli.image:rmi", "Remove one or more images"),
        "remove": Entry("holdfast.cli.image:rmi", ""),
    },
    help="Manage images.",
)
builder = LazyGroup(
    "builder",
    {
        "build": Entry("holdfast.cli.build:build", "Build an image from a Dockerfile"),
        "prune": Entry("holdfast.cli.build:prune", "Remove build cache"),
    },
    help="Manage builds.",
)
network = LazyGroup(
    "network",
    {
        "connect": Entry("holdfast.cli.network:connect", "Connect a container to a network"),
        "create": Entry("holdfast.cli.network:create", "Create a network"),
        "disconnect": Entry("holdfast.cli.network:disconnect", "Disconnect a container from a network"),
        "inspect": Entry("holdfast.cli.network:inspect", "Display detailed information on one or more networks"),
        "ls": Entry("holdfast.cli.network:ls", "List networks"),
        "list": Entry("holdfast.cli.network:ls", ""),
        "prune": Entry("holdfast.cli.network:prune", "Remove all unused networks"),
        "rm": Entry("holdfast.cli.network:rm", "Remove one or more networks"),
        "remove": Entry("holdfast.cli.network:rm", ""),
    },
    help="Manage networks.",
)
system = LazyGroup(
    "system",
    {**_SYSTEM, "df": Entry("holdfast.cli.system_df:df", "Show disk usage")},
    help="Manage the engine.",
)

_ROOT = {
    "volume": Entry("holdfast.cli.main:volume", "Manage volumes"),
    "container": Entry("holdfast.cli.main:container", "Manage containers"),
    "image": Entry("holdfast.cli.main:image", "Manage images"),
    "builder": Entry("holdfast.cli.main:builder", "Manage builds"),
    "network": Entry("holdfast.cli.main:network", "Manage networks"),
    "system": Entry("holdfast.cli.main:system", "Manage the engine"),
    **_CONTAINER,
    "ps": Entry("holdfast.cli.ps:ps", "List containers"),
    "images": Entry("holdfast.cli.image:images", "List images"),
    "rmi": Entry("holdfast.cli.image:rmi", "Remove one or more images"),
    **_IMAGE,
    "inspect": Entry("holdfast.cli.inspect:inspect", "Return low-level information on objects of any kind"),
    "login": Entry("holdfast.cli.login:login", "Authenticate to a registry"),
    "logout": Entry("holdfast.cli.login:logout", "Log out from a registry"),
    **_SYSTEM,
    "undo": Entry("holdfast.cli.volume_trash:undo", "Take back the volumes that the last removal took"),
    "version": Entry("holdfast.cli.system:version", "Show the versions of client and engine"),
    "compose": Entry("holdfast.cli.compose:compose", "Define and run applications of several containers"),
    "daemon": Entry("holdfast.cli.daemon:daemon", "Run the engine"),
    "doctor": Entry("holdfast.cli.doctor:doctor", "Say what this machine can and cannot do for the engine"),
}


@click.pass_context
def _root(
    ctx: click.Context,
    host: str | None,
    use_tls: bool,
    verify: bool,
    ca: str | None,
    certificate: str | None,
    key: str | None,
) -> int:
    ctx.obj = Session(host=host, use_tls=use_tls, verify=verify, ca=ca, certificate=certificate, key=key)
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
    return 0


root = LazyGroup(
    "holdfast",
    _ROOT,
    callback=_root,
    help="Holdfast: a container engine whose heart is volumes.",
    params=[
        click.Option(["host", "-H", "--host"], metavar="URL", help="Engine to ask, such as unix:///run/x.sock"),
        click.Option(["use_tls", "--tls"], is_flag=True, help="Use TLS"),
        click.Option(["verify", "--tlsverify"], is_flag=True, help="Use TLS and check the engine's certificate"),
        click.Option(["ca", "--tlscacert"], metavar="FILE", help="Authority that signed the engine's certificate"),
        click.Option(["certificate", "--tlscert"], metavar="FILE", help="Certificate of this client"),
        click.Option(["key", "--tlskey"], metavar="FILE", help="Key of this client"),
    ],
)
click.version_option(__version__, "-v", "--version", message=f"Holdfast version {__version__}")(root)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 125 for a flag that cannot be, 130 when interrupted."""
    try:
        code = root.main(args, prog_name="holdfast", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        return _misused(error)
    except click.ClickException as error:
        print(error.format_message(), file=sys.stderr)
        return 1
    except EngineError as error:
        complain(error)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain at exit while flushing what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _misused(error: click.UsageError) -> int:
    """Say what is wrong with the command line, in docker's words and with its exit codes."""
    code = 125
    path = error.ctx.command_path if error.ctx else "holdfast"
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        text = f"unknown flag: {name}" if name.startswith("--") else f"unknown shorthand flag: '{name[1:2]}' in {name}"
    elif isinstance(error, Invalid):
        value = json.dumps(error.value, ensure_ascii=False)
        text = f"invalid argument {value} for {_flag(error)} flag: {error.message}"
    elif isinstance(error, click.BadParameter) and isinstance(error.param, click.Option):
        text = f"invalid argument for {_flag(error)} flag: {error.message}"
    elif isinstance(error, click.BadOptionUsage):
        name = error.option_name
        text = f"flag needs an argument: {name}"
        if not name.startswith("--"):
            text = f"flag needs an argument: '{name[1:]}' in {name}"
    elif isinstance(error, UnknownCommand):
        text, code = f"holdfast: unknown command: {path} {error.message}", 1
    elif error.ctx:
        text, code = f"holdfast: '{path}' {_arity(error.ctx.command)}", 1
    else:
        text, code = f"holdfast: {error.message}", 1
    usage = f"{error.ctx.get_usage()}\n\n" if error.ctx else ""
    print(f"{text}\n\n{usage}Run '{path} --help' for more information", file=sys.stderr)
    return code


def _flag(error: click.BadParameter) -> str:
    names = sorted(error.param.opts, key=len) if error.param else []
    return f'"{", ".join(names)}"'


def _arity(command: click.Command) -> str:
    """How many arguments a command takes, in docker's words."""
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    least = sum(1 for argument in arguments if argument.required)
    most = None if any(argument.nargs == -1 for argument in arguments) else len(arguments)
    if most == 0:
        return "accepts no arguments"
    if most is None:
        return f"requires at least {_counted(least)}"
    if least == most:
        return f"requires {_counted(least)}"
    return f"requires at least {_counted(least)}" if least else f"requires at most {_counted(most)}"


def _counted(number: int) -> str:
    return f"{number} argument" if number == 1 else f"{number} arguments"


__all__ = ["builder", "container", "image", "main", "root", "system", "trash", "volume"]

if __name__ == "__main__":
    sys.exit(main())
