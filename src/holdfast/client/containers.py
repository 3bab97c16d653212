"""`/containers` and `/exec` of the engine's API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from holdfast.client.document import Document, decode
from holdfast.client.failures import Garbled
from holdfast.client.http import Response
from holdfast.client.transport import Hijacked, Transport, segment
from holdfast.errors import System

Filters = Mapping[str, list[str]]


def path_stat(response: Response) -> Document:
    """What an answer says about the path it is about. Raises Garbled."""
    from holdfast.wire.archive import decode_path_stat

    try:
        return Document(decode_path_stat(response.headers.get("x-docker-container-path-stat", "")))
    except ValueError as error:
        raise Garbled("the engine's answer does not say what the path is") from error


class Waiting:
    """A `wait` in progress: opened before the start, so that no exit is missed."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def abandon(self) -> None:
        """Wait no longer."""
        self._response.close()

    def exit_code(self) -> int:
        """Block until the condition is met; the exit code. Raises System when waiting itself failed."""
        with self._response as response:
            answer = decode(response.read())
        result = Document(answer if isinstance(answer, dict) else {})
        if failure := result.document("Error").text("Message"):
            raise System(failure)
        return result.number("StatusCode")


class Containers:
    """Calls about containers, by name or id. Source: Docker Engine API, tags Container and Exec."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, body: Mapping[str, object], *, name: str = "", platform: str = "") -> Document:
        """Create a container: `Id` and `Warnings`. Raises NotFound for a missing image, and only for that."""
        return self._transport.post("/containers/create", {"name": name, "platform": platform}, body)

    def find(
        self, filters: Filters | None = None, *, everything: bool = False, limit: int = 0, size: bool = False
    ) -> list[Document]:
        """Running containers, newest first; all of them with `everything`."""
        query = {"all": everything, "limit": limit or None, "size": size, "filters": filters}
        return self._transport.get_list("/containers/json", query)

    def get(self, name: str, *, size: bool = False) -> Document:
        """Inspect a container."""
        return self._transport.get(f"/containers/{segment(name)}/json", {"size": size})

    def start(self, name: str, *, detach_keys: str = "") -> None:
        """Start it. Raises NotModified when it runs already."""
        self._post(name, "start", {"detachKeys": detach_keys})

    def stop(self, name: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop it: its stop signal, and SIGKILL after the timeout. Raises NotModified when it does not run."""
        self._post(name, "stop", {"t": timeout_s, "signal": signal})

    def restart(self, name: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop and start it."""
        self._post(name, "restart", {"t": timeout_s, "signal": signal})

    def kill(self, name: str, signal: str = "KILL") -> None:
        """Send a signal to its first process."""
        self._post(name, "kill", {"signal": signal})

    def pause(self, name: str) -> None:
        """Freeze its processes."""
        self._post(name, "pause", {})

    def unpause(self, name: str) -> None:
        """Let them go on."""
        self._post(name, "unpause", {})

    def rename(self, name: str, new_name: str) -> None:
        """Give it another name."""
        self._post(name, "rename", {"name": new_name})

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, with its anonymous volumes if asked."""
        self._transport.delete(f"/containers/{segment(name)}", {"force": force, "v": volumes})

    def prune(self, filters: Filters | None = None) -> Document:
        """Remove all that do not run: `ContainersDeleted` and `SpaceReclaimed` in bytes."""
        return self._transport.post("/containers/prune", {"filters": filters})

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Tell its terminal its size."""
        self._post(name, "resize", {"h": rows, "w": columns})

    def wait(self, name: str, condition: str = "") -> Waiting:
        """Start to wait: `not-running` (the default), `next-exit` or `removed`."""
        path = f"/containers/{segment(name)}/wait"
        return Waiting(self._transport.open("POST", path, {"condition": condition}))

    def attach(
        self, name: str, *, stdin: bool, stdout: bool = True, stderr: bool = True, detach_keys: str = ""
    ) -> Hijacked:
        """Take part in its streams; works before the start too."""
        query = {"detachKeys": detach_keys, "stderr": stderr, "stdin": stdin, "stdout": stdout, "stream": True}
        return self._transport.hijack(f"/containers/{segment(name)}/attach", query)

    def logs(self, name: str, **query: object) -> Response:
        """What it wrote: framed unless it has a terminal. Query: follow, since, until, timestamps, tail, details."""
        query = {"stdout": True, "stderr": True, **query}
        return self._transport.open("GET", f"/containers/{segment(name)}/logs", query)

    def stats(self, name: str, *, stream: bool = True) -> Iterator[Document]:
        """What it uses, about every second; once, after a second, without `stream`. Needs no lock of the caller's."""
        return self._transport.stream("GET", f"/containers/{segment(name)}/stats", {"stream": "1" if stream else "0"})

    def top(self, name: str, ps_args: str = "") -> list[list[str]]:
        """ps's titles, and its lines about the container's processes, cell by cell."""
        shown = self._transport.get(f"/containers/{segment(name)}/top", {"ps_args": ps_args})
        rows = shown.raw.get("Processes")
        lines = [[str(cell) for cell in row] for row in rows if isinstance(row, list)] if isinstance(rows, list) else []
        return [shown.strings("Titles"), *lines]

    def changes(self, name: str) -> list[Document]:
        """What it changed in its root: `Path` and `Kind`: 0 changed, 1 added, 2 deleted."""
        return self._transport.get_list(f"/containers/{segment(name)}/changes")

    def export(self, name: str) -> Response:
        """Its files as a tar archive, to be read in pieces."""
        return self._transport.open("GET", f"/containers/{segment(name)}/export")

    def update(self, name: str, body: Mapping[str, object]) -> Document:
        """Change its limits or restart policy, by the names of `HostConfig`: `Warnings`."""
        return self._transport.post(f"/containers/{segment(name)}/update", document=body)

    def archive_stat(self, name: str, path: str) -> Document:
        """What lies at a path in it: `name`, `size`, `mode` (Go's), `mtime`, `linkTarget`."""
        with self._transport.open("HEAD", f"/containers/{segment(name)}/archive", {"path": path}) as response:
            return path_stat(response)

    def archive_get(self, name: str, path: str) -> Response:
        """A file or directory of it as a tar archive, to be read in pieces; `path_stat` tells what it is."""
        return self._transport.open("GET", f"/containers/{segment(name)}/archive", {"path": path})

    def archive_put(
        self, name: str, path: str, archive: Iterable[bytes], *, keep_kinds: bool = True, own: bool = False
    ) -> None:
        """Unpack a tar archive into a directory of it.

        With `keep_kinds` no directory is replaced by anything else, nor the other way round; with `own` everything
        belongs to its user.
        """
        query = {"path": path, "noOverwriteDirNonDir": keep_kinds, "copyUIDGID": own}
        with self._transport.open("PUT", f"/containers/{segment(name)}/archive", query, archive) as response:
            response.read()

    def exec_create(self, name: str, body: Mapping[str, object]) -> str:
        """Prepare a command in a running container; its id."""
        return self._transport.post(f"/containers/{segment(name)}/exec", document=body).text("Id")

    def exec_attach(self, exec_id: str, *, tty: bool, size: tuple[int, int] | None = None) -> Hijacked:
        """Start a prepared command and take part in its streams. `size` is (rows, columns)."""
        body: dict[str, object] = {"Detach": False, "Tty": tty}
        if size:
            body["ConsoleSize"] = list(size)
        return self._transport.hijack(f"/exec/{segment(exec_id)}/start", document=body)

    def exec_start(self, exec_id: str, *, tty: bool) -> None:
        """Start a prepared command and leave it alone."""
        self._transport.post(f"/exec/{segment(exec_id)}/start", document={"Detach": True, "Tty": tty})

    def exec_get(self, exec_id: str) -> Document:
        """`Running` and `ExitCode` of a command."""
        return self._transport.get(f"/exec/{segment(exec_id)}/json")

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell a command's terminal its size."""
        self._transport.post(f"/exec/{segment(exec_id)}/resize", {"h": rows, "w": columns})

    def _post(self, name: str, verb: str, query: Mapping[str, object]) -> None:
        self._transport.post(f"/containers/{segment(name)}/{verb}", query)
