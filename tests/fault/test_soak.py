"""kill -9 at random moments under load, again and again: what was acknowledged stays, what is half done is tidied up.

A few rounds in every test run; `make soak` goes on for SOAK_SECONDS. The seed is printed with a failure, and
HOLDFAST_SEED repeats a run as far as the machine's own timing allows.
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.support.engine import Engine
from tests.support.state import assert_consistent, assert_empty

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

WORKERS = 4
DEFAULT_ROUNDS = 4


Known = dict[str, bool | None]
"""True: there, False: gone, None: unknown, because the engine died before it answered."""


@dataclass
class Ledger:
    """What one worker knows of the things it made."""

    volumes: Known = field(default_factory=dict)
    containers: Known = field(default_factory=dict)
    running: Known = field(default_factory=dict)


class Worker(threading.Thread):
    """Makes and removes volumes and containers until the engine dies or it is told to stop."""

    def __init__(self, engine: Engine, prefix: str, seed: int, ledger: Ledger, end: threading.Event) -> None:
        super().__init__(name=prefix)
        self.engine, self.prefix, self.ledger, self.end = engine, prefix, ledger, end
        self.random = random.Random(seed)
        self.serial = 0
        self.failure = ""

    def run(self) -> None:
        """Random steps; what is not allowed to fail is kept for the main thread."""
        steps: list[Callable[[], bool]] = [self.create_volume, self.remove_volume, self.create_container,
                                           self.start_container, self.remove_container]  # fmt: skip
        while not self.end.is_set() and not self.failure:
            if not self.random.choices(steps, [4, 2, 3, 3, 3])[0]():
                return

    def call(self, known: Known, name: str, after: bool, method: str, path: str, body: object = None) -> bool:
        """One call that changes what is known of `name`; False if the engine died meanwhile."""
        known[name] = None
        try:
            answer = self.engine.request(method, path, body, timeout_s=60)
        except (OSError, http.client.HTTPException):
            return False
        if answer.status >= 400:
            self.failure = f"{method} {path}: {answer.status} {answer.body!r}"
            return False
        known[name] = after
        return True

    def some(self, known: Known) -> str | None:
        """A name that is known to be there."""
        names = sorted(name for name, there in known.items() if there)
        return self.random.choice(names) if names else None

    def create_volume(self) -> bool:
        """POST /volumes/create."""
        self.serial += 1
        name = f"{self.prefix}-{self.serial}"
        return self.call(self.ledger.volumes, name, True, "POST", "/volumes/create", {"Name": name})

    def remove_volume(self) -> bool:
        """DELETE /volumes/NAME; always one that no container ever had."""
        name = self.some({name: there for name, there in self.ledger.volumes.items() if "-used" not in name})
        return name is None or self.call(self.ledger.volumes, name, False, "DELETE", f"/volumes/{name}")

    def create_container(self) -> bool:
        """A container on a volume that is made with it and filled from the image."""
        if sum(1 for there in self.ledger.containers.values() if there) > 4:
            return True
        self.serial += 1
        name = f"{self.prefix}-{self.serial}"
        volume = f"{name}-used"
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "3600"],
            "HostConfig": {"NetworkMode": "none", "Binds": [f"{volume}:/etc"]},
        }
        self.ledger.volumes[volume] = None
        if not self.call(self.ledger.containers, name, True, "POST", f"/containers/create?name={name}", body):
            return False
        self.ledger.volumes[volume] = True
        return True

    def start_container(self) -> bool:
        """POST /containers/NAME/start."""
        stopped = {name: there for name, there in self.ledger.containers.items() if not self.ledger.running.get(name)}
        name = self.some(stopped)
        return name is None or self.call(self.ledger.running, name, True, "POST", f"/containers/{name}/start")

    def remove_container(self) -> bool:
        """DELETE /containers/NAME?force=1, running or not."""
        name = self.some(self.ledger.containers)
        if name is None:
            return True
        self.ledger.running[name] = None
        return self.call(self.ledger.containers, name, False, "DELETE", f"/containers/{name}?force=1")


def settle(engine: Engine, ledger: Ledger) -> None:
    """Compare the ledger with what the engine shows; learn what was unknown."""
    volumes = {volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]}
    listed = engine.call("GET", "/containers/json?all=1")
    containers = {entry["Names"][0].lstrip("/"): entry["State"] for entry in listed}
    running = {name for name, state in containers.items() if state == "running"}
    for known, found, what in (
        (ledger.volumes, volumes, "volume"), (ledger.containers, set(containers), "container"),
    ):  # fmt: skip
        for name, there in known.items():
            is_there = name in found
            assert there in (None, is_there), f"{what} {name}: acknowledged as {there}, found {is_there}"
            known[name] = is_there
    for name, there in ledger.running.items():
        if ledger.containers[name]:
            assert there is not True or name in running, f"container {name} was started and is {containers[name]}"
            ledger.running[name] = name in running
    for name in containers:
        assert engine.request("GET", f"/containers/{name}/json").status == 200


@pytest.mark.soak
def test_random_kills(fresh_engine: Engine, pytestconfig: pytest.Config) -> None:
    seconds = int(pytestconfig.getoption("--soak"))
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")
    chance = random.Random(seed)
    ledgers = [Ledger() for _ in range(WORKERS)]
    began, rounds = time.monotonic(), 0
    while rounds < DEFAULT_ROUNDS or time.monotonic() - began < seconds:
        end = threading.Event()
        workers = [
            Worker(fresh_engine, f"w{number}-{rounds}", chance.randrange(1 << 32), ledger, end)
            for number, ledger in enumerate(ledgers)
        ]
        for worker in workers:
            worker.start()
        time.sleep(chance.uniform(0.05, 2.0))
        fresh_engine.kill()
        end.set()
        for worker in workers:
            worker.join(90)
            assert worker.failure == "", f"{worker.failure}\n{fresh_engine.log_tail()}"
        fresh_engine.start(wait_s=60)
        for ledger in ledgers:
            settle(fresh_engine, ledger)
        assert_consistent(fresh_engine)
        rounds += 1
    for name in [entry["Id"] for entry in fresh_engine.call("GET", "/containers/json?all=1")]:
        fresh_engine.call("DELETE", f"/containers/{name}?force=1")
    for volume in fresh_engine.call("GET", "/volumes")["Volumes"]:
        fresh_engine.call("DELETE", f"/volumes/{volume['Name']}")
    assert_empty(fresh_engine)
