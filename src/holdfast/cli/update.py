"""`holdfast update`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from holdfast.cli.command import command
from holdfast.cli.container_body import restart_policy
from holdfast.cli.container_flags import FLAGS
from holdfast.cli.session import Refused, for_each, pass_client
from holdfast.client import Client

_FLAGS = {
    flag.key: flag
    for flag in FLAGS
    if flag.key in {
        "blkio_weight", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpus",
        "cpuset_cpus", "cpuset_mems", "memory", "memory_reservation", "memory_swap", "pids_limit", "restart",
    }
}  # fmt: skip


def _limits(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options."""
    for flag in reversed(_FLAGS.values()):
        function = flag.option()(function)
    return function


@command("update")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER [CONTAINER...]")
@_limits
@pass_client
def update(client: Client, /, names: Sequence[str], **given: Any) -> int:
    """Change the limits or the restart policy of containers, running or not."""
    body = {
        _FLAGS[key].sends.removeprefix("HostConfig."): value
        for key, value in given.items()
        if value is not None and _FLAGS[key].sends
    }
    if given["restart"]:
        try:
            body["RestartPolicy"] = restart_policy(given["restart"])
        except ValueError as error:
            raise Refused(str(error)) from error
    if not body:
        raise Refused("you must provide one or more flags when using this command")
    warnings: list[str] = []

    def one(name: str) -> None:
        warnings.extend(client.containers.update(name, body).strings("Warnings"))

    code = for_each(names, one)
    for warning in warnings:
        print(warning)
    return code
