"""The processes of a container, as ps(1) of the host shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import Conflict, System
from holdfast.process import run

if TYPE_CHECKING:
    from holdfast.containers.container import Container
    from holdfast.containers.service import Containers

_TIMEOUT_S = 20.0


def top(containers: Containers, container: Container, ps_args: str) -> tuple[list[str], list[list[str]] | None]:
    """Give ps's titles and its lines about the container's processes, None if it lists none of them.

    Raises Conflict if it does not run, System for arguments that ps does not take or that leave out the PID. Source:
    Docker Engine API, operationId ContainerTop; moby, daemon/top_unix.go.
    """
    if container.state.status == "restarting":
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    pids = set(containers.processes(container))
    done = run(["ps", *ps_args.split()], timeout_s=_TIMEOUT_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise System(f"ps: {said or f'exit status {done.returncode}'}")
    found = parse(done.stdout.decode(errors="replace"), pids)
    containers.tell(container, "top")
    return found


def parse(output: str, pids: set[int]) -> tuple[list[str], list[list[str]] | None]:
    """Take ps's output apart; the last column keeps its spaces. Raises System without a PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise System("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows or None
