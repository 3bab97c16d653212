"""An engine of a test's own: its own roots, socket and cgroup, in mount, network and UTS namespaces of its own.

A process called the holder keeps the namespaces, so that an engine that was killed can be started again in them, as it
would find its own machine. Nothing of it is seen by the host or by another test.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.images import busybox_archive

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.prefix) / "bin" / "holdfast"
PATH = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{PROJECT}/build/peers/root/usr/bin"

_HOLDER = """
set -e
ip link set lo up
mkdir -p /run/docker && mount -t tmpfs -o mode=755 tmpfs /run/docker
echo ready
exec sleep infinity
"""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        # A long path does not fit into sun_path; through the folder's descriptor it always does.
        folder = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        except OSError:
            self.sock.close()
            raise
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response of the API, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Engine:
    """A `holdfast daemon` below `folder`, with the calls that tests make of it."""

    def __init__(self, folder: Path, *, isolated: bool = True, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.state_root = folder / "state"
        self.run_root = folder / "run"
        self.socket_path = self.run_root / "holdfast.sock"
        self.log_path = folder / "engine.log"
        self.cgroup_parent = f"/holdfast-test-{os.getpid()}-{folder.name}"
        self.isolated = isolated
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        for path in (self.state_root, self.run_root, folder / "docker-config"):
            path.mkdir(parents=True, exist_ok=True)

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self, *, faults: str = "", wait_s: float = 30) -> None:
        """Start it and wait until it answers. With `faults` armed it may die first: see `wait_dead`."""
        assert self.process is None or self.process.poll() is not None, "already running"
        environment = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "HOLDFAST_STATE_ROOT": str(self.state_root),
            "HOLDFAST_RUN_ROOT": str(self.run_root),
            "HOLDFAST_SOCKET": str(self.socket_path),
            "HOLDFAST_CGROUP_PARENT": self.cgroup_parent,
            "HOLDFAST_LOG_LEVEL": "debug",
            **self.environment,
        }
        if faults:
            environment["HOLDFAST_FAULTS"] = faults
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.enter(), str(PROGRAM), "daemon"],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                if faults:
                    return
                raise AssertionError(f"the engine ended at its start ({self.process.returncode}):\n{self.log_tail()}")
            if self.answers():
                return
            time.sleep(0.02)
        raise AssertionError(f"the engine did not answer within {wait_s} s:\n{self.log_tail()}")

    def stop(self, timeout_s: float = 30) -> int:
        """Ask it to end, as a service manager does; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to the engine alone; containers and their monitors go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def wait_dead(self, timeout_s: float = 30) -> int:
        """Wait until an armed fault point has killed it; returns the exit code (-9)."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End everything that this engine started, and its namespaces with their mounts."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                for container in self.request("GET", "/containers/json?all=1").json():
                    self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._kill_leftovers()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    def _kill_leftovers(self) -> None:
        """Kill what is left in our cgroups, and monitors and attendants that name our folder."""
        own = str(self.folder).encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                monitor = (own in words and (entry / "comm").read_text().startswith("conmon")) or (
                    own + b"/run/attendant" in words
                )
                if monitor or self.cgroup_parent + "/" in (entry / "cgroup").read_text():
                    os.kill(int(entry.name), signal.SIGKILL)
        for root in Path("/sys/fs/cgroup").glob(f"*{self.cgroup_parent}"):
            _remove_cgroups(root)
        _remove_cgroups(Path("/sys/fs/cgroup" + self.cgroup_parent))

    def enter(self) -> list[str]:
        """The command that puts a program into the engine's namespaces."""
        if not self.isolated:
            return []
        if self._holder is None:
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "--net", "--uts", "--propagation", "slave", "sh", "-c", _HOLDER],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, env={"PATH": PATH},
            )
            assert self._holder.stdout is not None
            with self._holder.stdout as out:
                assert out.readline() == b"ready\n", "cannot make namespaces"
        return ["nsenter", "--target", str(self._holder.pid), "--mount", "--net", "--uts", "--"]

    # -- talking to it -------------------------------------------------------------------------------------------------

    def answers(self) -> bool:
        """Whether /_ping says OK now."""
        try:
            return self.request("GET", "/_ping", timeout_s=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def request(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None,
        headers: Mapping[str, str] | None = None, timeout_s: float = 60,
    ) -> Answer:
        """One request on a connection of its own. `body` is sent as JSON, `raw` as it is."""
        connection = _Connection(self.socket_path, timeout_s)
        data = json.dumps(body).encode() if body is not None else raw
        sent = {"Content-Type": "application/json" if raw is None else "application/x-tar"} if data is not None else {}
        try:
            connection.request(method, path, body=data, headers={**sent, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None, *, raw: bytes | None = None) -> Any:
        """A request that must succeed; returns the decoded body, None where there is none."""
        answer = self.request(method, path, body, raw=raw)
        assert answer.status < 400, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json() if answer.body[:1] in (b"{", b"[") else None

    def docker(self, *arguments: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """The stock docker client."""
        return self._client(["docker", *arguments], check, stdin)

    def holdfast(self, *arguments: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Our own command line."""
        return self._client([str(PROGRAM), *arguments], check, stdin)

    def inside(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Any program in the engine's namespaces, to see its mounts and reach its addresses."""
        return self._client([*self.enter(), *arguments], check, b"")

    def client_environment(self) -> dict[str, str]:
        """The environment in which clients find this engine and no other."""
        return {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "DOCKER_CONFIG": str(self.folder / "docker-config"),
            "DOCKER_HOST": f"unix://{self.socket_path}",
            "HOLDFAST_SOCKET": str(self.socket_path),
        }

    def _client(self, argv: Sequence[str], check: bool, stdin: bytes) -> subprocess.CompletedProcess[str]:
        environment = self.client_environment()
        done = subprocess.run(argv, env=environment, input=stdin, capture_output=True, timeout=100, check=False)
        out, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check:
            assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{out}{errors}\n{self.log_tail(20)}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, errors)

    def load_busybox(self) -> None:
        """Make busybox:latest, from the machine's own busybox-static."""
        self.call("POST", "/images/load?quiet=1", raw=busybox_archive().read_bytes())

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def engine_below(folder: Path, *, busybox: bool = True, **options: Any) -> Iterator[Engine]:
    """An engine for the time of a `with`."""
    engine = Engine(folder, **options)
    try:
        engine.start()
        if busybox:
            engine.load_busybox()
        yield engine
    finally:
        engine.close()


def _remove_cgroups(root: Path) -> None:
    if not root.is_dir():
        return
    deadline = time.monotonic() + 5
    for folder in [*sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True), root]:
        while True:
            try:
                folder.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
