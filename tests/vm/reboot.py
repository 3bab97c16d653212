"""Ten containers and three volumes on file servers, before and after the power is cut. Runs inside the guest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.support.engine import Engine
from tests.vm import servers
from tests.vm.guest import create, remote_volume, report, run, start, wait_until

EXPORTED = Path("/state/exported.img")
NFS_VOLUMES = {
    "nfs-3": "addr=127.0.0.1",
    "nfs-4": "addr=localhost,nfsvers=4",
    "nfs-words": "addr=127.0.0.1,vers=4,soft,timeo=180,bg,tcp,rw",
}
# Name → restart policy, volumes, command, whether the user stops it before the power goes.
CONTAINERS: dict[str, tuple[str, list[str], str, bool]] = {
    "always": ("always", ["nfs-3"], "sleep 600", False),
    "always-held": ("always", ["nfs-3"], "sleep 600", True),
    "unless": ("unless-stopped", ["nfs-4"], "sleep 600", False),
    "unless-held": ("unless-stopped", ["nfs-4"], "sleep 600", True),
    "failing": ("on-failure", ["nfs-words"], "sleep 600", False),
    "done": ("on-failure", ["nfs-words"], "true", False),
    "never": ("no", ["nfs-3"], "sleep 600", False),
    "all-three": ("always", list(NFS_VOLUMES), "sleep 600", False),
    "near": ("always", ["plain"], "sleep 600", False),
    "near-held": ("unless-stopped", ["plain"], "sleep 600", True),
}
RUN_AGAIN = {"always", "always-held", "unless", "failing", "all-three", "near"}


def before(engine: Engine) -> None:
    """Fill the machine, say that all is acknowledged, and wait for the end."""
    servers.start(EXPORTED)
    for name, options in NFS_VOLUMES.items():
        remote_volume(engine, name, "nfs", ":/var/docker-nfs", options)
    for name, (policy, volumes, command, held) in CONTAINERS.items():
        binds = [f"{volume}:/{volume}" for volume in volumes]
        identity = create(engine, name, command.split(), Binds=binds, RestartPolicy={"Name": policy}, StopTimeout=1)
        start(engine, identity)
        if held:
            engine.call("POST", f"/containers/{name}/stop?t=0")
    wait_until(lambda: states(engine)["done"] == "exited")
    for volume in NFS_VOLUMES:
        text = f"echo {volume} > /x/{volume}; sync"
        assert run(engine, ["sh", "-c", text], Binds=[f"{volume}:/x"]) == (0, "")
    report(rebooting=states(engine))
    time.sleep(600)


def after(engine: Engine) -> None:
    """The engine is up before the servers are; report what runs once they are there."""
    early = states(engine)
    wait_until(lambda: states(engine)["near"] == "running")
    servers.start(EXPORTED)
    wait_until(lambda: {name for name, state in states(engine).items() if state == "running"} >= RUN_AGAIN, 60)
    time.sleep(1)
    found = states(engine)
    texts = {volume: run(engine, ["cat", f"/x/{volume}"], Binds=[f"{volume}:/x"]) for volume in NFS_VOLUMES}
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if "/_data nfs" in line]
    report(rebooted=found, early=early, texts=texts, mounts=sorted(mounts))
    for name in found:
        engine.call("DELETE", f"/containers/{name}?force=1")


def states(engine: Engine) -> dict[str, Any]:
    """What each container is, by name."""
    return {entry["Names"][0].lstrip("/"): entry["State"] for entry in engine.call("GET", "/containers/json?all=1")}
