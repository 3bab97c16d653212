"""Connections taken over: both head forms, bytes sent early, each side closed on its own, clients that vanish."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.api.rig import Rig, api_test, get

UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")
UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


@pytest.mark.parametrize("form", [UPGRADE, ()])
@pytest.mark.parametrize("body", [b"", b"{}", None])
@pytest.mark.parametrize("early", [b"", b"early ", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("split", [False, True])
def test_echo(
    form: tuple[str, ...], body: bytes | None, early: bytes, split: bool, tmp_path: Path
) -> None:
    @api_test
    async def check(rig: Rig) -> None:
        client = await rig.connect()
        headers = (*form, "Content-Length: 0") if body == b"" else form
        request = get("/attach/echo", "POST", *headers, body=body or b"") + early
        for piece in (bytes([byte]) for byte in request) if split else (request,):
            client.send(piece)
            await asyncio.sleep(0)
        expected = (UPGRADED if form else PLAIN) + b"[%b]" % (body or b"")
        assert await client.exactly(len(expected)) == expected
        client.send(b"later")
        assert await client.exactly(len(early) + 5) == early.upper() + b"LATER"
        client.half_close()
        assert await client.rest() == b"after-eof"

    check(tmp_path)


@api_test
async def test_everything_at_once_with_the_end(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/echo", "POST", *UPGRADE, "Content-Length: 0") + b"x" * 100_000)
    client.half_close()
    assert await client.rest() == UPGRADED + b"[]" + b"X" * 100_000 + b"after-eof"


@api_test
async def test_exec_heads_carry_the_engine_headers(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/exec", "POST", *UPGRADE, body=b"{}"))
    status, headers, _ = await client.head()
    assert (status, headers["api-version"], headers["upgrade"]) == (101, "1.51", "tcp")


@api_test
async def test_a_refused_attach_is_plain_text_and_the_connection_goes_on(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/missing", "POST", *UPGRADE, "Content-Length: 0"))
    reply = await client.reply()
    assert (reply.status, reply.body) == (404, b"No such container: nope\r\n")
    assert reply.headers["content-type"] == "application/vnd.docker.raw-stream"
    client.send(get("/_ping"))
    assert (await client.reply()).body == b"OK"


@api_test
async def test_an_upgrade_nobody_offers_is_ignored(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/echo", "POST", "Connection: Upgrade", "Upgrade: h2c", body=b"x") + get("/_ping"))
    assert (await client.reply()).body == b"x"
    assert (await client.reply()).body == b"OK"


@api_test
async def test_a_client_that_vanishes_is_noticed_although_nothing_is_written(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/quiet", "POST", *UPGRADE))
    await client.head()
    client.half_close()
    await asyncio.sleep(0.1)
    assert rig.seen.disconnects == []
    await client.close()
    for _ in range(100):
        if rig.seen.disconnects:
            break
        await asyncio.sleep(0.02)
    assert rig.seen.disconnects == ["quiet"]


@api_test
async def test_writing_to_a_client_that_does_not_read_waits(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/flood", "POST", *UPGRADE))
    await client.head()
    last = -1
    while rig.seen.written_bytes != last:
        last = rig.seen.written_bytes
        await asyncio.sleep(0.1)
    assert last < 4 << 20
    assert (await rig.ask(get("/_ping"))).status == 200
    await client.close()
    for _ in range(100):
        if rig.seen.disconnects:
            break
        await asyncio.sleep(0.02)
    assert rig.seen.disconnects == ["flood"]


@api_test
async def test_input_nobody_reads_is_held_back(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/deaf", "POST", *UPGRADE))
    await client.head()
    sent = 0
    while sent < 64 << 20:
        client.send(bytes(1 << 16))
        sent += 1 << 16
        try:
            await asyncio.wait_for(client.writer.drain(), 0.3)
        except TimeoutError:
            break
    assert sent < 4 << 20
    rig.seen.release.set()
    client.half_close()
    assert len(await client.rest()) == len(b"[]") + sent + len(b"after-eof")


@api_test
async def test_stop_ends_taken_over_streams(rig: Rig) -> None:
    client = await rig.connect()
    client.send(get("/attach/quiet", "POST", *UPGRADE))
    await client.head()
    await rig.server.stop(5.0)
    assert await client.rest() == b""
