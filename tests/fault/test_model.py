"""A random life of volumes and containers over the real engine, kills included: see support/life.py.

The engine is restarted, killed at rest, and killed at a random fault point or moment in the middle of a request. Forty
seconds in every test run; `make soak` takes as long as --soak says. The seed is printed, and HOLDFAST_SEED repeats a
run as far as the machine's own timing allows.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import threading
import time

import pytest

from tests.support.engine import PROJECT, Answer, Engine
from tests.support.life import Dead, Life, filled_image, observe
from tests.support.model import Model
from tests.support.state import assert_consistent

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

DEFAULT_SECONDS = 40
POINTS = sorted(
    {
        name
        for room in ("volumes", "containers", "runtime")
        for path in (PROJECT / "src/holdfast" / room).rglob("*.py")
        for name in re.findall(r'faults\.point\("([a-z0-9-]+)"\)', path.read_text(encoding="utf-8"))
        if not name.startswith("runtime-exec")
    }
)


class EngineLife(Life):
    """The life of an engine on this machine."""

    def __init__(self, engine: Engine, chance: random.Random) -> None:
        super().__init__(chance)
        self.engine = engine
        self.steps |= {self.restart: 1, self.kill: 2}

    def restart(self) -> None:
        """The engine is asked to end, and starts again."""
        self.story.append("restart")
        self.engine.stop()
        self.begin()
        self.settle(self.model, self.model)

    def kill(self) -> None:
        """The engine is killed at rest."""
        self.story.append("kill")
        self.engine.kill()
        self.begin()
        self.settle(self.model, self.model)

    def begin(self) -> None:
        """Start the engine, often with a trap in it; one that dies at its start is started again."""
        while True:
            trap = f"{self.chance.choice(POINTS)}@{self.chance.randint(1, 3)}" if self.chance.random() < 0.5 else ""
            self.story.append(f"start {trap}")
            self.engine.start(faults=trap)
            try:
                assert_consistent(self.engine, within_s=30)
                return
            except (OSError, http.client.HTTPException):
                assert self.engine.wait_dead(10) == -9

    def revive(self) -> bool:
        """The machine was never off."""
        assert self.engine.wait_dead(10) == -9
        self.begin()
        return False

    def ask(self, method: str, path: str, body: object) -> Answer:
        """One request, in the midst of which the engine is sometimes killed."""
        answers: list[Answer] = []

        def ask() -> None:
            try:
                answers.append(self.engine.request(method, path, body))
            except (OSError, http.client.HTTPException) as error:
                self.story.append(f"({error})")

        if self.chance.random() < 0.1:
            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(self.chance.uniform(0, 0.05))
            self.engine.kill()
            thread.join()
        else:
            ask()
        if not answers:
            raise Dead
        return answers[0]

    def look(self) -> tuple[Model, dict[str, int]]:
        """Over the API and on the disk."""
        try:
            return observe(self.engine)
        except (OSError, http.client.HTTPException) as error:
            if self.engine.answers():
                raise OSError(str(error)) from error
            raise Dead from error


@pytest.mark.soak
def test_a_random_life(fresh_engine: Engine, pytestconfig: pytest.Config) -> None:
    seconds = int(pytestconfig.getoption("--soak")) or DEFAULT_SECONDS
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    fresh_engine.call("POST", "/images/load?quiet=1", raw=filled_image())
    life = EngineLife(fresh_engine, random.Random(seed))
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            life.step()
    except BaseException:
        print("\n".join(life.story[-40:]), fresh_engine.log_tail(60), sep="\n\n")
        raise
    finally:
        print(f"HOLDFAST_SEED={seed}", dict(life.counts))
