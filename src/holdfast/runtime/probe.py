"""Find an OCI runtime that works here, by running a container with each candidate.

Version strings say too little: crun refuses some cgroup layouts, capabilities may be missing, and whether a container
can be started by writing to crun's exec fifo (which saves the start of one program) is only known from trying.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeVar

from holdfast import log
from holdfast.config import Config
from holdfast.errors import EngineError, System, Unavailable
from holdfast.kernel import cgroup, identity, namespaces
from holdfast.kernel.path import owned_fd, remove_tree
from holdfast.process import CLEAN_ENVIRONMENT, ProgramFailed, run, spawn
from holdfast.runtime import conmon
from holdfast.runtime.filters import FilterCache, read_filter, with_filter
from holdfast.runtime.layout import RunLayout
from holdfast.runtime.spec import HostFacts, OciMount, SpecInput, build_spec

logger = log.get(__name__)

T = TypeVar("T")

CANDIDATES: Final = ("crun", "runc")

_ID: Final = "holdfast-probe"
_SHOW: Final = ("/bin/cat", "/proc/self/status")
_SHOWN_LIMIT_BYTES: Final = 65536
_FILTERED: Final = b"\nSeccomp:\t2\n"
_PROGRAM_DIRECTORIES: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix")
_CALL_S: Final = 20.0
_OUTPUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """The runtime that was chosen and how to use it."""

    name: str
    path: Path
    version: str
    release: Literal["fifo", "start"]
    """How a created container is set going: a byte into crun's exec fifo, or the runtime's `start`."""
    hide_controllers: Path | None
    """The file that every call must not see, hence runs inside `namespace`."""
    namespace: Path | None
    conmon: Path
    compiled_seccomp: bool = False
    """Whether it takes compiled filters: see `filters`."""

    def inside(self, work: Callable[[], T]) -> T:
        """Do `work`, which starts conmon or the runtime, in the mount namespace in which the runtime works."""
        return work() if self.namespace is None else namespaces.in_mount_namespace(self.namespace, work)

    def filter_cache(self, places: RunLayout) -> FilterCache:
        """The compiled filters of exactly this program."""
        return FilterCache(places.filters, f"{self.path} {self.path.stat().st_mtime_ns}")


def probe(config: Config, layout: cgroup.CgroupLayout, host: HostFacts) -> RuntimeFacts:
    """Choose a runtime; the answer is kept in the run root for this boot and these programs.

    The run root, and the state root, must be shared mounts by now. Raises Unavailable if nothing works, saying why
    for each candidate.
    """
    places = RunLayout(config.run_root)
    monitor = next((path for path in conmon.PROGRAMS if path.exists()), None)
    if monitor is None:
        raise Unavailable("conmon is not installed", hint="apt install conmon")
    failures: list[str] = []
    for name in CANDIDATES if config.runtime == "auto" else (config.runtime,):
        found = shutil.which(name, path=CLEAN_ENVIRONMENT["PATH"])
        if found is None:
            failures.append(f"{name}: not installed")
            continue
        path = Path(found).resolve()
        hide = cgroup.crun_needs_hiding(layout) if name == "crun" else None
        try:
            if hide is not None:
                places.namespace.parent.mkdir(parents=True, exist_ok=True)
                namespaces.pin_mount_namespace_hiding(places.namespace, hide)
            facts = RuntimeFacts(name, path, "", "start", hide, places.namespace if hide else None, monitor)
            key = _key(facts)
            known = _recall(places.facts_file, key)
            if known is None:
                release, compiled = facts.inside(
                    functools.partial(_try, facts, places, config.cgroup_parent, host))
                known = {"version": _version(path), "release": release, "compiled_seccomp": "yes" if compiled else ""}
                _remember(places.facts_file, key | known)
            return replace(facts, version=known["version"], release="fifo" if known["release"] == "fifo" else "start",
                           compiled_seccomp=bool(known["compiled_seccomp"]))
        except (EngineError, OSError) as error:
            logger.warning("runtime does not work here", extra={"runtime": name, "error": error})
            failures.append(f"{name}: {error}")
    raise Unavailable("no OCI runtime works on this machine: " + "; ".join(failures), hint="apt install crun")


def _key(facts: RuntimeFacts) -> dict[str, str]:
    """All that the answer depends on."""
    return {
        "path": str(facts.path), "mtime_ns": str(facts.path.stat().st_mtime_ns),
        "conmon_mtime_ns": str(facts.conmon.stat().st_mtime_ns),
        "boot_id": identity.boot_id(), "hide": str(facts.hide_controllers or ""),
    }


def _recall(file: Path, key: dict[str, str]) -> dict[str, str] | None:
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or any(known.get(field) != value for field, value in key.items()):
        return None
    return {name: str(known.get(name) or "") for name in ("release", "version", "compiled_seccomp")}


def _remember(file: Path, known: dict[str, str]) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(known))
    temporary.replace(file)


def _version(path: Path) -> str:
    words = run([path, "--version"], timeout_s=_CALL_S).stdout.decode(errors="replace").split()
    return words[2] if len(words) > 2 else "unknown"


def _try(
    facts: RuntimeFacts, places: RunLayout, cgroup_parent: str, host: HostFacts
) -> tuple[Literal["fifo", "start"], bool]:
    """Run one of the host's programs in a container: how is it released, and are compiled filters taken?

    Raises System if it does not run at all.
    """
    state = places.runtime_root(facts.name)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    runtime = [str(facts.path), "--root", str(state)]
    with _bundle(places) as bundle:
        spec, _ = build_spec(
            SpecInput(id=_ID, rootfs=bundle / "rootfs", args=_SHOW, cgroups_path=f"{cgroup_parent}/{_ID}",
                      mounts=_host_programs(bundle / "rootfs")),
            host,
        )
        for by_fifo in (True, False) if facts.name == "crun" else (False,):
            shown, compiled = _run_once(runtime, bundle, state, spec, by_fifo=by_fifo)
            if not shown:
                continue
            if compiled:
                shown, _ = _run_once(runtime, bundle, state, with_filter(spec, compiled), by_fifo=by_fifo)
            if not compiled or _FILTERED not in shown:
                return "fifo" if by_fifo else "start", False
            filters = facts.filter_cache(places)
            filters.learn(filters.apply(spec)[1], compiled)
            return "fifo" if by_fifo else "start", True
    raise System(f"{facts.name}: a container was created but did not run")


def _run_once(
    runtime: Sequence[str], bundle: Path, state: Path, spec: dict[str, object], *, by_fifo: bool
) -> tuple[bytes, str]:
    """Create the container, release it and remove it: (its output, the filter that the runtime compiled for it).

    Raises ProgramFailed from create or start.
    """
    (bundle / "config.json").write_text(json.dumps(spec))
    run([*runtime, "delete", "-f", _ID], timeout_s=_CALL_S, check=False)
    try:
        reader, writer = os.pipe()
        with owned_fd(reader):
            with owned_fd(writer), (bundle / "stderr").open("w+b") as errors:
                create = spawn([*runtime, "create", "--bundle", str(bundle), _ID], stdout=writer, stderr=errors)
                try:
                    status = create.wait(_CALL_S)
                except subprocess.TimeoutExpired:
                    create.kill()
                    status = create.wait()
                if status != 0:
                    errors.seek(0)
                    raise ProgramFailed("create", status, errors.read())
            compiled = read_filter(state / _ID)
            if by_fifo:
                try:
                    release_by_fifo(state / _ID)
                except OSError:
                    return b"", compiled
            else:
                run([*runtime, "start", _ID], timeout_s=_CALL_S)
            return _read_to_end(reader, _OUTPUT_S), compiled
    finally:
        run([*runtime, "delete", "-f", _ID], timeout_s=_CALL_S, check=False)


def _read_to_end(fd: int, timeout_s: float) -> bytes:
    """All that comes until end of file; what came so far if that takes longer."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    data = b""
    while len(data) < _SHOWN_LIMIT_BYTES and poll.poll(int(timeout_s * 1000)):
        piece = os.read(fd, _SHOWN_LIMIT_BYTES)
        if not piece:
            break
        data += piece
    return data


def release_by_fifo(state: Path) -> None:
    """Do what `crun start` does, without starting crun: one byte into the fifo, then its name goes.

    Raises OSError: ENOENT if the container was released before, ENXIO if its first process is gone.
    Source: crun, `libcrun_status_write_exec_fifo`.
    """
    fifo = state / "exec.fifo"
    with owned_fd(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise FileNotFoundError(2, "not a fifo", str(fifo))
        fifo.unlink()
        os.write(fd, b"\0")


def _host_programs(rootfs: Path) -> tuple[OciMount, ...]:
    """Make a root that shows the host's programs and libraries: links copied, directories to be bound read-only."""
    rootfs.mkdir()
    mounts: list[OciMount] = []
    for name in _PROGRAM_DIRECTORIES:
        original = Path("/", name)
        if original.is_symlink():
            (rootfs / name).symlink_to(original.readlink())
        elif original.is_dir():
            mounts.append(OciMount(f"/{name}", str(original), "bind", ("rbind", "ro", "rprivate")))
    return tuple(mounts)


@contextlib.contextmanager
def _bundle(places: RunLayout) -> Iterator[Path]:
    """A bundle that is removed again."""
    places.containers.mkdir(parents=True, exist_ok=True, mode=0o700)
    with owned_fd(os.open(places.containers, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(directory, _ID)
        bundle = places.bundle(_ID)
        bundle.mkdir(mode=0o700)
        try:
            yield bundle
        finally:
            remove_tree(directory, _ID)
