"""The processes of a container, as ps(1) of the host shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import InvalidParameter, System
from holdfast.process import ProgramFailed, run

if TYPE_CHECKING:
    from holdfast.containers.container import Container
    from holdfast.containers.service import Containers

_TIMEOUT_S = 20.0


def top(containers: Containers, container: Container, ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Give ps's titles and its lines about the container's processes.

    Raises Conflict if it does not run, InvalidParameter for arguments that ps does not take or that leave out the PID.
    Source: Docker Engine API, operationId ContainerTop.
    """
    pids = set(containers.processes(container))
    try:
        done = run(["ps", *ps_args.split()], timeout_s=_TIMEOUT_S)
    except ProgramFailed as error:
        raise System(f"ps: {error}") from error
    found = parse(done.stdout.decode(errors="replace"), pids)
    containers.tell(container, "top")
    return found


def parse(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """Take ps's output apart; the last column keeps its spaces. Raises InvalidParameter without a PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows
