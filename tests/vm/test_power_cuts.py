"""The power is cut, for real, again and again, in the middle of a random life of volumes and containers.

The engine runs in a guest with its state on an ext4 image, and everything that the guest has in memory goes with it:
at a fault point, at a random moment, or right after an acknowledgement. After e2fsck and the next boot everything must
be there that was acknowledged before the cut, what containers had brought to the disk themselves included; of what was
under way, all or nothing; and a volume whose filling was lost says so. See support/life.py.

Ten cuts in every test run, the first of them while the trash is emptied, 200 in `make soak`. The seed is printed, and
HOLDFAST_SEED repeats the choices.
"""

from __future__ import annotations

import os
import pickle
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import PROJECT, Answer
from tests.support.guest import Guest, architecture_has_guest, find_kernel, make_disk
from tests.support.life import VOLUMES, Dead, Life, filled_image
from tests.support.model import Model

pytestmark = pytest.mark.vm

CUTS, SOAK_CUTS, GUESTS = 10, 200, 2
PURGED = "volume-purged-not-forgotten"
POINTS = sorted(
    {
        name
        for room in ("volumes", "containers")
        for path in (PROJECT / "src/holdfast" / room).rglob("*.py")
        for name in re.findall(r'faults\.point\("([a-z0-9-]+)"\)', path.read_text(encoding="utf-8"))
    }
)


class GuestLife(Life):
    """The life of an engine in a guest, which is booted anew after every cut."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__(chance)
        self.folder = folder
        self.disk = make_disk(folder / "disk")
        self.guest: Guest | None = None
        self.channel = folder
        self.asked = 0
        self.answers_left = 0
        self.cut_at: float | None = None
        self.cuts = 0
        self.unused_points: list[str] = []
        self.reached: Counter[str] = Counter()

    def close(self) -> None:
        """End the guest."""
        if self.guest is not None:
            self.guest.cut_power()
            self.guest = None

    def begin(self, faults: str = "") -> None:
        """The first boot, in peace but for what is armed."""
        self.boot(faults)
        (self.channel / "image").write_bytes(filled_image())
        assert self.question("load").status == 200

    def throw_away(self) -> None:
        """Remove a volume for good, which by chance happens seldom, and live on until the power is cut."""
        name = VOLUMES[0]
        self.request("POST", "/volumes/create", {"Name": name}, lambda model: model.create_volume(name, {}))
        self.request("DELETE", f"/volumes/{name}", None, lambda model: model.remove_volume(name))
        self.empty()
        while not self.cuts:
            self.step()

    def revive(self) -> bool:
        """Look after the disk and boot, until a boot is not cut itself."""
        while True:
            # 0: clean once the journal was replayed; 1: corrected, which after a cut it may need.
            checked = subprocess.run(
                ["e2fsck", "-p", self.disk], capture_output=True, text=True, timeout=60, check=False
            )
            assert checked.returncode in (0, 1), checked.stdout
            try:
                self.boot(self.plan())
                return True
            except Dead:
                self.counts["boots cut"] += 1

    def plan(self) -> str:
        """Decide how the next boot ends; gives what is to be armed."""
        self.answers_left, self.cut_at = 12, None
        how = self.chance.choice(["point", "point", "moment", "boot", "answer"])
        faults = ""
        if how == "point":
            if len(self.unused_points) < 3:
                self.unused_points = self.chance.sample(POINTS, len(POINTS)) + self.unused_points
            armed = [f"{self.unused_points.pop()}@{self.chance.choice([1, 1, 2])}=HANG" for _ in range(3)]
            faults = ",".join(armed)
        elif how == "answer":
            self.answers_left = self.chance.randint(1, 8)
        elif how == "boot":
            self.cut_at = time.monotonic() + self.chance.uniform(1, 8)
        self.cut_after_up = self.chance.uniform(0, 5) if how == "moment" else None
        self.story.append(f"boot, to be cut at: {how} {faults}")
        return faults

    cut_after_up: float | None = None

    def boot(self, faults: str) -> None:
        """Start the guest and wait for its engine. Raises Dead if it is cut meanwhile."""
        self.channel = self.folder / f"channel-{self.cuts}"
        self.channel.mkdir()
        (self.channel / "faults").write_text(faults)
        self.asked = 0
        self.guest = Guest(self.disk, memory_mb=512, channel=self.channel)
        self.wait_for("up")
        if self.cut_after_up is not None:
            self.cut_at = time.monotonic() + self.cut_after_up

    def wait_for(self, name: str, timeout_s: float = 150) -> bytes:
        """Wait for a file of the guest's. Raises Dead if it was time to cut the power."""
        guest = self.guest
        if guest is None:
            raise Dead
        deadline = time.monotonic() + timeout_s
        while not (self.channel / name).exists():
            now = time.monotonic()
            if self.cut_at is not None and now > self.cut_at:
                self.cut("a moment")
            hung = self.channel / "hung"
            if hung.exists() and (points := hung.read_text().split()):
                self.cut(points[0])
            failure = self.channel / "failed"
            assert not failure.exists(), failure.read_text()
            assert now < deadline and guest.lives(), f"no {name}:\n" + "\n".join(guest.console[-40:])
            time.sleep(0.005)
        return (self.channel / name).read_bytes()

    def cut(self, at: str) -> None:
        """Pull the plug. Raises Dead."""
        self.story.append(f"cut at {at}")
        self.reached[at] += 1
        self.cuts += 1
        self.close()
        raise Dead

    def question(self, *words: Any) -> Any:
        """Ask the guest. Raises Dead if there was no answer before the cut."""
        if self.guest is None:
            raise Dead
        temporary = self.channel / ".ask"
        temporary.write_bytes(pickle.dumps(words))
        temporary.rename(self.channel / f"ask-{self.asked}")
        self.asked += 1
        return pickle.loads(self.wait_for(f"answer-{self.asked - 1}"))

    def ask(self, method: str, path: str, body: object) -> Answer:
        """One request; sometimes the answer is the last that is heard."""
        answer: Answer = self.question("request", method, path, body)
        self.answers_left -= 1
        if self.answers_left == 0:
            self.quietly(lambda: self.cut("an answer"))
        return answer

    def quietly(self, cut: Callable[[], None]) -> None:
        """Cut, and let the next question find out."""
        try:
            cut()
        except Dead:
            return

    def look(self) -> tuple[Model, dict[str, int]]:
        """Seen from within the guest."""
        seen: tuple[Model, dict[str, int]] | str = self.question("look")
        if isinstance(seen, str):
            raise OSError(seen)
        return seen


def live(folder: Path, seed: str, cuts: int, first: str) -> GuestLife:
    """One guest's life, until its power was cut so often; the first time at the point `first`, if any."""
    folder.mkdir()
    life = GuestLife(folder, random.Random(seed))
    try:
        life.begin(f"{first}=HANG" if first else "")
        if first:
            life.throw_away()
        else:
            life.answers_left = 3
        while life.cuts < cuts:
            life.step()
    except BaseException:
        print("\n".join(life.story[-40:]))
        raise
    finally:
        life.close()
        print(folder.name, dict(life.counts), dict(life.reached))
    return life


@pytest.mark.timeout(7200)
@pytest.mark.soak
def test_power_cuts(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if not architecture_has_guest():
        pytest.skip("this machine's architecture has no user-mode-linux")
    if find_kernel() is None:
        pytest.skip("needs user-mode-linux: scripts/setup.sh test")
    seed = os.environ.get("HOLDFAST_SEED") or str(random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")
    cuts = (SOAK_CUTS if pytestconfig.getoption("--soak") else CUTS) // GUESTS
    with ThreadPoolExecutor(GUESTS) as pool:
        lives = [
            pool.submit(live, tmp_path / f"guest-{number}", f"{seed}-{number}", cuts, "" if number else PURGED)
            for number in range(GUESTS)
        ]
    assert sum(life.result().cuts for life in lives) >= cuts * GUESTS
    assert lives[0].result().reached[PURGED]
