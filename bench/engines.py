"""Engines to measure, all alike: state on one file system, namespaces of their own, one client for all.

Every engine is a context manager that ends what it started.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.engine import PROJECT, Engine
from tests.support.images import busybox_archive

PEER_ROOT = PROJECT / "build" / "peers" / "root" / "usr"
DOCKERD_PATH = f"{PEER_ROOT}/bin:{PEER_ROOT}/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open between calls."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=600)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(600)
        self.sock.connect(str(self._path))


class Startable(Protocol):
    """What differs between engines."""

    def start(self) -> None:
        """Return as soon as it answers."""
        ...

    def stop(self) -> None:
        """End the engine as its service manager would."""
        ...

    def pids(self) -> Sequence[int]:
        """Processes of the engine itself, without those of containers."""
        ...

    def close(self) -> None:
        """End everything that it started."""
        ...


class Peer:
    """One engine under measurement: its name, its API and its client."""

    def __init__(self, name: str, socket_path: Path, process: Startable) -> None:
        self.name, self.socket_path, self.process = name, socket_path, process
        self.connection = Connection(socket_path)
        self.url = f"unix://{socket_path}"
        self.client = shutil.which("docker") or str(PEER_ROOT / "bin" / "docker")

    def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, check: bool = True,
        connection: Connection | None = None,
    ) -> bytes:
        """One API call on the kept connection (or the one given); RuntimeError for a status from 400 on."""
        used = connection or self.connection
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        kind = "application/json" if raw is None else "application/x-tar"
        used.request(method, path, body=data, headers={"Content-Type": kind} if data is not None else {})
        response = used.getresponse()
        answer = response.read()
        if check and response.status >= 400:
            raise RuntimeError(f"{self.name}: {method} {path}: {response.status} {answer[:300]!r}")
        return answer

    def docker(self, *arguments: str, check: bool = True) -> str:
        """The docker client; its output."""
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": self.url}
        done = subprocess.run(
            [self.client, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: docker {' '.join(arguments)}: {done.returncode} {done.stderr[-500:]}")
        return done.stdout

    def version(self) -> str:
        """What the engine calls itself."""
        return str(json.loads(self.call("GET", "/version"))["Version"])

    def memory_mb(self) -> float:
        """Memory of the engine's own processes: proportional set size, shared pages counted once."""
        total = 0
        for pid in self.process.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024


def descendants(pid: int, *, without: Sequence[str] = ()) -> list[int]:
    """A process and all below it, save those whose names start with one of `without`."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        try:
            name = Path(f"/proc/{current}/comm").read_text()
            children = Path(f"/proc/{current}/task/{current}/children").read_text().split()
        except OSError:
            continue
        if not name.startswith(tuple(without) or ("\0",)):
            found.append(current)
            waiting += [int(child) for child in children]
    return found


class Holdfast:
    """The engine of this folder."""

    def __init__(self, folder: Path, run: Path) -> None:
        source = str(PROJECT / "src")
        self.engine = Engine(folder, environment={"HOLDFAST_LOG_LEVEL": "info", "PYTHONPATH": source})
        self.engine.run_root = run / "holdfast"
        self.engine.run_root.mkdir()
        self.engine.socket_path = self.engine.run_root / "holdfast.sock"

    def start(self) -> None:
        """Start; returns when it answers."""
        self.engine.start()

    def stop(self) -> None:
        """End it; its containers go on."""
        self.engine.stop()

    def pids(self) -> list[int]:
        """The daemon and its helpers."""
        assert self.engine.process is not None
        return descendants(self.engine.process.pid, without=("conmon",))

    def close(self) -> None:
        """End it and its containers."""
        self.engine.close()


class Dockerd:
    """Docker Engine, unpacked below build/peers, with containerd as its child."""

    _START = """
    set -e
    ip link set lo up
    mkdir -p /run/docker /etc/docker
    mount -t tmpfs tmpfs /run/docker
    mount -t tmpfs tmpfs /etc/docker
    exec dockerd "$@"
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder, self.run = folder, run
        self.socket_path = run / "docker.sock"
        self.made_etc_docker = not Path("/etc/docker").exists()
        self.daemon: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        run.mkdir(parents=True, exist_ok=True)
        (run / "daemon.json").write_text("{}")

    def start(self) -> None:
        """Start; returns when it answers."""
        with (self.run / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                ["unshare", "--mount", "--net", "--uts", "--propagation", "slave", "sh", "-c", self._START, "dockerd",
                 "--config-file", str(self.run / "daemon.json"), "--data-root", str(self.folder / "data"),
                 "--exec-root", str(self.run / "exec"), "--pidfile", str(self.run / "pid"),
                 "--host", f"unix://{self.socket_path}", "--bip", "10.213.0.1/16"],
                env={"PATH": DOCKERD_PATH, "HOME": "/root"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.daemon.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = Connection(self.socket_path)
                connection.request("GET", "/_ping")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.02)
        tail = (self.run / "log").read_text(errors="replace").splitlines()[-10:]
        raise RuntimeError("dockerd did not start:\n" + "\n".join(tail))

    def stop(self) -> None:
        """End it; without live-restore its containers end as well."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.terminate()
            self.daemon.wait(60)

    def pids(self) -> list[int]:
        """dockerd and containerd, without the shims of containers."""
        assert self.daemon is not None
        return descendants(self.daemon.pid, without=("containerd-shim",))

    def close(self) -> None:
        """End it and what it left."""
        if self.daemon is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        # containerd and shims stay in the session of the daemon that started them
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.daemon.pid, signal.SIGKILL)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if str(self.run).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                        os.kill(int(entry.name), signal.SIGKILL)
        if self.made_etc_docker:
            with contextlib.suppress(OSError):
                Path("/etc/docker").rmdir()


@contextlib.contextmanager
def disk(folder: Path, size_gb: int) -> Iterator[Path]:
    """A fresh ext4 on a loop device, for the state of every engine alike; gone afterwards."""
    image, mountpoint = folder / f"disk-{os.getpid()}.img", folder / f"disk-{os.getpid()}"
    mountpoint.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size_gb << 30)
    options = "lazy_itable_init=0,lazy_journal_init=0"  # nothing left to do in the background later
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        for attempt in range(50):
            if subprocess.run(["umount", mountpoint], capture_output=attempt < 49, check=False).returncode == 0:
                break
            time.sleep(0.2)
        else:
            subprocess.run(["umount", "--lazy", mountpoint], check=False)
        image.unlink()
        with contextlib.suppress(OSError):
            mountpoint.rmdir()


@contextlib.contextmanager
def peers(folder: Path, names: Sequence[str], size_gb: int = 24) -> Iterator[tuple[Path, list[Peer]]]:
    """Start the named engines (`holdfast`, `docker`), each with busybox:latest; end them afterwards.

    Gives the disk that their state is on, and them.
    """
    run = Path("/run") / f"holdfast-bench-{os.getpid()}"
    with contextlib.ExitStack() as undo:
        state = undo.enter_context(disk(folder, size_gb))
        run.mkdir()
        undo.callback(shutil.rmtree, run, ignore_errors=True)
        started: list[Peer] = []
        for name in names:
            process: Holdfast | Dockerd
            if name == "holdfast":
                process = Holdfast(state / name, run)
                socket_path = process.engine.socket_path
            else:
                process = Dockerd(state / name, run)
                socket_path = process.socket_path
            undo.callback(process.close)
            process.start()
            peer = Peer(name, socket_path, process)
            peer.call("POST", "/images/load?quiet=1", raw=busybox_archive().read_bytes())
            started.append(peer)
        yield state, started


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    commit = subprocess.run(
        ["git", "-C", PROJECT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo if "model name" in line), os.uname().machine)
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "kernel": os.uname().release,
        "processor": model,
        "cores": os.cpu_count(),
        "memory": f"{memory_kb / (1 << 20):.0f} GiB",
        "commit": commit or "unknown",
    }
