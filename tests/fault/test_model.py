"""A random life of volumes and containers, kills included, compared step by step with a model of it.

The engine is the real one, spoken to as Docker's clients do. It is restarted, killed at rest, and killed at a random
fault point or moment in the middle of a request; then everything that the request was about must be as before or as
after it, volume by volume, and everything else as it was.

Forty seconds in every test run; `make soak` takes as long as --soak says. The seed is printed, and HOLDFAST_SEED repeats a run as
far as the machine's own timing allows.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine import PROJECT, Answer, Engine
from tests.support.images import busybox_image, dir_entry, docker_archive, file_entry, image, layer, symlink_entry
from tests.support.model import Container, Model, Mount, Refused, Removed, Volume
from tests.support.sequences import Files, read_files
from tests.support.state import assert_consistent

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

DEFAULT_SECONDS = 40
VOLUMES = ("first", "second", "third")
BOXES = ("one", "two", "three", "four")
PLACES = ("/data", "/plain")
DATA: Files = (("a", 0o100640, b"aaa"), ("link", 0o120777, b"a"), ("sub", 0o40700, b""), ("sub/b", 0o100600, b"b"))
CONTENT = {"/data": DATA}
POINTS = sorted(
    {
        name
        for room in ("volumes", "containers", "runtime")
        for path in (PROJECT / "src/holdfast" / room).rglob("*.py")
        for name in re.findall(r'faults\.point\("([a-z0-9-]+)"\)', path.read_text(encoding="utf-8"))
        if not name.startswith("runtime-exec")
    }
)


class Died(Exception):
    """The engine was killed in the middle of a call."""


def filled_image() -> bytes:
    """Busybox with something at /data."""
    layers = [*busybox_image().layers]
    entries = [dir_entry("data"), file_entry("data/a", b"aaa", mode=0o640), symlink_entry("data/link", "a")]
    layers.append(layer([*entries, dir_entry("data/sub", mode=0o700), file_entry("data/sub/b", b"b", mode=0o600)]))
    return docker_archive([image(layers, tags=["filled:latest"])])


class Life:
    """One engine, its model, and what was done so far."""

    def __init__(self, engine: Engine, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        self.model = Model()
        self.story: list[str] = []
        self.counts: Counter[str] = Counter()
        self.writers: dict[str, tuple[str, int, bytes]] = {}
        self.serial = 0

    # -- steps ---------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One random step."""
        steps: dict[Callable[[], None], int] = {
            self.create_volume: 3, self.remove_volume: 4, self.change_volume: 3, self.prune: 2, self.undo: 2,
            self.restore: 3, self.empty: 1, self.create_container: 8, self.start: 8, self.stop: 3,
            self.remove_container: 5, self.restart: 1, self.kill: 2,
        }  # fmt: skip
        step = self.chance.choices(list(steps), list(steps.values()))[0]
        self.counts[step.__name__] += 1
        step()

    def create_volume(self) -> None:
        """POST /volumes/create."""
        name, labels = self.a_volume(), self.chance.choice([{}, {"label": "yes"}])
        self.request("POST", "/volumes/create", {"Name": name, "Labels": labels},
                     lambda model: model.create_volume(name, labels))  # fmt: skip

    def remove_volume(self) -> None:
        """DELETE /volumes/NAME."""
        name = self.a_volume(known=True)
        self.request("DELETE", f"/volumes/{name}", None, lambda model: model.remove_volume(name))

    def change_volume(self) -> None:
        """Labels or protection."""
        name = self.a_volume()
        kind = self.chance.choice(["protect", "unprotect", "unprotect", "labels"])
        if kind == "labels":
            labels = {"changed": str(self.next())}
            self.request("PUT", f"/volumes/{name}", {"Labels": labels},
                         lambda model: model.change_volume(name, labels=labels))  # fmt: skip
        else:
            self.request("POST", f"/holdfast/volumes/{name}/{kind}", None,
                         lambda model: model.change_volume(name, protected=kind == "protect"))  # fmt: skip

    def prune(self) -> None:
        """POST /volumes/prune, of anonymous volumes or of all."""
        everything = self.chance.random() < 0.5
        filters = '?filters={"all":["true"]}' if everything else ""
        self.request("POST", f"/v1.47/volumes/prune{filters}", None, lambda model: model.prune(everything=everything))

    def undo(self) -> None:
        """POST /holdfast/undo."""
        self.request("POST", "/holdfast/undo", None, Model.undo)

    def restore(self) -> None:
        """POST /holdfast/trash/NAME/restore, sometimes under another name."""
        name = self.chance.choice([*VOLUMES, *(entry.name for entry in self.model.trash)])
        other = self.chance.choice(["", self.chance.choice(VOLUMES)])
        self.request("POST", f"/holdfast/trash/{name}/restore", {"Name": other},
                     lambda model: model.restore(name, other or name))  # fmt: skip

    def empty(self) -> None:
        """DELETE /holdfast/trash."""
        self.request("DELETE", "/holdfast/trash", None, lambda model: model.trash.clear())

    def create_container(self) -> None:
        """POST /containers/create with volumes of all kinds."""
        name = self.chance.choice(BOXES)
        mounts = {place: self.chance.choice(["", *VOLUMES]) for place in PLACES if self.chance.random() < 0.6}
        inherited = [box for box in self.chance.sample(sorted(self.model.containers), len(self.model.containers))
                     if self.chance.random() < 0.3][:1]  # fmt: skip
        auto_remove = self.chance.random() < 0.3
        binds = [f"{volume}:{place}" for place, volume in mounts.items() if volume]
        writes = ("written", 0o100644, f"{self.next()}\n".encode()) if self.chance.random() < 0.6 else None
        command = ["sleep", "10000"]
        if writes is not None:
            places = {*mounts, *(at for box in inherited for at in self.model.containers[box].mounts)}
            text = writes[2].decode().strip()
            command = ["sh", "-c", "; ".join([f"echo {text} > {at}/written" for at in sorted(places)] or ["true"])]
        body = {
            "Image": "filled", "Cmd": command, "Volumes": {place: {} for place, volume in mounts.items() if not volume},
            "StopSignal": "KILL",
            "HostConfig": {"NetworkMode": "none", "Binds": binds, "VolumesFrom": inherited, "AutoRemove": auto_remove},
        }  # fmt: skip
        fresh = name not in self.model.containers
        self.request(
            "POST", f"/containers/create?name={name}", body,
            lambda model: model.create_container(name, mounts, inherited, CONTENT, auto_remove=auto_remove),
        )  # fmt: skip
        if fresh:
            self.writers.pop(name, None)
            if writes is not None:
                self.writers[name] = writes

    def start(self) -> None:
        """POST /containers/NAME/start; one that writes is waited for."""
        name = self.a_box()
        self.request("POST", f"/containers/{name}/start", None,
                     lambda model: model.start(name, self.writers.get(name)))  # fmt: skip

    def stop(self) -> None:
        """POST /containers/NAME/stop."""
        name = self.a_box()
        self.request("POST", f"/containers/{name}/stop?t=0", None, lambda model: model.stop(name))

    def remove_container(self) -> None:
        """DELETE /containers/NAME, with v and force or not."""
        name = self.a_box()
        box = self.model.containers.get(name)
        if box is not None and box.auto_remove and box.running:
            return  # whether its volumes go is a race in Docker
        force, volumes = self.chance.random() < 0.6, self.chance.random() < 0.6
        self.request(
            "DELETE", f"/containers/{name}?force={force:d}&v={volumes:d}", None,
            lambda model: model.remove_container(name, force=force, volumes=volumes),
        )  # fmt: skip

    def restart(self) -> None:
        """The engine is asked to end, and starts again."""
        self.story.append("restart")
        self.engine.stop()
        self.begin()

    def kill(self) -> None:
        """The engine is killed at rest."""
        self.story.append("kill")
        self.engine.kill()
        self.begin()

    # -- how -----------------------------------------------------------------------------------------------------------

    def next(self) -> int:
        """A number not used before."""
        self.serial += 1
        return self.serial

    def a_volume(self, *, known: bool = False) -> str:
        """The name of a volume, there or not, anonymous too if it may be."""
        names: list[str] = [*VOLUMES, *(self.model.volumes if known else ())]
        return self.chance.choice(names)

    def a_box(self) -> str:
        """The name of a container, mostly of one that is there."""
        boxes: list[str] = [*BOXES[:1], *sorted(self.model.containers)]
        return self.chance.choice(boxes)

    def begin(self) -> None:
        """Start the engine, often with a trap in it; one that dies at its start is started without."""
        trap = f"{self.chance.choice(POINTS)}@{self.chance.randint(1, 3)}" if self.chance.random() < 0.5 else ""
        self.story.append(f"start {trap}")
        self.engine.start(faults=trap)
        try:
            assert_consistent(self.engine)
        except (OSError, http.client.HTTPException):
            self.revive()

    def revive(self) -> None:
        """Start the engine again once it is dead."""
        assert self.engine.wait_dead(10) == -9
        self.story.append("died")
        self.counts["deaths"] += 1
        self.begin()

    def request(self, method: str, path: str, body: object, apply: Callable[[Model], None]) -> None:
        """Do it to the engine and to the model, which must agree; the engine may be killed meanwhile."""
        before, after, refused = self.model, self.model.copy(), 0
        try:
            apply(after)
        except Refused as refusal:
            after, refused = before.copy(), refusal.args[0]
        self.story.append(f"{method} {path} {json.dumps(body) if body else ''}")
        answer = self.send(method, path, body)
        if answer is not None:
            self.story[-1] += f" -> {answer.status}"
            expected = answer.status == refused if refused else answer.status < 300
            assert expected, f"{answer.status} {answer.body!r} instead of {refused or 'success'}"
        self.settle(before, after, killed=answer is None)

    def send(self, method: str, path: str, body: object) -> Answer | None:
        """One request, in the midst of which the engine is sometimes killed; None if there was no answer."""
        answers: list[Answer] = []

        def ask() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(self.engine.request(method, path, body))

        if self.chance.random() < 0.1:
            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(self.chance.uniform(0, 0.05))
            self.engine.kill()
            thread.join()
        else:
            ask()
        return answers[0] if answers else None

    def settle(self, before: Model, after: Model, *, killed: bool) -> None:
        """Wait until the engine is as it must be; what it is then is what the model knows from now on."""
        deadline = time.monotonic() + 10
        while True:
            try:
                found, references = observe(self.engine)
                self.model = merge(found, before, after, killed=killed)
                for name in self.model.volumes:
                    assert references[name] == len(self.model.users(name)), f"references of {name}"
                return
            except (OSError, http.client.HTTPException):
                if self.engine.process is None or self.engine.process.poll() is not None or not self.engine.answers():
                    self.revive()
                    deadline = time.monotonic() + 10
                    continue
                problem: str = "volumes come and go"
            except AssertionError as error:
                problem = str(error)
            assert time.monotonic() < deadline, problem
            time.sleep(0.05)


def observe(engine: Engine) -> tuple[Model, dict[str, int]]:
    """The engine as a model, and how many references it counts. Raises OSError if it is dead, or if things vanish."""
    model = Model()
    for shown in engine.call("GET", "/volumes")["Volumes"]:
        model.volumes[shown["Name"]] = _volume(
            shown["Labels"], Path(shown["Mountpoint"]), protected="ProtectedBy" in (shown.get("Status") or {})
        )
    for entry in engine.call("GET", "/containers/json?all=1"):
        answer = engine.request("GET", f"/containers/{entry['Id']}/json")
        if answer.status == 404:
            raise FileNotFoundError("a container went")
        shown = answer.json()
        mounts = {mount["Destination"]: Mount(mount["Name"]) for mount in shown["Mounts"]}
        assert shown["State"]["Status"] in ("created", "running", "exited"), shown["State"]
        running = bool(shown["State"]["Running"])
        model.containers[shown["Name"][1:]] = Container(mounts, shown["HostConfig"]["AutoRemove"], running)
    with contextlib.closing(sqlite3.connect(f"file:{engine.state_root / 'holdfast.db'}?mode=ro", uri=True)) as rows:
        times = dict(rows.execute("SELECT id, removed_at FROM volumes WHERE removed_at IS NOT NULL").fetchall())
    for shown in reversed(engine.call("GET", "/holdfast/trash")):
        volume = _volume(shown["Labels"], engine.state_root / "trash" / shown["Id"] / "_data")
        model.trash.append(Removed(shown["Name"], volume, times[shown["Id"]]))
    usage = engine.call("GET", "/system/df")["Volumes"]
    return model, {shown["Name"]: shown["UsageData"]["RefCount"] for shown in usage}


def _volume(labels: dict[str, str] | None, data: Path, *, protected: bool = False) -> Volume:
    labels = dict(labels or {})
    anonymous = labels.pop("com.docker.volume.anonymous", None) is not None
    return Volume(labels, read_files(data), protected, anonymous)


def merge(found: Model, before: Model, after: Model, *, killed: bool) -> Model:
    """Check that what was found is right and give it with what only the model knows.

    That is as after the request or, if the engine was killed in it, for each volume and container as before or after.
    A volume may also have been made and not been filled yet, and a container have ended and not been removed yet.
    """
    after = after.copy()
    for name, box in list(after.containers.items()):
        for at, mount in box.mounts.items():
            if ":" in mount.volume and name in found.containers and at in found.containers[name].mounts:
                after.rename(mount.volume, found.containers[name].mounts[at].volume)
    right = [after]
    if killed:
        half_made, ended = after.copy(), before.copy()
        for name in after.volumes.keys() - before.volumes.keys():
            half_made.volumes[name] = replace(after.volumes[name], files=())
        for name, box in before.containers.items():
            if box != after.containers.get(name):
                ended.containers[name] = replace(box, running=False)
                if box.auto_remove:
                    ended.remove_container(name, force=True, volumes=True)
        right += [before, half_made, ended]
        sizes = [len(model.volumes) + len(model.trash) for model in right]
        assert min(sizes) <= len(found.volumes) + len(found.trash) <= max(sizes), f"lost or doubled: {found}"
    for name in sorted(
        {name for model in (found, *right) for name in (*model.volumes, *(e.name for e in model.trash))}
    ):
        states = [_of_volume(model, name) for model in right if ":" not in name]
        if states or found.volumes.get(name):
            assert _of_volume(found, name) in states, f"volume {name} is {_of_volume(found, name)}\nnot {states}"
    for name in sorted({name for model in (found, *right) for name in model.containers}):
        boxes = [_of_container(model, name) for model in right]
        assert _of_container(found, name) in boxes, f"container {name} is {_of_container(found, name)}\nnot {boxes}"
    merged = found.copy()
    for name, box in found.containers.items():
        known = next(m.containers[name] for m in right if _of_container(m, name) == _of_container(found, name))
        merged.containers[name] = replace(box, mounts=known.mounts)
    return merged


def _of_volume(model: Model, name: str) -> tuple[Volume | None, list[Volume]]:
    """All that a model knows under the name of a volume."""
    return model.volumes.get(name), [
        replace(entry.volume, protected=False) for entry in model.trash if entry.name == name
    ]


def _of_container(model: Model, name: str) -> tuple[dict[str, str], bool, bool] | None:
    """What can be seen of a container."""
    box = model.containers.get(name)
    return (
        None if box is None else ({at: mount.volume for at, mount in box.mounts.items()}, box.auto_remove, box.running)
    )


@pytest.mark.soak
def test_a_random_life(fresh_engine: Engine, pytestconfig: pytest.Config) -> None:
    seconds = int(pytestconfig.getoption("--soak")) or DEFAULT_SECONDS
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    fresh_engine.call("POST", "/images/load?quiet=1", raw=filled_image())
    life = Life(fresh_engine, random.Random(seed))
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            life.step()
    except BaseException:
        print("\n".join(life.story[-40:]), fresh_engine.log_tail(60), sep="\n\n")
        raise
    finally:
        print(f"HOLDFAST_SEED={seed}", dict(life.counts))
