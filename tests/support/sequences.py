"""Every sequence of volume operations, killed at every fault point: what comes back is what was acknowledged.

For one sequence, and every time that its last operation passes a fault point (deaths in earlier operations are those of
shorter sequences):

    1. the sequence runs on a fresh state root and dies at the point;
    2. a new engine starts on what is left, itself killed at every point that its recovery passes, and once in peace;
    3. names, labels, protection, references, contents and trash are compared, byte by byte, with the worlds that are
       right: the acknowledged one, and those that the operation under way may have got to. Nothing may lie on the disk
       that no row knows of;
    4. the operation is repeated and must do what it does on a healthy engine;
    5. everything is removed, and rows and folders must be gone.

A death is either real, SIGKILL to a forked child (`kill=True`), or, three times as fast, a copy of the state root taken
at the point: nothing else runs, so the disk at that instant is what SIGKILL leaves.

An operation is two functions of one name: one does it to a real `Volumes` service (`Bench`), the other says what it
means (`World`), as a generator that stops wherever a death may leave the world as it is then. There are no containers:
an operation takes references as `containers/create` and `containers/remove` do, and a file in `Bench.folder` stands for
a container's row. Fault points are those of the source and, with `fine`, a pair around every transaction.

Another issue adds its operations with `operation` to an alphabet of its own and calls `try_sequence` with it:

    for letters in sequences_of(ALPHABET, 2):
        deaths += try_sequence(letters, ALPHABET)

To see what a failure is about: `python -m tests.support.sequences run rm undo`.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from holdfast import faults
from holdfast.errors import Conflict, EngineError
from holdfast.events import EventBus
from holdfast.store import Store, database
from holdfast.store.database import Database
from holdfast.volumes import service
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.fills import Fills
from holdfast.volumes.keeper import Keeper
from holdfast.volumes.model import ANONYMOUS_LABEL, new_id
from holdfast.volumes.mounts import MountPoint
from holdfast.volumes.service import Volumes
from tests.support.files import Files, read_files, write_files

IMAGE: Files = (("etc", 0o40750, b""), ("etc/one", 0o100644, b"one\n"), ("link", 0o120777, b"etc/one"))
WRITTEN: Files = (("written", 0o100600, b"by a container\n" * 400),)
Seen = tuple[tuple[Any, ...], ...]


class Refused(Exception):
    """What the model raises where the engine must raise an EngineError."""


# --- what operations mean ---------------------------------------------------------------------------------------------


@dataclass
class Vol:
    """A volume as the model knows it."""

    labels: dict[str, str] = field(default_factory=dict)
    protected: bool = False
    files: Files = ()
    refs: set[str] = field(default_factory=set)


@dataclass
class World:
    """All that is true of the engine. The names of anonymous volumes are numbers here."""

    volumes: dict[str, Vol] = field(default_factory=dict)
    trash: list[tuple[str, Vol]] = field(default_factory=list)
    """The last removed last."""
    containers: dict[str, str] = field(default_factory=dict)
    """Id to what it is in the midst of: "", "auto-remove" or "removing"."""
    serial: int = 0

    def attach(self, container: str, name: str) -> str:
        """What `Volumes.attach` does with a named and an anonymous volume; gives the name of the latter."""
        self.serial += 1
        anonymous = str(self.serial)
        self.volumes.setdefault(name, Vol()).refs.add(container)
        self.volumes[anonymous] = Vol(labels={ANONYMOUS_LABEL: ""}, refs={container})
        return anonymous

    def release(self, container: str, *, auto_remove: bool) -> None:
        """What `Volumes.release` does, anonymous volumes removed."""
        for name, volume in list(self.volumes.items()):
            if ANONYMOUS_LABEL in volume.labels and volume.refs == {container}:
                self.remove(name, keep=not auto_remove)
        for volume in self.volumes.values():
            volume.refs.discard(container)

    def remove(self, name: str, *, keep: bool = True) -> None:
        """Move a volume to the trash."""
        volume = self.volumes.pop(name)
        volume.refs.clear()
        if keep:
            self.trash.append((name, volume))

    def take_back(self, index: int, name: str) -> None:
        """Bring an entry of the trash back."""
        self.volumes[name] = self.trash.pop(index)[1]

    def restarted(self) -> World:
        """The world after a restart: what a dead engine was in the midst of is finished or undone."""
        world = deepcopy(self)
        for container, state in list(world.containers.items()):
            if state:
                world.release(container, auto_remove=state == "auto-remove")
                del world.containers[container]
        for container in {ref for volume in world.volumes.values() for ref in volume.refs} - set(world.containers):
            world.release(container, auto_remove=True)
        return world

    def seen(self) -> Seen:
        """The same in the form in which the engine's own state is read."""
        return (
            *sorted(_row("volume", name, vol, sorted(vol.refs)) for name, vol in self.volumes.items()),
            *sorted(_row("trash", name, vol, []) for name, vol in self.trash),
        )


def _row(kind: str, name: str, volume: Vol, refs: list[str]) -> tuple[Any, ...]:
    shown = "(anonymous)" if ANONYMOUS_LABEL in volume.labels else name
    return kind, shown, tuple(sorted(volume.labels.items())), volume.protected, tuple(refs), volume.files


# --- the real thing ---------------------------------------------------------------------------------------------------


class Bench:
    """A volume service on a state root, without the rest of the engine."""

    def __init__(self, root: Path) -> None:
        """Start on what lies in `root`, as the engine does."""
        self.root = root
        self.folder = root / "containers"
        self.folder.mkdir(exist_ok=True)
        self.image = root.parent / "image"
        if not self.image.exists():
            for place in ("data", "scratch"):
                write_files(self.image / place, IMAGE)
        self.store = Store(root / "holdfast.db")
        self.local = LocalDriver(root)
        self.volumes = Volumes(self.store, EventBus(), self.local)
        self.volumes.restore({name.partition(".")[0] for name in os.listdir(self.folder)})
        for name in os.listdir(self.folder):
            container, _, state = name.partition(".")
            if state:
                self.volumes.release(container, remove_anonymous=True, auto_remove=state == "auto-remove")
                (self.folder / name).unlink()

    def close(self) -> None:
        """Let go of the root, as a death does."""
        self.store.close()
        os.close(self.local._volumes_fd)
        os.close(self.local._trash_fd)

    def catch_up(self) -> None:
        """What the background threads would have done by now."""
        fills = self.volumes._fills
        due = fills._due.copy()
        fills._due.clear()
        if due:
            fills._put_on_disk(due)
        self.volumes._keeper.catch_up()

    def create_container(self, container: str, name: str, state: str = "") -> tuple[MountPoint, ...]:
        """What `containers/create` does about volumes."""
        points = self.volumes.attach(
            container,
            [
                MountPoint("volume", "/data", name=name, copy_data=True, driver="local"),
                MountPoint("volume", "/scratch", anonymous=True, copy_data=True, driver="local"),
            ],
        )
        faults.point("container-volumes-attached")
        for point in points:
            self.volumes.fill(point, self.image)
        faults.point("container-created-not-recorded")
        (self.folder / f"{container}{state}").touch()
        faults.point("container-recorded")
        return points

    def seen(self) -> Seen:
        """All that the service shows, contents from the disk."""
        volumes = [
            _row(
                "volume",
                volume.name,
                Vol(
                    dict(volume.record.labels or {}),
                    bool(volume.record.protected_by),
                    read_files(Path(volume.mountpoint)),
                ),
                self.volumes._catalogue.refs(volume.record),
            )
            for volume in self.volumes.list()
        ]
        trash = [
            _row(
                "trash",
                entry.volume.name,
                Vol(
                    dict(entry.volume.labels or {}),
                    files=read_files(self.local.trash_root / entry.volume.id / "_data"),
                ),
                [],
            )
            for entry in self.volumes.trash.list()
        ]
        return (*sorted(volumes), *sorted(trash))

    def check_disk(self) -> None:
        """Nothing lies on the disk that no row knows of, and the records beside the data are current."""
        live = {volume.name: volume.record for volume in self.volumes.list()}
        assert set(os.listdir(self.local.volumes_root)) == set(live), "folders of volumes"
        for name in live:
            assert set(os.listdir(self.local.volumes_root / name)) == {"_data", "volume.json"}, name
        assert {found.name: found.record for found in self.local.list()} == live, "records beside the data"
        removed = {record.id for record in self.store.volumes.removed()}
        assert set(self.local.in_trash()) <= removed, "unknown folders in the trash"
        kept = {entry.volume.id for entry in self.volumes.trash.list()}
        assert kept <= set(self.local.in_trash()), "trash without its data"

    def clear(self) -> None:
        """Remove everything, and see that nothing is left."""
        for name in os.listdir(self.folder):
            self.volumes.release(name.partition(".")[0], remove_anonymous=True)
            (self.folder / name).unlink()
        for volume in self.volumes.list():
            self.volumes.unprotect(volume.name)
            self.volumes.remove(volume.name)
        self.volumes.trash.empty()
        self.catch_up()
        left = [*os.listdir(self.local.volumes_root), *os.listdir(self.local.trash_root)]
        assert left == [], f"left on disk: {left}"
        assert self.store.volumes.all() == [] == self.store.volumes.removed(), "rows left"
        assert self.store.volumes.refs() == [], "references left"
        if self.store.intents.open():  # those of volumes in the trash wait for the next start
            self.close()
            vars(self).update(vars(Bench(self.root)))
            assert self.store.intents.open() == [], "intents left"


# --- the alphabet -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One letter: what to do, and what that means."""

    do: Callable[[Bench], object]
    mean: Callable[[World], Iterable[World | None]]
    """Changes the world it is given, yielding (anything) wherever a death may leave it as it is then."""


ALPHABET: dict[str, Operation] = {}


def operation(
    alphabet: dict[str, Operation], name: str, do: Callable[[Bench], object]
) -> Callable[[Callable[[World], Iterable[World | None]]], Callable[[World], Iterable[World | None]]]:
    """Add a letter: `do` is done, the decorated generator says what it means."""

    def add(mean: Callable[[World], Iterable[World | None]]) -> Callable[[World], Iterable[World | None]]:
        alphabet[name] = Operation(do, mean)
        return mean

    return add


Worlds = Iterable[World | None]


@operation(ALPHABET, "create", lambda bench: bench.volumes.create("alpha"))
def _create(world: World) -> Worlds:
    world.volumes.setdefault("alpha", Vol())
    return ()


@operation(ALPHABET, "create-labelled", lambda bench: bench.volumes.create("beta", labels={"kept": "yes"}))
def _create_labelled(world: World) -> Worlds:
    world.volumes.setdefault("beta", Vol(labels={"kept": "yes"}))
    return ()


def _do_fill(bench: Bench) -> None:
    if (bench.folder / "box").exists():
        raise Conflict("the container's name is taken")
    bench.create_container("box", "alpha")


@operation(ALPHABET, "fill", _do_fill)
def _fill(world: World) -> Iterator[World | None]:
    if "box" in world.containers:
        raise Refused
    anonymous = world.attach("box", "alpha")
    yield None
    for name in ("alpha", anonymous):
        world.volumes[name].files = world.volumes[name].files or IMAGE
        yield None
    world.containers["box"] = ""


def _do_run(bench: Bench) -> None:
    point, *_ = bench.create_container("run", "alpha", ".auto-remove")
    data = bench.volumes.mount("run", point).fd
    try:
        write_files(Path(f"/proc/self/fd/{data}"), WRITTEN)
    finally:
        os.close(data)
    faults.point("container-ended")
    bench.volumes.unmount("run", point)
    bench.volumes.release("run", remove_anonymous=True, auto_remove=True)
    faults.point("container-volumes-released")
    (bench.folder / "run.auto-remove").unlink()


@operation(ALPHABET, "run", _do_run)
def _run(world: World) -> Iterator[World | None]:
    anonymous = world.attach("run", "alpha")
    yield None
    volume = world.volumes["alpha"]
    for name in ("alpha", anonymous):
        world.volumes[name].files = world.volumes[name].files or IMAGE
        yield None
    world.containers["run"] = "auto-remove"
    yield None
    volume.files = tuple(sorted({*volume.files, *WRITTEN}))
    yield None
    world.release("run", auto_remove=True)
    del world.containers["run"]


def _do_drop(bench: Bench) -> None:
    box = bench.folder / "box"
    if not box.exists():
        raise Conflict("no such container")
    removing = box.rename(bench.folder / "box.removing")
    faults.point("container-removing")
    bench.volumes.release("box", remove_anonymous=True)
    faults.point("container-volumes-released")
    removing.unlink()


@operation(ALPHABET, "rm-v", _do_drop)
def _drop(world: World) -> Worlds:
    if "box" not in world.containers:
        raise Refused
    world.release("box", auto_remove=False)
    del world.containers["box"]
    return ()


@operation(ALPHABET, "rm", lambda bench: bench.volumes.remove("alpha"))
def _rm(world: World) -> Worlds:
    volume = world.volumes.get("alpha")
    if volume is None or volume.refs or volume.protected:
        raise Refused
    world.remove("alpha")
    return ()


@operation(ALPHABET, "prune", lambda bench: bench.volumes.prune({"all": ["true"]}, (1, 47)))
def _prune(world: World) -> Iterator[World | None]:
    before = deepcopy(world)
    going = [name for name, volume in world.volumes.items() if not volume.refs and not volume.protected]
    for some in _subsets(going):
        vars(world).update(vars(deepcopy(before)))
        for name in some:
            world.remove(name)
        yield None


def _toggle(bench: Bench) -> None:
    if bench.volumes.get("alpha").record.protected_by:
        bench.volumes.unprotect("alpha")
    else:
        bench.volumes.protect("alpha", "a test")


@operation(ALPHABET, "protect", _toggle)
def _protect(world: World) -> Worlds:
    if "alpha" not in world.volumes:
        raise Refused
    world.volumes["alpha"].protected ^= True
    return ()


@operation(ALPHABET, "relabel", lambda bench: bench.volumes.relabel("alpha", {"changed": "yes"}))
def _relabel(world: World) -> Worlds:
    if "alpha" not in world.volumes:
        raise Refused
    world.volumes["alpha"].labels = {"changed": "yes"}
    return ()


@operation(ALPHABET, "undo", lambda bench: bench.volumes.trash.undo())
def _undo(world: World) -> Iterator[World | None]:
    newest = {name: index for index, (name, _) in enumerate(world.trash)}
    if not newest or newest.keys() & world.volumes.keys():
        raise Refused
    before = deepcopy(world)
    for some in _subsets(list(newest)):
        vars(world).update(vars(deepcopy(before)))
        for name in sorted(some, key=newest.__getitem__, reverse=True):
            world.take_back(newest[name], name)
        yield None


@operation(ALPHABET, "restore-as", lambda bench: bench.volumes.trash.restore("alpha", "gamma"))
def _restore_as(world: World) -> Worlds:
    found = [index for index, (name, _) in enumerate(world.trash) if name == "alpha"]
    if not found or "gamma" in world.volumes:
        raise Refused
    world.take_back(found[-1], "gamma")
    return ()


@operation(ALPHABET, "empty", lambda bench: bench.volumes.trash.empty())
def _empty(world: World) -> Worlds:
    world.trash.clear()
    return ()


@operation(ALPHABET, "rest", Bench.catch_up)
def _rest(world: World) -> Worlds:
    return ()


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every subset, the whole last."""
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


# --- dying and looking ------------------------------------------------------------------------------------------------


def sequences_of(alphabet: Iterable[str], length: int) -> list[tuple[str, ...]]:
    """Every sequence of exactly this length."""
    return list(itertools.product(alphabet, repeat=length))


def try_sequence(
    letters: Sequence[str], alphabet: dict[str, Operation] = ALPHABET, *, fine: bool = True, kill: bool = False
) -> int:
    """Run one sequence with every death in its last operation; gives the number of deaths.

    AssertionError names the sequence, the point and what differs. To be called where no other thread runs.
    """
    with _prepared(fine), tempfile.TemporaryDirectory(prefix="sequence-", dir=_fast_folder()) as folder:
        trial = _Trial(letters, alphabet, Path(folder))
        return trial.run_killing() if kill else trial.run_copying()


def try_all(
    sequences: Sequence[tuple[str, ...]], *, fine: bool = True, kill: bool = False, workers: int = 0
) -> tuple[int, list[str]]:
    """Try sequences of `ALPHABET` on all processors; gives the number of deaths and what was wrong."""
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        results = list(pool.map(partial(_try_one, fine=fine, kill=kill), sequences, chunksize=8))
    return sum(deaths for deaths, _ in results), [wrong for _, wrong in results if wrong]


def _try_one(letters: tuple[str, ...], fine: bool, kill: bool) -> tuple[int, str]:
    try:
        return try_sequence(letters, fine=fine, kill=kill), ""
    except (AssertionError, EngineError, OSError) as error:
        return 0, f"{type(error).__name__}: {error}"


@dataclass
class _Trial:
    letters: Sequence[str]
    alphabet: dict[str, Operation]
    folder: Path

    @property
    def state(self) -> Path:
        """The state root."""
        return self.folder / "state"

    def run_killing(self) -> int:
        """Every death by SIGKILL."""
        passed = [line[1:] for line in self._die("") if line.startswith("@")]
        deaths = 0
        for number, point in enumerate(passed):
            where = f"{' '.join(self.letters)}, killed at {point} ({number + 1} of {len(passed)})"
            at = f"{point}@{passed[: number + 1].count(point)}"
            acknowledged = self._die(at)
            recovered: list[str] = []
            self._recover(acknowledged, where, recovered.append)
            deaths += 1
            for step, again in enumerate(recovered):
                acknowledged = self._die(at)
                self._die_recovering(f"{again}@{recovered[: step + 1].count(again)}")
                self._recover(acknowledged, f"{where} and at {again} in recovery", None)
                deaths += 1
        return deaths

    def _die_recovering(self, armed: str) -> None:
        faults.arm(armed)
        try:
            _in_child(lambda _: Bench(self.state), dies=True)
        finally:
            faults.arm("")

    def run_copying(self) -> int:
        """Every death as a copy of what it leaves; the last one comes after the last operation was acknowledged."""
        copies: list[tuple[str, Path, int]] = []
        outcomes: list[str] = []

        def die(point: str) -> None:
            copies.append((point, self._copy(f"dead-{len(copies)}"), len(outcomes)))

        self._fresh()
        bench = self._walk(outcomes.append, die)
        die("the end")
        seen = bench.seen()
        bench.close()
        alive, *_ = self._worlds(outcomes)
        assert seen == alive.seen(), f"{' '.join(self.letters)}, alive\n{_difference(seen, [alive])}"
        deaths = 0
        for number, (point, dead, acknowledged) in enumerate(copies):
            where = f"{' '.join(self.letters)}, killed at {point} ({number + 1} of {len(copies)})"
            again: list[tuple[str, Path]] = []

            def die_again(point: str, again: list[tuple[str, Path]] = again) -> None:
                again.append((point, self._copy(f"again-{len(again)}")))

            self._become(dead)
            self._recover(outcomes[:acknowledged], where, die_again)
            for point, dead in again:
                self._become(dead)
                self._recover(outcomes[:acknowledged], f"{where} and at {point} in recovery", None)
            deaths += 1 + len(again)
        return deaths

    def _fresh(self) -> None:
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()

    def _copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.state, self.folder / name, symlinks=True))

    def _become(self, dead: Path) -> None:
        shutil.rmtree(self.state)
        dead.rename(self.state)

    def _die(self, armed: str) -> list[str]:
        """Run the sequence in a child that dies where it is armed to.

        Gives what it told: the outcomes of the operations and, if not armed, the points that the last one passed, each
        after an @.
        """
        self._fresh()
        if not armed:
            return _in_child(lambda tell: self._walk(tell, lambda point: tell(f"@{point}")), dies=False)

        def arm(point: str) -> None:
            _pass_points_to(_real_point)
            _real_point(point)

        faults.arm(armed)
        try:
            told = _in_child(lambda tell: self._walk(tell, arm), dies=True)
        finally:
            faults.arm("")
        assert len(told) == len(self.letters) - 1, told
        return told

    def _walk(self, tell: Callable[[str], object], pass_by: Callable[[str], object]) -> Bench:
        """Do the operations. Outcomes go to `tell`, the points that the last operation passes to `pass_by`."""
        # The order in which things happen depends on names, so that anonymous ones must be the same in every run.
        chance = random.Random(" ".join(self.letters))
        vars(service)["new_id"] = lambda: f"{chance.getrandbits(256):064x}"
        try:
            _pass_points_to(_ignore)
            bench = Bench(self.state)
            for number, letter in enumerate(self.letters):
                if number == len(self.letters) - 1:
                    _pass_points_to(pass_by)
                outcome = self._do(letter, bench)
                _pass_points_to(_ignore)
                tell(outcome)
        finally:
            _pass_points_to(_real_point)
            vars(service)["new_id"] = _real_new_id
        return bench

    def _do(self, letter: str, bench: Bench) -> str:
        try:
            self.alphabet[letter].do(bench)
        except EngineError as error:
            return f"refused: {error}"
        return "done"

    def _worlds(self, outcomes: Sequence[str]) -> list[World]:
        """The worlds that are right after these outcomes: the acknowledged one, alive and restarted, then more.

        The others are those to which an operation under way may have got.
        """
        world = World()
        for letter, outcome in zip(self.letters, outcomes, strict=False):
            world = self._after(world, letter, outcome)
        worlds = []
        if len(outcomes) < len(self.letters):
            under_way = deepcopy(world)
            try:
                worlds += [deepcopy(under_way) for _ in self.alphabet[self.letters[-1]].mean(under_way)]
                worlds.append(under_way)
            except Refused:
                pass
        return [world, *(candidate.restarted() for candidate in [world, *worlds])]

    def _after(self, world: World, letter: str, outcome: str) -> World:
        after = deepcopy(world)
        try:
            for _ in self.alphabet[letter].mean(after):
                pass
        except Refused:
            assert outcome.startswith("refused"), f"{' '.join(self.letters)}: {letter} must be refused, was {outcome}"
            return world
        assert outcome == "done", f"{' '.join(self.letters)}: {letter} was {outcome}"
        return after

    def _recover(self, outcomes: Sequence[str], where: str, pass_by: Callable[[str], object] | None) -> None:
        """Start again, compare, repeat the operation, clear away. The points that recovery passes go to `pass_by`."""
        try:
            _pass_points_to(pass_by or _ignore)
            bench = Bench(self.state)
            _pass_points_to(_ignore)
            try:
                self._compare(bench, outcomes)
            finally:
                bench.close()
        except (AssertionError, EngineError, OSError) as error:
            raise AssertionError(f"{where}\n{type(error).__name__}: {error}") from error
        finally:
            _pass_points_to(_real_point)

    def _compare(self, bench: Bench, outcomes: Sequence[str]) -> None:
        seen = bench.seen()
        _, *right = self._worlds(outcomes)
        found = next((world for world in right if world.seen() == seen), None)
        assert found is not None, _difference(seen, right)
        bench.check_disk()
        again = self._after(found, self.letters[-1], self._do(self.letters[-1], bench))
        seen = bench.seen()
        assert seen == again.seen(), "repeated: " + _difference(seen, [again])
        bench.check_disk()
        bench.clear()


def _difference(seen: Seen, right: Sequence[World]) -> str:
    lines = ["found:", *(f"    {_brief(row)}" for row in seen)]
    shown: list[Seen] = []
    for world in right:
        if world.seen() not in shown:
            shown.append(world.seen())
            lines += ["right would be:", *(f"    {_brief(row)}" for row in world.seen())]
    return "\n".join(lines)


def _brief(row: tuple[Any, ...]) -> str:
    kind, name, labels, protected, refs, files = row
    return f"{kind} {name} {dict(labels)} {'protected ' * protected}held by {list(refs)} has {[f[0] for f in files]}"


def _in_child(work: Callable[[Callable[[str], None]], object], *, dies: bool) -> list[str]:
    """Fork, work, die; gives the lines that the child told."""
    reading, writing = os.pipe()
    gc.freeze()  # a collection in the child would copy every page
    child = os.fork()
    if child == 0:

        def tell(line: str) -> None:
            os.write(writing, f"{line}\n".encode())

        code = 1
        try:
            os.close(reading)
            work(tell)
            code = 0
        except BaseException as error:  # noqa: BLE001  # told to the parent
            tell(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        lines = pipe.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (-signal.SIGKILL if dies else 0), f"the child ended with {code}: {lines[-1:]}"
    return lines


_real_point = faults.point
_real_new_id = new_id
_real_write = Database.write


def _pass_points_to(do: Callable[[str], object]) -> None:
    faults.point = do  # type: ignore[assignment]


def _ignore(point: str) -> None:
    """Pass a fault point unharmed."""


@contextmanager
def _prepared(fine: bool) -> Iterator[None]:
    """No background threads, a small log of the catalogue and, if `fine`, points around every transaction."""

    def write(self: Database, work: Callable[[Any], Any]) -> Any:
        faults.point("transaction-begins")
        result = _real_write(self, work)
        faults.point("transaction-ended")
        return result

    def wake(self: Keeper, unsettled: Sequence[Any] = ()) -> None:
        self._unsettled.extend(unsettled)

    def flush_soon(self: Fills, fill: Any) -> None:
        self._due.append(fill)

    real_wake, real_flush_soon, pages = Keeper._wake, Fills._flush_soon, database._WAL_PAGES
    Keeper._wake, Fills._flush_soon, database._WAL_PAGES = wake, flush_soon, 8  # type: ignore[method-assign]
    if fine:
        Database.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        Database.write, database._WAL_PAGES = _real_write, pages  # type: ignore[method-assign]
        Keeper._wake, Fills._flush_soon = real_wake, real_flush_soon  # type: ignore[method-assign]


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    print(try_sequence(sys.argv[1:], kill=True), "deaths survived")
