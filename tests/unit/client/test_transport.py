"""Requests, answers and errors over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast import errors
from holdfast.client import Client, ClientError
from holdfast.client.failures import Garbled
from holdfast.client.transport import pieces, target
from tests.unit.cli.fake_engine import Call, FakeEngine, Raw


def test_a_volume_comes_and_goes(engine: FakeEngine, client: Client) -> None:
    engine.answers["POST /volumes/create"] = (201, {"Name": "data"})
    engine.answers["DELETE /volumes/data"] = (204, None)
    assert client.volumes.create("data", options={"type": "nfs"}, labels={"a": "b"}).text("Name") == "data"
    client.volumes.remove("data", force=True)
    created, removed = engine.calls
    assert created.document == {"Driver": "local", "Name": "data", "DriverOpts": {"type": "nfs"}, "Labels": {"a": "b"}}
    assert removed.query == {"force": ["1"]}


def test_one_connection_for_calls_in_a_row(engine: FakeEngine, client: Client) -> None:
    engine.answers["GET /volumes"] = (200, {"Volumes": []})
    for _ in range(3):
        client.volumes.find()
    assert len({call.raw[0] for call in engine.calls}) == 1


def test_a_connection_that_the_engine_closed_meanwhile_is_made_anew(engine: FakeEngine, client: Client) -> None:
    engine.answers["GET /volumes"] = (200, {"Volumes": []})
    client.volumes.find()
    engine.calls[0].raw[0].shutdown(socket.SHUT_RDWR)
    client.volumes.find()
    assert len(engine.calls) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (304, errors.NotModified),
        (400, errors.InvalidParameter),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (500, errors.System),
        (501, errors.Unsupported),
        (503, errors.Unavailable),
        (418, errors.System),
    ],
)
def test_status_to_error(engine: FakeEngine, client: Client, status: int, kind: type[errors.EngineError]) -> None:
    engine.answers["GET /info"] = (status, None if status == 304 else {"message": "because"})
    with pytest.raises(errors.EngineError) as failed:
        client.engine.info()
    assert type(failed.value) is kind
    assert not isinstance(failed.value, ClientError)
    assert str(failed.value) == ("the engine answered 304" if status == 304 else "because")


def test_a_plain_error_text(engine: FakeEngine, client: Client) -> None:
    engine.answers["POST /containers/c/attach"] = (404, Raw(b"No such container: c\r\n"))
    with pytest.raises(errors.NotFound, match=r"^No such container: c$"):
        client.containers.attach("c", stdin=False)


def test_names_are_quoted(engine: FakeEngine, client: Client) -> None:
    engine.answers["GET /volumes/a b?c#d/e%"] = (200, {"Name": "odd"})
    assert client.volumes.get("a b?c#d/e%").text("Name") == "odd"


def test_target() -> None:
    query = {"all": True, "no": False, "none": None, "empty": "", "n": 0, "names": ["a", "b"], "filters": {"x": ["y"]}}
    assert target("/x", query).partition("?")[2] == "all=1&n=0&names=a&names=b&filters=%7B%22x%22%3A%5B%22y%22%5D%7D"
    assert target("/x", {"filters": {}}) == target("/x", None)


def test_a_body_in_pieces(engine: FakeEngine, client: Client, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"x" * 200_000)
    engine.answers["POST /images/load"] = (200, Raw(b'{"stream":"Loaded"}'))
    with archive.open("rb") as file:
        messages = list(client.images.load(pieces(file)))
    assert [message.text("stream") for message in messages] == ["Loaded"]
    assert engine.calls[0].body == archive.read_bytes()
    assert engine.calls[0].headers["transfer-encoding"] == "chunked"


def test_a_hijacked_stream_ends_each_way_by_itself(engine: FakeEngine, client: Client) -> None:
    def answer(call: Call) -> tuple[int, object]:
        connection, reader = call.raw
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst ")
        connection.sendall(reader.read())
        connection.shutdown(socket.SHUT_RDWR)
        return 200, None

    engine.answers["POST /containers/c/attach"] = answer
    with client.containers.attach("c", stdin=True) as streams:
        assert engine.calls[0].headers["upgrade"] == "tcp"
        streams.write(b"second")
        streams.end_input()
        assert b"".join(streams.chunks()) == b"first second"


@contextmanager
def _saying(path: Path, answer: bytes) -> Iterator[Client]:
    """An engine that says one thing and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(f"unix://{path}")
        yield client
        client.close()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "7 bytes before the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}", "middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]}", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "garbled"),
    ],
)
def test_an_answer_that_breaks_off_or_makes_no_sense(tmp_path: Path, answer: bytes, text: str) -> None:
    with _saying(tmp_path / "s", answer) as client, pytest.raises(Garbled, match=text):
        client.engine.info()


def test_continue_is_skipped(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}"
    with _saying(tmp_path / "s", answer) as client:
        assert client.engine.info().raw == {}
