"""A random life of volumes and containers, compared step by step with a model of it.

`Life` makes requests as Docker's clients do, of whatever engine its subclass talks to, and the model says what must
come of each. If the engine dies in the middle of one, everything that the request was about must be as before or as
after it, volume by volume, and everything else as it was.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.engine import Answer, Engine
from tests.support.files import Files, read_files
from tests.support.images import busybox_image, dir_entry, docker_archive, file_entry, image, layer, symlink_entry
from tests.support.model import Container, Model, Mount, Refused, Removed, Volume

VOLUMES = ("first", "second", "third")
BOXES = ("one", "two", "three", "four")
PLACES = ("/data", "/plain")
WRITTEN = "written"
DATA: Files = (("a", 0o100640, b"aaa"), ("link", 0o120777, b"a"), ("sub", 0o40700, b""), ("sub/b", 0o100600, b"b"))
CONTENT = {"/data": DATA}


class Dead(Exception):
    """The engine does not answer."""


def filled_image() -> bytes:
    """Busybox with something at /data, in a `docker save` archive, tagged `filled`."""
    entries = [
        dir_entry("data"), file_entry("data/a", b"aaa", mode=0o640), symlink_entry("data/link", "a"),
        dir_entry("data/sub", mode=0o700), file_entry("data/sub/b", b"b", mode=0o600),
    ]  # fmt: skip
    return docker_archive([image([*busybox_image().layers, layer(entries)], tags=["filled:latest"])])


class Life(ABC):
    """One engine, its model, and what was done so far."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.model = Model()
        self.story: list[str] = []
        self.counts: Counter[str] = Counter()
        self.writers: dict[str, tuple[str, int, bytes]] = {}
        self.serial = 0
        self.steps: dict[Callable[[], None], int] = {
            self.create_volume: 3, self.remove_volume: 4, self.change_volume: 3, self.prune: 2, self.undo: 2,
            self.restore: 3, self.empty: 1, self.create_container: 8, self.start: 8, self.stop: 3,
            self.remove_container: 5,
        }  # fmt: skip

    # -- what a subclass does ------------------------------------------------------------------------------------------

    @abstractmethod
    def ask(self, method: str, path: str, body: object) -> Answer:
        """Make one request. Raises Dead if no answer came."""

    @abstractmethod
    def look(self) -> tuple[Model, dict[str, int]]:
        """What `observe` gives. Raises Dead, or OSError if something vanished meanwhile."""

    @abstractmethod
    def revive(self) -> bool:
        """Start the dead engine again and tell whether the machine was off meanwhile."""

    # -- steps ---------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One random step."""
        step = self.chance.choices(list(self.steps), list(self.steps.values()))[0]
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
        """POST /containers/create with volumes of all kinds. One that writes waits until it is on disk."""
        name = self.chance.choice(BOXES)
        mounts = {place: self.chance.choice(["", *VOLUMES]) for place in PLACES if self.chance.random() < 0.6}
        inherited = [box for box in sorted(self.model.containers) if self.chance.random() < 0.2][:1]
        auto_remove = self.chance.random() < 0.3
        writes = (WRITTEN, 0o100644, f"{self.next()}\n".encode()) if self.chance.random() < 0.6 else None
        command = ["sleep", "10000"]
        if writes is not None:
            places = sorted({*mounts, *(at for box in inherited for at in self.model.containers[box].mounts)})
            text = writes[2].decode().strip()
            lines = [f"echo {text} | dd of={at}/{WRITTEN} conv=fsync 2>/dev/null" for at in places]
            command = ["sh", "-c", "; ".join(lines or ["true"])]
        body = {
            "Image": "filled", "Cmd": command, "Volumes": {place: {} for place, volume in mounts.items() if not volume},
            "StopSignal": "KILL",
            "HostConfig": {
                "NetworkMode": "none", "VolumesFrom": inherited, "AutoRemove": auto_remove,
                "Binds": [f"{volume}:{place}" for place, volume in mounts.items() if volume],
            },
        }  # fmt: skip
        if name not in self.model.containers:
            self.writers.pop(name, None)
            if writes is not None:
                self.writers[name] = writes
        self.request(
            "POST", f"/containers/create?name={name}", body,
            lambda model: model.create_container(name, mounts, inherited, CONTENT, auto_remove=auto_remove),
        )  # fmt: skip

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

    def request(self, method: str, path: str, body: object, apply: Callable[[Model], None]) -> None:
        """Do it to the engine and to the model, which must agree; the engine may die meanwhile."""
        before, after, refused = self.model, self.model.copy(), 0
        try:
            apply(after)
        except Refused as refusal:
            after, refused = before.copy(), refusal.args[0]
        self.story.append(f"{method} {path} {json.dumps(body) if body else ''}")
        try:
            answer = self.ask(method, path, body)
        except Dead:
            self.settle(before, after, killed=True)
            return
        self.story[-1] += f" -> {answer.status}"
        expected = answer.status == refused if refused else answer.status < 300
        assert expected, f"{answer.status} {answer.body!r} instead of {refused or 'success'}"
        self.settle(before, after, ends_later=path.endswith("/start"))

    def settle(self, before: Model, after: Model, *, killed: bool = False, ends_later: bool = False) -> None:
        """Wait until the engine is as it must be; what it is then is what the model knows from now on.

        `ends_later`: what the request began may not have come to its end when the machine went off.
        """
        before, after = before.copy(), after.copy()
        deadline = time.monotonic() + 30
        while True:
            try:
                found, references = self.look()
                self.model = merge(found, before, after, killed=killed)
                for name in self.model.volumes:
                    assert references[name] == len(self.model.users(name)), f"references of {name}"
                return
            except Dead:
                self.counts["deaths"] += 1
                self.story.append("dead")
                if self.revive():
                    before.reboot()
                    after.reboot()
                    killed = killed or ends_later
                deadline = time.monotonic() + 30
                continue
            except OSError as error:
                problem = f"volumes come and go: {error}"
            except AssertionError as error:
                problem = str(error)
            assert time.monotonic() < deadline, problem
            time.sleep(0.05)


def observe(engine: Engine) -> tuple[Model, dict[str, int]]:
    """The engine as a model, and how many references it counts. Raises OSError if it is dead, or if things vanish."""
    model = Model()
    for listed in engine.call("GET", "/volumes")["Volumes"]:
        shown = engine.call("GET", f"/volumes/{listed['Name']}")
        status = shown.get("Status") or {}
        model.volumes[shown["Name"]] = replace(
            _volume(shown["Labels"], Path(shown["Mountpoint"])),
            protected="ProtectedBy" in status, doubtful="Fill" in status,
        )  # fmt: skip
    for entry in engine.call("GET", "/containers/json?all=1"):
        shown = engine.call("GET", f"/containers/{entry['Id']}/json")
        mounts = {mount["Destination"]: Mount(mount["Name"]) for mount in shown["Mounts"]}
        assert shown["State"]["Status"] in ("created", "running", "exited"), shown["State"]
        running = bool(shown["State"]["Running"])
        model.containers[shown["Name"][1:]] = Container(mounts, shown["HostConfig"]["AutoRemove"], running)
    with contextlib.closing(sqlite3.connect(f"file:{engine.state_root / 'holdfast.db'}?mode=ro", uri=True)) as rows:
        times = dict(rows.execute("SELECT id, removed_at FROM volumes WHERE removed_at IS NOT NULL").fetchall())
        unflushed = {row[0] for row in rows.execute("SELECT subject FROM intents WHERE kind = 'volume.fill'")}
    for shown in reversed(engine.call("GET", "/holdfast/trash")):
        volume = _volume(shown["Labels"], engine.state_root / "trash" / shown["Id"] / "_data")
        volume = replace(volume, doubtful=shown["Id"] in unflushed)
        model.trash.append(Removed(shown["Name"], volume, times[shown["Id"]]))
    usage = engine.call("GET", "/system/df")["Volumes"]
    return model, {shown["Name"]: shown["UsageData"]["RefCount"] for shown in usage}


def _volume(labels: dict[str, str] | None, data: Path) -> Volume:
    labels = dict(labels or {})
    anonymous = labels.pop("com.docker.volume.anonymous", None) is not None
    return Volume(labels, read_files(data), anonymous=anonymous)


def merge(found: Model, before: Model, after: Model, *, killed: bool) -> Model:
    """Check that what was found is right and give it with what only the model knows.

    That is as after the request or, if the engine was killed in it, for each volume and container as before or after.
    A volume may also have been made and not been filled yet, one that is written to be anywhere in between, and a
    container have ended and not been removed yet.
    """
    after = after.copy()
    for name, box in list(after.containers.items()):
        for at, mount in box.mounts.items():
            if ":" in mount.volume and name in found.containers and at in found.containers[name].mounts:
                after.rename(mount.volume, found.containers[name].mounts[at].volume)
    right = [after]
    if killed:
        half_made, ended = after.copy(), before.copy()
        for name, volume in after.volumes.items():
            if name not in before.volumes:
                half_made.volumes[name] = replace(volume, files=())
            elif volume.files != before.volumes[name].files:
                files = [(*entry[:2], b"") if entry[0] == WRITTEN else entry for entry in volume.files]
                half_made.volumes[name] = replace(volume, files=tuple(files))
        for name, box in before.containers.items():
            if box != after.containers.get(name):
                ended.containers[name] = replace(box, running=False)
                if box.auto_remove:
                    ended.remove_container(name, force=True, volumes=True)
        right += [before, half_made, ended]
        sizes = [len(model.volumes) + len(model.trash) for model in right]
        assert min(sizes) <= len(found.volumes) + len(found.trash) <= max(sizes), f"lost or doubled: {found}"
    models = (found, *right)
    for name in sorted({name for model in models for name in (*model.volumes, *(entry.name for entry in model.trash))}):
        if ":" in name and name not in found.volumes:
            continue
        there, states = _of_volume(found, name), [_of_volume(model, name) for model in right]
        fits = any(
            len(there) == len(state) and all(_fits(*pair) for pair in zip(there, state, strict=True))
            for state in states
        )
        assert fits, f"volume {name} is {there}\nnot {states}"
    for name in sorted({name for model in (found, *right) for name in model.containers}):
        boxes = [_of_container(model, name) for model in right]
        assert _of_container(found, name) in boxes, f"container {name} is {_of_container(found, name)}\nnot {boxes}"
    merged = found.copy()
    for name, box in found.containers.items():
        known = next(m.containers[name] for m in right if _of_container(m, name) == _of_container(found, name))
        merged.containers[name] = replace(box, mounts=known.mounts)
    return merged


def _of_volume(model: Model, name: str) -> list[Volume | None]:
    """All that a model knows under the name of a volume: what is there, then what is in the trash."""
    removed = [replace(entry.volume, protected=False) for entry in model.trash if entry.name == name]
    return [model.volumes.get(name), *removed]


def _fits(there: Volume | None, expected: Volume | None) -> bool:
    """Whether a volume is as expected: if content from an image may be lost, it is said, or was copied again."""
    if there is None or expected is None or not (there.doubtful or expected.doubtful):
        return there == expected
    if not there.doubtful and not set(there.files) >= set(DATA):
        return False
    one, other = (
        replace(volume, doubtful=False, files=tuple(entry for entry in volume.files if entry[0] == WRITTEN))
        for volume in (there, expected)
    )
    return one == other


def _of_container(model: Model, name: str) -> tuple[dict[str, str], bool, bool] | None:
    """What can be seen of a container."""
    box = model.containers.get(name)
    return None if box is None else ({at: m.volume for at, m in box.mounts.items()}, box.auto_remove, box.running)
