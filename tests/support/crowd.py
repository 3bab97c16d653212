"""A crowd of clients that do random valid work, each with things of its own, so that every refusal is a fault.

A client runs in a thread of a process of its own kind: what it measures is the engine and not the other clients.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import tarfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.engine import Engine
from tests.support.hijack import RawConnection, split_frames

WAITING = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]

@dataclass(frozen=True, slots=True)
class Pace:
    """How clients work: for `seconds`, or through every kind `rounds` times, and how long they think in between."""

    seconds: float = 0
    rounds: int = 0
    thinking_s: float = 0


@dataclass(slots=True)
class Account:
    """What the clients of one process did: how often each kind of work, what went wrong, and how long lists took."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    list_s: list[float] = field(default_factory=list)


def crowd(folder: Path, prefix: str, clients: int, seed: int, pace: Pace, report: Connection) -> None:
    """Run `clients` threads at a pace; send an Account."""
    engine = Engine(folder)
    account = Account()
    end = time.monotonic() + pace.seconds
    threads = [
        threading.Thread(target=Client(engine, f"{prefix}{number}", seed + number, account).live, args=(end, pace))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.send(account)
    report.close()


def measure(folder: Path, seconds: float, report: Connection) -> None:
    """List containers twenty times a second on one connection, as a program that watches does; send an Account."""
    engine, account = Engine(folder), Account()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        answer = engine.request("GET", "/containers/json?all=1")
        account.list_s.append(time.perf_counter() - began)
        if answer.status != 200:
            account.failures.append(f"GET /containers/json: {answer.status} {answer.body!r}")
        time.sleep(0.05)
    report.send(account)
    report.close()


class Client:
    """One client. Everything that it makes begins with its name and carries it as a label."""

    def __init__(self, engine: Engine, name: str, seed: int, account: Account) -> None:
        self.engine, self.name, self.account = engine, name, account
        self.random = random.Random(seed)
        self.serial = 0
        self.labels = {"client": name}
        self.kinds: list[Callable[[], None]] = [
            self.run, self.attached_run, self.life, self.execs, self.volumes, self.files, self.looks, self.follows,
            self.vanishes, self.images, self.networks, self.changes, self.prunes,
        ]  # fmt: skip

    def live(self, end: float, pace: Pace) -> None:
        """Work until `end`, by the monotonic clock, or through every kind of work; stop at the first fault."""
        todo = self.kinds * pace.rounds
        while (todo if pace.rounds else time.monotonic() < end) and not self.account.failures:
            work = todo.pop() if pace.rounds else self.random.choice(self.kinds)
            try:
                work()
            except (AssertionError, OSError, http.client.HTTPException, ValueError) as error:
                self.account.failures.append(f"{self.name} {work.__name__}: {type(error).__name__}: {error}")
                return
            self.account.done[work.__name__] += 1
            time.sleep(self.random.uniform(0, 2 * pace.thinking_s))

    # -- tools ---------------------------------------------------------------------------------------------------------

    def fresh(self, kind: str) -> str:
        """A name that nobody has."""
        self.serial += 1
        return f"{self.name}-{kind}-{self.serial}"

    def call(
        self, method: str, path: str, body: object = None, *, expect: tuple[int, ...] = (), raw: bytes | None = None
    ) -> Any:
        """A call that must succeed, or answer with one of `expect`."""
        answer = self.engine.request(method, path, body, raw=raw, timeout_s=90)
        good = answer.status in expect if expect else answer.status < 400
        assert good, f"{method} {path}: {answer.status} {answer.body[:300]!r}"
        return json.loads(answer.body) if answer.headers.get("Content-Type") == "application/json" else answer.body

    def create(self, command: list[str], **more: Any) -> str:
        """A container of our own; gives its name."""
        name = self.fresh("c")
        body = {"Image": "busybox", "Cmd": command, "Labels": self.labels, "StopTimeout": 5, **more}
        self.call("POST", f"/containers/create?name={name}", body)
        return name

    @contextlib.contextmanager
    def running(self, **more: Any) -> Iterator[str]:
        """A container that waits, for the time of a `with`."""
        name = self.create(WAITING, **more)
        self.call("POST", f"/containers/{name}/start")
        yield name
        self.call("DELETE", f"/containers/{name}?force=1&v=1")

    def connect(self) -> RawConnection:
        """A connection to be taken over."""
        return RawConnection(self.engine.socket_path, timeout_s=90)

    # -- kinds of work -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """docker run -d, wait, logs, rm."""
        code = self.random.choice((0, 3, 7))
        network = self.random.choice(("none", "bridge", "host"))
        name = self.create(["sh", "-c", f"echo {self.name}; exit {code}"], HostConfig={"NetworkMode": network})
        self.call("POST", f"/containers/{name}/start")
        assert self.call("POST", f"/containers/{name}/wait")["StatusCode"] == code
        logs = self.engine.request("GET", f"/containers/{name}/logs?stdout=1&stderr=1")
        assert split_frames(logs.body) == [(1, f"{self.name}\n".encode())], logs.body
        self.call("DELETE", f"/containers/{name}?v=1")

    def attached_run(self) -> None:
        """docker run --rm -i: every byte comes back, and the container goes by itself."""
        host = {"AutoRemove": True, "NetworkMode": "none"}
        name = self.create(["cat"], OpenStdin=True, StdinOnce=True, HostConfig=host, Volumes={"/v": {}})
        sent = self.random.randbytes(self.random.choice((10, 5000, 200_000)))
        with self.connect() as stream:
            assert stream.upgrade(f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1").status == 101
            self.call("POST", f"/containers/{name}/start")
            writer = threading.Thread(target=_write, args=(stream, sent))
            writer.start()
            assert stream.frames() == [(1, sent)], "what went in did not come out"
            writer.join()
        self.call("POST", f"/containers/{name}/wait?condition=removed", expect=(200, 404))

    def life(self) -> None:
        """Every state that a container can be in."""
        name = self.create(WAITING)
        for call in ("start", "pause", "unpause", "restart?t=5", "stop?t=5", "start", "kill"):
            self.call("POST", f"/containers/{name}/{call}", expect=(204,))
        new = self.fresh("renamed")
        self.call("POST", f"/containers/{name}/rename?name={new}", expect=(204,))
        assert self.call("POST", f"/containers/{new}/wait")["StatusCode"] == 137
        self.call("DELETE", f"/containers/{new}?v=1", expect=(204,))

    def execs(self) -> None:
        """A few execs in one container, attached and not."""
        with self.running() as name:
            for _ in range(self.random.randint(1, 3)):
                body = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["sh", "-c", "echo out; exit 4"]}
                made = self.call("POST", f"/containers/{name}/exec", body)["Id"]
                with self.connect() as stream:
                    assert stream.upgrade(f"/exec/{made}/start", body=b"{}").status == 101
                    assert stream.frames() == [(1, b"out\n")]
                assert self.call("GET", f"/exec/{made}/json")["ExitCode"] == 4
            made = self.call("POST", f"/containers/{name}/exec", {"Cmd": ["true"]})["Id"]
            self.call("POST", f"/exec/{made}/start", {"Detach": True})

    def volumes(self) -> None:
        """A volume between two containers, filled from the image, then removed."""
        volume = self.fresh("v")
        self.call("POST", "/volumes/create", {"Name": volume, "Labels": self.labels})
        writer = self.create(
            ["sh", "-c", f"echo {volume} >/etc/mark; test -e /etc/passwd"], HostConfig={"Binds": [f"{volume}:/etc"]}
        )
        self.call("POST", f"/containers/{writer}/start")
        assert self.call("POST", f"/containers/{writer}/wait")["StatusCode"] == 0
        self.call("DELETE", f"/volumes/{volume}", expect=(409,))
        self.call("DELETE", f"/containers/{writer}")
        host = {"Mounts": [{"Type": "volume", "Source": volume, "Target": "/data", "ReadOnly": True}]}
        reader = self.create(["grep", "-qx", volume, "/data/mark"], HostConfig=host)
        self.call("POST", f"/containers/{reader}/start")
        assert self.call("POST", f"/containers/{reader}/wait")["StatusCode"] == 0
        self.call("DELETE", f"/containers/{reader}")
        assert self.call("GET", f"/volumes/{volume}")["Labels"] == self.labels
        self.call("DELETE", f"/volumes/{volume}", expect=(204,))

    def files(self) -> None:
        """docker cp in and out, running or not."""
        data = self.random.randbytes(self.random.choice((0, 1000, 300_000)))
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("note")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        name = self.create(WAITING)
        if self.random.random() < 0.5:
            self.call("POST", f"/containers/{name}/start")
        self.call("PUT", f"/containers/{name}/archive?path=/tmp", raw=buffer.getvalue(), expect=(200,))
        answer = self.engine.request("GET", f"/containers/{name}/archive?path=/tmp/note", timeout_s=90)
        assert answer.status == 200, answer.body
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            member = archive.extractfile("note")
            assert member is not None and member.read() == data
        self.call("DELETE", f"/containers/{name}?force=1")

    def looks(self) -> None:
        """Everything that only looks."""
        with self.running(HostConfig={"NetworkMode": "none"}) as name:
            for path in (f"/containers/{name}/json?size=1", f"/containers/{name}/top", "/info", "/version", "/networks",
                         "/images/json", "/volumes", "/system/df", f"/containers/{name}/stats?stream=0&one-shot=1",
                         "/images/busybox/json", "/images/busybox/history"):  # fmt: skip
                self.call("GET", path)
            began = time.perf_counter()
            mine = self.call("GET", f"/containers/json?filters={self.filter()}")
            self.account.list_s.append(time.perf_counter() - began)
            assert [entry["Names"] for entry in mine] == [[f"/{name}"]]

    def follows(self) -> None:
        """Logs as they are written, and the events of it."""
        since = time.time()
        script = "for i in 1 2 3 4 5; do echo $i; sleep 0.02; done"
        name = self.create(["sh", "-c", script], HostConfig={"NetworkMode": "none"})
        self.call("POST", f"/containers/{name}/start")
        followed = self.engine.request("GET", f"/containers/{name}/logs?stdout=1&follow=1")
        assert split_frames(followed.body) == [(1, b"1\n2\n3\n4\n5\n")]
        identity = self.call("GET", f"/containers/{name}/json")["Id"]
        self.call("POST", f"/containers/{name}/wait")
        self.call("DELETE", f"/containers/{name}")
        wanted = urllib.parse.quote(json.dumps({"container": [identity]}))
        past = self.engine.request("GET", f"/events?since={since:.9f}&until={time.time():.9f}&filters={wanted}")
        actions = [json.loads(line)["Action"] for line in past.body.splitlines()]
        # The engine remembers 256 events, so of a busy time only the end may be left.
        assert actions == ["create", "start", "die", "destroy"][4 - len(actions) :], actions

    def vanishes(self) -> None:
        """A client that asks for streams, reads little or nothing, and goes without a word."""
        noisy = ["sh", "-c", "yes | head -c 3000000; sleep 1000"]
        with self.running(HostConfig={"NetworkMode": "none"}, Cmd=noisy) as name:
            for target in (f"/containers/{name}/logs?stdout=1&follow=1", "/events", f"/containers/{name}/stats",
                           f"/containers/{name}/archive?path=/bin", "/images/busybox/get"):  # fmt: skip
                connection = self.connect()
                connection.send("GET", target)
                if self.random.random() < 0.7:
                    connection.head()
                connection.sock.close()
            connection = self.connect()
            connection.upgrade(f"/containers/{name}/attach?stream=1&logs=1&stdout=1")
            body = {"AttachStdout": True, "AttachStdin": True, "Cmd": ["cat"]}
            made = self.call("POST", f"/containers/{name}/exec", body)["Id"]
            other = self.connect()
            other.upgrade(f"/exec/{made}/start", body=b"{}")
            other.sock.close()
            connection.sock.close()

    def images(self) -> None:
        """A name for the image, and away with it."""
        tag = self.fresh("t").replace("-", "")
        self.call("POST", f"/images/busybox/tag?repo=soak/{self.name}&tag={tag}", expect=(201,))
        assert f"soak/{self.name}:{tag}" in self.call("GET", f"/images/soak/{self.name}:{tag}/json")["RepoTags"]
        self.call("DELETE", f"/images/soak/{self.name}:{tag}")

    def networks(self) -> None:
        """A network of our own with two containers in it."""
        network = self.fresh("n")
        self.call("POST", "/networks/create", {"Name": network, "Labels": self.labels}, expect=(201,))
        with self.running(HostConfig={"NetworkMode": network}) as name:
            joined = self.create(["ping", "-c", "1", name], HostConfig={"NetworkMode": "bridge"})
            self.call("POST", f"/networks/{network}/connect", {"Container": joined})
            self.call("POST", f"/containers/{joined}/start")
            assert self.call("POST", f"/containers/{joined}/wait")["StatusCode"] == 0, "no way to the other by its name"
            self.call("POST", f"/networks/{network}/disconnect", {"Container": joined, "Force": True})
            self.call("DELETE", f"/containers/{joined}")
        self.call("DELETE", f"/networks/{network}", expect=(204,))

    def changes(self) -> None:
        """What a container changed, as a diff, a tar and an image; and limits that change."""
        name = self.create(["touch", "/made"], HostConfig={"NetworkMode": "none", "Memory": 64 << 20})
        self.call("POST", f"/containers/{name}/update", {"Memory": 96 << 20, "MemorySwap": 192 << 20})
        self.call("POST", f"/containers/{name}/start")
        self.call("POST", f"/containers/{name}/wait")
        assert {"Path": "/made", "Kind": 1} in self.call("GET", f"/containers/{name}/changes")
        self.call("GET", f"/containers/{name}/export")
        repo = f"kept-{self.name.lower()}"
        self.call("POST", f"/commit?container={name}&repo={repo}&tag=1", {})
        self.call("DELETE", f"/containers/{name}")
        self.call("DELETE", f"/images/{repo}:1?force=1")

    def prunes(self) -> None:
        """Prune our own containers and volumes."""
        volume = self.fresh("v")
        self.call("POST", "/volumes/create", {"Name": volume, "Labels": self.labels})
        name = self.create(["true"])
        identity = self.call("GET", f"/containers/{name}/json")["Id"]
        assert self.prune("containers", self.filter())["ContainersDeleted"] == [identity]
        assert self.prune("volumes", self.filter(all=["1"]))["VolumesDeleted"] == [volume]
        self.prune("networks", self.filter())

    def prune(self, what: str, filters: str) -> Any:
        """Prune; while somebody else does it is refused, as by Docker, and tried again."""
        while True:
            answer = self.engine.request("POST", f"/{what}/prune?filters={filters}")
            if answer.status == 200:
                return answer.json()
            assert answer.status == 409 and b"a prune operation is already running" in answer.body, answer
            time.sleep(0.02)

    def filter(self, **more: list[str]) -> str:
        """What is ours, as the `filters` of a query."""
        return urllib.parse.quote(json.dumps({"label": [f"client={self.name}"], **more}))


def _write(stream: RawConnection, data: bytes) -> None:
    stream.write(data)
    stream.half_close()
