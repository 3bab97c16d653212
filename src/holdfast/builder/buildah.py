"""buildah: how it is called, where it keeps what it makes, and how a call is followed and ended.

    build-cache/            buildah's own store below the state root: copies of base images, layers of earlier builds
    builds/<id>/            one build: its context, its scratch space; removed at its end

A call runs in the sandbox, in a process namespace and a control group of its own: killing its first process ends
everything that it started, with every mount. buildah never reaches a registry; images are brought to it.
Sources: buildah-build(1), containers-storage.conf(5), containers.conf(5).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast import log
from holdfast.builder.model import BuildRequest, Limits
from holdfast.builder.sandbox import Sandbox, in_sandbox
from holdfast.errors import DeadlineExceeded, System, Unsupported
from holdfast.kernel import cgroup
from holdfast.process import CLEAN_ENVIRONMENT, run, spawn
from holdfast.runtime.capabilities import DEFAULT as CAPABILITIES

logger = log.get(__name__)

HINT: Final = "apt install --no-install-recommends buildah"
STORE: Final = "/store"
CONTEXT: Final = "/context"
DOCKERFILE: Final = "/Dockerfile"
NETWORK: Final = "/network"
OUT: Final = "/out"

_ENVIRONMENT: Final = {
    **CLEAN_ENVIRONMENT,
    "HOME": "/root",
    "TMPDIR": "/tmp",
    "CONTAINERS_CONF": "/etc/containers/containers.conf",
    "CONTAINERS_STORAGE_CONF": "/etc/containers/storage.conf",
    "CONTAINERS_REGISTRIES_CONF": "/etc/containers/registries.conf",
}
_FILES: Final = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/etc/group": "root:x:0:\n",
    "/etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "/etc/containers/registries.conf": 'unqualified-search-registries = []\nshort-name-mode = "disabled"\n',
    "/etc/containers/storage.conf": f'[storage]\ndriver = "overlay"\nrunroot = "/run/storage"\ngraphroot = "{STORE}"\n',
    "/etc/containers/containers.conf": "[containers]\n"
    f"default_capabilities = {json.dumps([name.removeprefix('CAP_') for name in CAPABILITIES])}\n"
    'default_sysctls = ["net.ipv4.ping_group_range=0 2147483647", "net.ipv4.ip_unprivileged_port_start=0"]\n',
}
# The shell waits until the process is in its control group; then nothing that it starts can be outside. If the engine
# dies or fails before that, it ends.
_GATE: Final = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh")
_NAMESPACES: Final = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
# Stands before the OCI runtime: hides from RUN what is hidden from containers, and buildah would show.
RUNTIME: Final = "/runtime"
_RUNTIME_SCRIPT: Final = """#!/bin/sh
for word; do
    case $previous in --bundle | -b) bundle=$word ;; esac
    previous=$word
done
[ -z "$bundle" ] || sed -i 's|"maskedPaths":\\[|&{masked},|' "$bundle/config.json"
exec {runtime} "$@"
"""
_QUICK_S: Final = 120.0
_SLOW_S: Final = 3600.0
_POLL_S: Final = 0.1
_PIECE_BYTES: Final = 64 << 10
_SAID_BYTES: Final = 4000
_END_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Buildah:
    """The buildah of this machine."""

    path: Path
    version: tuple[int, ...]

    @property
    def knows_heredocs(self) -> bool:
        """Whether here-documents work. Source: buildah's release notes, 1.33."""
        return self.version >= (1, 33)


def find() -> Buildah:
    """Find buildah. Raises Unsupported if it is not installed."""
    found = shutil.which("buildah", path=CLEAN_ENVIRONMENT["PATH"])
    if found is None:
        raise Unsupported(f"building images needs buildah, which is not installed: {HINT}", hint=HINT)
    said = run([found, "--version"], timeout_s=_QUICK_S).stdout.decode(errors="replace")
    match = re.search(r"version (\d+)\.(\d+)", said)
    return Buildah(Path(found), (int(match[1]), int(match[2])) if match else ())


@dataclass(frozen=True, slots=True)
class Runtime:
    """The OCI runtime that containers run with, the file that it must not see filled, and what it shall hide."""

    path: Path
    hide_controllers: Path | None
    masked_paths: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    """The limits that programs have unless a build asks for others, `NAME=SOFT:HARD`. buildah has its own idea of them,
    which an engine without CAP_SYS_RESOURCE cannot give."""

    @property
    def script(self) -> str:
        """What buildah calls in its place. Paths are our own and need no quoting."""
        masked = ",".join(f'"{path}"' for path in self.masked_paths)
        return _RUNTIME_SCRIPT.format(masked=masked, runtime=self.path)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one call works: `root` is an empty directory for the sandbox, `scratch` becomes /tmp."""

    root: Path
    scratch: Path
    store: Path
    cgroup: str


class Call:
    """One running call of buildah."""

    def __init__(
        self,
        place: Place,
        runtime: Runtime,
        arguments: Sequence[str],
        shown: Mapping[str, tuple[Path, bool]],
        files: Mapping[str, str],
        namespace: Path | None = None,
    ) -> None:
        """Start it; `namespace` is that of the network, to be found at NETWORK. Raises ProgramFailed, System."""
        self._cgroup = place.cgroup
        self._released = False
        self._layout = cgroup.layout()
        everything = {
            STORE: (place.store, True), "/tmp": (place.scratch, True), "/var/tmp": (place.scratch, True), **shown
        }  # fmt: skip
        sandbox = Sandbox(
            everything,
            {**_FILES, RUNTIME: runtime.script, **files},
            runtime.hide_controllers,
            {} if namespace is None else {NETWORK: namespace},
        )
        with contextlib.ExitStack() as undo:
            ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
            (gate, release), (self._out, out), (self._err, err) = ends
            for number in (gate, out, err):
                undo.callback(os.close, number)
            gate_file = os.fdopen(release, "wb", buffering=0)
            self._streams = (gate_file, os.fdopen(self._out, "rb"), os.fdopen(self._err, "rb"))
            try:
                argv = [*_GATE, *_NAMESPACES, "buildah", *arguments]
                try:
                    self._process = in_sandbox(
                        place.root, sandbox, lambda: spawn(argv, env=_ENVIRONMENT, stdin=gate, stdout=out, stderr=err)
                    )
                    undo.callback(self._end_unless_released)
                    cgroup.join(self._layout, f"{place.cgroup}/buildah", self._process.pid)
                    gate_file.write(b"\n")
                    self._released = True
                except OSError as error:
                    raise System(f"start buildah: {error}") from error
            except BaseException:
                self._close()
                raise

    def _end_unless_released(self) -> None:
        if not self._released:
            self._process.kill()
            self._process.wait(_END_S)

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """Give what it writes as it comes: ("out" or "err", bytes), and ("", b"") when nothing came for a moment.

        Ends when the output does, or soon after `stopped` says so; then everything is killed.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ, "out")
            selector.register(self._err, selectors.EVENT_READ, "err")
            while selector.get_map():
                if stopped():
                    self.kill()
                    return
                events = selector.select(_POLL_S)
                if not events:
                    yield "", b""
                for key, _ in events:
                    data = os.read(key.fd, _PIECE_BYTES)
                    if data:
                        yield key.data, data
                    else:
                        selector.unregister(key.fd)

    def kill(self) -> None:
        """End it and everything that it started."""
        with contextlib.suppress(OSError):
            cgroup.kill(self._layout, self._cgroup)
        if self._process.poll() is None:
            self._process.kill()

    def finish(self) -> int:
        """Wait for its end and clear away its control group; gives its exit status, negative for a signal."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait(_END_S)
        finally:
            self._close()
            end(self._cgroup)
        return status

    def _close(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()


def end(name: str) -> None:
    """End everything in a control group and remove it; one that is not there is no error."""
    try:
        cgroup.remove(cgroup.layout(), name, kill_leftovers=True, timeout_s=_END_S)
    except OSError as error:
        logger.warning("control group of a build stays", extra={"cgroup": name, "error": str(error)})


def call(
    place: Place,
    runtime: Runtime,
    arguments: Sequence[str],
    *,
    shown: Mapping[str, tuple[Path, bool]] | None = None,
    stopped: Callable[[], bool] = lambda: False,
    timeout_s: float = _SLOW_S,
) -> bytes:
    """Run a call to its end and give what it wrote. Raises System, DeadlineExceeded."""
    started = Call(place, runtime, arguments, shown or {}, {})
    limit = time.monotonic() + timeout_s
    said: dict[str, bytes] = {"out": b"", "err": b"", "": b""}
    try:
        for kind, data in started.pieces(lambda: stopped() or time.monotonic() > limit):
            said[kind] += data
    finally:
        status = started.finish()
    if time.monotonic() > limit:
        raise DeadlineExceeded(f"buildah {arguments[0]}: given up after {timeout_s:g} s")
    if status != 0:
        text = said["err"][-_SAID_BYTES:].decode(errors="replace").strip().rpartition("\n")[2]
        raise System(f"buildah {arguments[0]}: {text.removeprefix('Error: ') or f'exit status {status}'}")
    return said["out"]


def build_arguments(
    request: BuildRequest, runtime: Runtime, *, network: str, cgroup_parent: str, hosts: Sequence[str]
) -> list[str]:
    """The arguments of `buildah build` for a request whose Dockerfile and images are in place. Pure.

    `network` is `none`, `host` or the path of a namespace inside; `hosts` are `NAME:ADDRESS`.
    """
    words = [
        "build", "--layers", "--pull=never", "--format=docker", "--identity-label=false", "--force-rm",
        "--isolation=oci", f"--runtime={RUNTIME}", f"--cgroup-parent={cgroup_parent}", "--http-proxy=false",
        f"--network={network if network in ('none', 'host') else f'ns:{network}'}", f"--file={DOCKERFILE}",
        "--skip-unused-stages=false",
    ]  # fmt: skip
    if not request.use_cache:
        words.append("--no-cache")
    words += [f"--build-arg={name}={value}" for name, value in sorted(request.arguments.items()) if value is not None]
    words += [f"--add-host={entry}" for entry in hosts]
    given = {limit.partition("=")[0] for limit in request.limits.ulimits}
    words += [f"--ulimit={limit}" for limit in runtime.ulimits if limit.partition("=")[0] not in given]
    return [*words, *_limit_arguments(request.limits), CONTEXT]


def _limit_arguments(limits: Limits) -> list[str]:
    given = {
        "memory": limits.memory_bytes, "memory-swap": limits.memory_swap_bytes, "cpu-shares": limits.cpu_shares,
        "cpu-quota": limits.cpu_quota_us, "cpu-period": limits.cpu_period_us, "cpuset-cpus": limits.cpuset_cpus,
        "cpuset-mems": limits.cpuset_mems, "shm-size": limits.shm_size_bytes,
    }  # fmt: skip
    return [
        *(f"--{name}={value}" for name, value in given.items() if value),
        *(f"--ulimit={limit}" for limit in limits.ulimits),
    ]
