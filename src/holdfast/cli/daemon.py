"""`holdfast daemon`: run the engine in the foreground."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from holdfast.cli.command import command
from holdfast.config import DEFAULT_FILE, Config, load

_HELP = {
    "state_root": "Directory of what outlives a reboot: catalogue, volumes, images",
    "run_root": "Directory of what does not: sockets, bundles",
    "socket_path": "Unix socket of the API",
    "socket_mode": "Mode of the socket, in octal",
    "socket_group": "Group of the socket; else holdfast, else docker, else root",
    "tcp_address": "HOST:PORT to listen on as well, with mutual TLS",
    "tls_ca": "Authority that clients' certificates must be signed by",
    "tls_certificate": "Certificate of the engine",
    "tls_key": "Key of the engine",
    "log_level": "debug, info, warning or error",
    "runtime": "auto, crun or runc",
    "cgroup_parent": "Cgroup below which containers get theirs",
    "bridge_name": "Name of the default bridge",
    "bridge_subnet": "Subnet of the default bridge; else one clear of the host's routes",
    "nft_table": "Name of the nftables table",
    "stop_timeout_s": "Seconds between asking a container to stop and killing it",
    "mount_timeout_s": "Seconds that a volume's server or device may take to answer",
    "plugin_timeout_s": "Seconds that a volume plugin may take to answer",
    "plugin_mount_timeout_s": "Seconds that a volume plugin may take to create or mount a volume",
    "trash_keep_s": "Seconds that a removed volume can be had back",
    "trash_limit_bytes": "What the trash may take before the oldest goes early; 0: a tenth of the file system",
    "trash_grace_s": "Seconds that a removed volume stays whatever the trash takes",
    "trash_keep_anonymous": "yes: anonymous volumes of --rm containers go to the trash too",
    "labels": "Labels of the engine, with commas between them",
}


def _options() -> list[click.Parameter]:
    return [
        click.Option(["config_file", "--config"], metavar="FILE", help=f"Configuration file [{DEFAULT_FILE}]"),
        *(
            click.Option([f"--{entry.name.replace('_', '-')}"], metavar="VALUE", help=_HELP[entry.name])
            for entry in fields(Config)
        ),
    ]


@command("daemon", params=_options())
def daemon(config_file: str | None, **flags: str | None) -> int:
    """Run the engine until SIGTERM or SIGINT; containers run on when it ends.

    A flag wins over the environment variable HOLDFAST_NAME, that over the configuration file.
    """
    from holdfast.daemon.main import run

    given = {name: value for name, value in flags.items() if value is not None}
    run(load(given, file=Path(config_file) if config_file else None))
    return 0
