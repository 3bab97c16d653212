"""A volume plugin for tests: Docker's plugin protocol over a unix socket, with a log of calls; misbehaves on demand.

`python -m tests.support.volume_plugin FOLDER SOCKET` serves until killed. Below FOLDER are `data/NAME`, the volumes;
`calls`, one JSON line a call: its method and what it was asked; and `script`, what is to go wrong: a JSON object from
method to one of

    {"hang": SECONDS}       it answers that much later
    {"crash": true}         it ends in the middle of the call, after it was done
    {"status": N, "body": "..."}   it answers so instead
    {"answer": {...}}       it answers this with 200
    {"huge": BYTES}         its answer is a JSON text of that size
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socketserver
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.engine import PROJECT, Engine

CREATED_AT = "2020-01-02T03:04:05Z"


class _State:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self.created: dict[str, Any] = {}
        for path in (folder / "data").iterdir():
            self.created[path.name] = None

    def shape(self, name: str) -> dict[str, Any]:
        return {
            "Name": name,
            "Mountpoint": str(self.folder / "data" / name),
            "CreatedAt": CREATED_AT,
            "Status": {"hello": "world", "deep": [1, {"two": None}]},
        }

    def answer(self, method: str, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("Name", "")
        data = self.folder / "data" / name
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        if method == "VolumeDriver.Capabilities":
            return {"Capabilities": {"Scope": "Global"}}
        if method == "VolumeDriver.List":
            return {"Volumes": [self.shape(known) for known in sorted(self.created)]}
        if method == "VolumeDriver.Create":
            self.created[name] = asked.get("Opts")
            data.mkdir(parents=True, exist_ok=True)
            return {}
        if name not in self.created:
            return {"Err": f"no volume {name}"}
        if method == "VolumeDriver.Get":
            return {"Volume": self.shape(name)}
        if method == "VolumeDriver.Remove":
            del self.created[name]
            shutil.rmtree(data, ignore_errors=True)
        return {"Mountpoint": str(data)} if method in ("VolumeDriver.Path", "VolumeDriver.Mount") else {}


def _handler(state: _State) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            method = self.path.lstrip("/")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = json.loads(body) if body else {}
            with (state.folder / "calls").open("a") as log:
                log.write(json.dumps({"method": method, **asked}) + "\n")
            script = state.folder / "script"
            wrong = json.loads(script.read_text()).get(method, {}) if script.exists() else {}
            time.sleep(wrong.get("hang", 0))
            if "status" in wrong:
                self.say(wrong["status"], wrong["body"].encode())
                return
            if "answer" in wrong:
                self.say(200, json.dumps(wrong["answer"]).encode())
                return
            answer = state.answer(method, asked)
            if "crash" in wrong:
                os._exit(1)
            if "huge" in wrong:
                answer = {"Err": "x" * wrong["huge"]}
            self.say(200, json.dumps(answer).encode())

        def say(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            return

    return Handler


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class VolumePlugin:
    """The plugin from outside: it runs in the namespaces of an engine."""

    def __init__(self, engine: Engine, folder: Path, name: str = "specplug", place: str = "") -> None:
        """`place` is the socket; the default is that of legacy plugins."""
        self.name = name
        self.folder = folder
        self._engine = engine
        self._socket = place or f"/run/docker/plugins/{name}.sock"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Serve, and wait until it does."""
        program = [sys.executable, "-m", "tests.support.volume_plugin"]
        argv = [*self._engine.enter(), *program, str(self.folder), self._socket]
        self._process = subprocess.Popen(
            argv, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        with self._process.stdout as out:
            assert out.readline() == b"ready\n"

    def stop(self) -> None:
        """Kill it; its socket stays, as of a plugin that died."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait_ended(self) -> None:
        """Wait for a crash."""
        assert self._process is not None
        self._process.wait(10)
        self._process = None

    def misbehave(self, **script: Any) -> None:
        """What goes wrong from now on, by the method without `VolumeDriver.`."""
        kinds = {"Activate": "Plugin."}
        named = {kinds.get(method, "VolumeDriver.") + method: wrong for method, wrong in script.items()}
        new = self.folder / "script.new"
        new.write_text(json.dumps(named))
        new.rename(self.folder / "script")

    def calls(self, *methods: str) -> list[dict[str, Any]]:
        """The calls of these methods so far, or all, each with what it asked."""
        if not (self.folder / "calls").exists():
            return []
        said = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        short = [{**call, "method": call["method"].removeprefix("VolumeDriver.")} for call in said]
        return [call for call in short if not methods or call["method"] in methods]

    def data(self, volume: str) -> Path:
        """Where a volume's data is."""
        return self.folder / "data" / volume


@contextlib.contextmanager
def volume_plugin(engine: Engine, folder: Path, **options: Any) -> Iterator[VolumePlugin]:
    """A plugin for the time of a `with`."""
    plugin = VolumePlugin(engine, folder, **options)
    try:
        plugin.start()
        yield plugin
    finally:
        plugin.stop()


def main() -> None:
    """Serve until killed."""
    folder, place = Path(sys.argv[1]), Path(sys.argv[2])
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    with _Server(str(place), _handler(_State(folder))) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
