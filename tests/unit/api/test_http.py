"""The server on a real socket: framing, keep-alive, bad input, clients that vanish or do not read."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from pathlib import Path

import pytest

from holdfast.api import http
from holdfast.api.server import tcp_sockets, unix_socket
from holdfast.api.tls import server_context
from holdfast.errors import Conflict, InvalidParameter, System
from tests.unit.api.rig import Rig, api_test, get


@api_test
async def test_every_answer_has_the_engine_headers(rig: Rig) -> None:
    reply = await rig.ask(get("/_ping"))
    assert (reply.status, reply.body) == (200, b"OK")
    assert reply.headers["api-version"] == "1.51"
    assert reply.headers["docker-experimental"] == "false"
    assert reply.headers["ostype"] == "linux"
    assert reply.headers["server"].startswith("Holdfast/")
    assert reply.headers["server"].endswith(" (linux)")
    assert reply.headers["date"].endswith(" GMT")


@api_test
async def test_keep_alive_and_pipelining_keep_the_order(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/sleep") + get("/echo", "POST", body=b"two") + get("/_ping"))
    assert (await client.reply()).body == b"slept"
    assert (await client.reply()).body == b"two"
    assert (await client.reply()).body == b"OK"
    client.send(get("/_ping", "GET", "Connection: close"))
    reply = await client.reply()
    assert reply.headers["connection"] == "close"
    assert await client.rest() == b""


@api_test
async def test_a_request_may_come_byte_by_byte(rig: Rig) -> None:
    client = await rig.connect()
    chunks = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n"
    for byte in b"\r\n" + get("/echo", "POST", "Transfer-Encoding: chunked") + chunks:
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.reply()).body == b"abc0123456789"
    client.send(get("/_ping"))
    assert (await client.reply()).body == b"OK"


@api_test
async def test_a_chunked_body_ends_where_the_next_request_begins(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/echo", "POST", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\n\r\n" + get("/_ping"))
    assert (await client.reply()).body == b"hi"
    assert (await client.reply()).body == b"OK"


@api_test
async def test_expect_continue_is_answered_when_the_body_is_wanted(rig: Rig) -> None:
    client = await rig.connect()
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    client.send(head)
    status, _, raw = await client.head()
    assert (status, raw) == (100, b"HTTP/1.1 100 Continue\r\n\r\n")
    client.send(b"data")
    assert (await client.reply()).body == b"data"
    # Nobody wants this one: the answer comes without a 100, and the connection ends.
    client.send(head.replace(b"/echo", b"/ignore"))
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (204, "close")
    assert await client.rest() == b""


@api_test
async def test_head_has_the_length_and_no_body(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/_ping", "HEAD"))
    assert (await client.reply(head_only=True)).headers["content-length"] == "2"
    client.send(get("/_ping"))
    assert (await client.reply()).body == b"OK"


@api_test
async def test_204_and_304_have_no_length(rig: Rig) -> None:
    client = await rig.connect()
    for request, status in ((get("/ignore", "POST"), 204), (get("/unmodified"), 304)):
        client.send(request)
        reply = await client.reply()
        assert reply.status == status
        assert "content-length" not in reply.headers
        assert "content-type" not in reply.headers


@api_test
async def test_http_1_0_gets_plain_streams_and_closes(rig: Rig) -> None:
    rig.seen.release.set()
    client = await rig.connect()
    client.send(b"GET /wait HTTP/1.0\r\n\r\n")
    reply = await client.reply()
    assert "transfer-encoding" not in reply.headers
    assert reply.body == b'{"StatusCode":0}\n'
    client = await rig.connect()
    client.send(b"GET /_ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (await client.reply()).headers["connection"] == "keep-alive"
    client.send(b"GET /_ping HTTP/1.0\r\n\r\n")
    assert (await client.reply()).headers["connection"] == "close"
    assert await client.rest() == b""


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET /_ping HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (70 << 10) + b"\r\n\r\n", 431),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (70 << 10), 431),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 300 + b"\r\n", 431),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_refused(raw: bytes, status: int, tmp_path: Path) -> None:
    @api_test
    async def check(rig: Rig) -> None:
        client = await rig.connect()
        client.send(raw)
        reply = await client.reply()
        assert reply.status in {status, 505} if b"HTTP/2.0" in raw else reply.status == status
        if b"%zz" not in raw:
            assert reply.headers["connection"] == "close"
            assert await client.rest() == b""
        assert (await rig.ask(get("/_ping"))).body == b"OK"

    check(tmp_path)


@api_test
async def test_bad_chunks_are_refused(rig: Rig) -> None:
    for chunks in (b"zz\r\n", b"1\r\nab\r\n", b"1\nx", b"-1\r\n", b"f" * 5000):
        client = await rig.connect()
        client.send(get("/echo", "POST", "Transfer-Encoding: chunked") + chunks)
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert await client.rest() == b""


@api_test
async def test_a_head_that_never_ends_has_a_deadline(rig: Rig) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "HEAD_DEADLINE_S", 0.1)
        client = await rig.connect()
        client.send(b"GET /_ping HTTP/1.1\r\nHost:")
        assert (await client.reply()).status == 408
        assert await client.rest() == b""


@api_test
async def test_idle_connections_have_none(rig: Rig) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "HEAD_DEADLINE_S", 0.05)
        client = await rig.connect()
        client.send(get("/_ping"))
        await client.reply()
        await asyncio.sleep(0.15)
        client.send(get("/_ping"))
        assert (await client.reply()).status == 200


@api_test
async def test_errors_become_docker_answers(rig: Rig) -> None:
    reply = await rig.ask(get("/conflict"))
    assert (reply.status, reply.body) == (409, '{"message":"a <b> & \ufffd\ufffd\ufffd"}\n'.encode())
    assert reply.headers["content-type"] == "application/json"


def test_unexpected_errors_become_500_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @api_test
    async def check(rig: Rig) -> None:
        client = await rig.connect()
        client.send(get("/boom"))
        reply = await client.reply()
        assert (reply.status, reply.body) == (500, b'{"message":"first line"}\n')
        client.send(get("/_ping"))
        assert (await client.reply()).status == 200

    check(tmp_path)
    assert [record.message for record in caplog.records] == ["request failed unexpectedly"]
    assert caplog.records[0].exc_info is not None


@api_test
async def test_a_body_that_is_too_large_is_refused_before_it_has_come(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/named", "POST", "Content-Type: application/json", "Content-Length: 5000000") + b" " * 100_000)
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert json.loads(reply.body) == {"message": "request body is larger than 1024 bytes"}


@api_test
async def test_an_upload_nobody_reads_is_held_back(rig: Rig) -> None:
    size = 64 << 20
    client = await rig.connect()
    client.send(get("/upload", "POST", f"Content-Length: {size}"))
    sent = 0
    while sent < size:
        client.send(bytes(1 << 16))
        sent += 1 << 16
        try:
            await asyncio.wait_for(client.writer.drain(), 0.3)
        except TimeoutError:
            break
    assert sent < 4 << 20
    rig.seen.release.set()
    while sent < size:
        client.send(bytes(1 << 16))
        sent += 1 << 16
        await client.writer.drain()
    assert (await client.reply()).body == b"%d\n" % size


@api_test
async def test_a_worker_reads_an_upload_as_a_file(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/upload-to-worker", "POST", "Content-Length: 3000000"))
    for _ in range(30):
        client.send(bytes(100_000))
        await client.writer.drain()
    assert (await client.reply()).body == b"3000000\n"
    # and learns that the client went away half-way, rather than taking it for the end
    client.send(get("/upload-to-worker", "POST", "Content-Length: 3000000") + bytes(1000))
    await asyncio.sleep(0.05)
    await client.close()
    await asyncio.sleep(0.05)
    assert (await rig.ask(get("/_ping"))).status == 200


@api_test
async def test_a_client_that_vanishes_in_its_upload_is_noticed(rig: Rig) -> None:
    rig.seen.release.set()
    client = await rig.connect()
    client.send(get("/upload", "POST", "Content-Length: 100") + b"only this")
    await asyncio.sleep(0.05)
    await client.close()
    await _until(lambda: rig.seen.disconnects == ["upload"])


@api_test
async def test_the_head_of_a_stream_comes_at_once(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/wait"))
    status, headers, _ = await client.head()
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    rig.seen.release.set()
    assert await client.exactly(27) == b'11\r\n{"StatusCode":0}\n\r\n0\r\n\r\n'[:27]
    client.send(get("/_ping"))


@api_test
async def test_a_stream_ends_when_its_client_goes(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/wait"))
    await client.head()
    await client.close()
    await _until(lambda: rig.seen.disconnects == ["wait"])


@api_test
async def test_a_stream_that_fails_is_visibly_cut(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/broken-stream"))
    await client.head()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.exactly(len(b"4\r\nsome\r\n0\r\n\r\n"))


@api_test
async def test_a_client_that_does_not_read_blocks_only_itself(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/flood"))
    await client.head()
    last = -1
    while rig.seen.written_bytes != last:
        last = rig.seen.written_bytes
        await asyncio.sleep(0.1)
    assert last < 4 << 20
    assert (await rig.ask(get("/_ping"))).status == 200


@api_test
async def test_progress_turns_early_errors_into_codes_and_late_ones_into_lines(rig: Rig) -> None:
    reply = await rig.ask(get("/progress?early=1"))
    assert (reply.status, reply.body) == (404, b'{"message":"no such thing"}\n')
    reply = await rig.ask(get("/progress"))
    lines = reply.body.split(b"\r\n")
    assert reply.status == 200
    assert lines[:2] == [b'{"status":"step 0"}', b'{"status":"step 1"}']
    assert lines[100:] == [b'{"errorDetail":{"message":"late"},"error":"late"}', b""]


@api_test
async def test_an_archive_nobody_reads_stops_its_thread(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/archive"))
    await client.head()
    last = -1
    while rig.seen.written_bytes != last:
        last = rig.seen.written_bytes
        await asyncio.sleep(0.1)
    assert last < 8 << 20
    await client.close()
    await _until(lambda: rig.seen.disconnects == ["archive"])


@api_test
async def test_stop_lets_a_request_finish_and_ends_streams(rig: Rig) -> None:
    slow, idle, stream = await rig.connect(), await rig.connect(), await rig.connect()
    slow.send(get("/sleep"))
    stream.send(get("/wait"))
    await stream.head()
    idle.send(get("/_ping"))
    await idle.reply()
    await rig.server.stop(5.0)
    reply = await slow.reply()
    assert (reply.body, reply.headers["connection"]) == (b"slept", "close")
    assert await idle.rest() == b""
    assert rig.seen.disconnects == ["wait"]
    with pytest.raises(ConnectionRefusedError):
        await rig.connect()


@api_test
async def test_a_half_closed_client_still_gets_its_answer(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/sleep"))
    client.half_close()
    assert (await client.reply()).body == b"slept"
    assert await client.rest() == b""


def test_the_socket_appears_with_mode_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with unix_socket(path, mode=0o640, group="0"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        with pytest.raises(Conflict, match="another engine answers there"):
            unix_socket(path, mode=0o600, group="0")
    with unix_socket(path, mode=0o600, group="0"):  # the first one is closed: its name is stale
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.write_text("precious")
    with pytest.raises(Conflict):
        unix_socket(path, mode=0o600, group="0")
    assert path.read_text() == "precious"
    with pytest.raises(InvalidParameter, match="does not exist"):
        unix_socket(tmp_path / "b.sock", mode=0o600, group="no-such-group-here")
    with pytest.raises(System):
        unix_socket(tmp_path / "missing" / "b.sock", mode=0o600, group="0")
    assert [entry.name for entry in tmp_path.iterdir()] == ["api.sock"]


@api_test
async def test_tcp_needs_tls(rig: Rig) -> None:
    (sock,) = tcp_sockets("127.0.0.1:0")
    with sock, pytest.raises(InvalidParameter, match="without TLS"):
        await rig.server.listen([sock], None)
    with pytest.raises(InvalidParameter, match="tls_key not set"):
        server_context(ca="a", certificate="b", key="")
    with pytest.raises(InvalidParameter):
        tcp_sockets("nonsense")


def test_activation_sockets_are_used_as_they_are(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(str(tmp_path / "s"))
        mine.listen()

        @api_test
        async def check(rig: Rig) -> None:
            await rig.server.listen([mine.dup()], None)
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(get("/_ping"))
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            writer.close()
            await writer.wait_closed()

        check(tmp_path)
    assert (tmp_path / "s").exists()


async def _until(condition: object) -> None:
    assert callable(condition)
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")
