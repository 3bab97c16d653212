"""The door between the event loop and threads: results, errors, abandoned work, streams that are held back."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from holdfast.api.request import ClientGone
from holdfast.api.worker import BodyReader, SharedWork, in_worker, stream_from_worker
from holdfast.errors import Conflict


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine with a deadline."""
    asyncio.run(asyncio.wait_for(test(), 10))


def test_results_and_errors_come_through() -> None:
    async def check() -> None:
        assert await in_worker(divmod, 7, 2) == (3, 1)
        assert await in_worker(int, "ff", base=16) == 255
        with pytest.raises(ZeroDivisionError):
            await in_worker(divmod, 1, 0)
        assert await in_worker(threading.current_thread) is not threading.current_thread()

    run(check)


def test_work_goes_on_when_nobody_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    done = threading.Event()

    def work() -> None:
        time.sleep(0.1)
        done.set()
        raise Conflict("nobody hears this")

    async def check() -> None:
        task = asyncio.create_task(in_worker(work))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not done.is_set()
        assert await asyncio.to_thread(done.wait, 5)
        await asyncio.sleep(0.05)

    run(check)
    assert [record.message for record in caplog.records] == ["work failed after its request was given up"]


def test_a_crowd_shares_its_work_and_no_answer_is_older_than_its_question() -> None:
    runs: list[int] = []
    began, go_on = threading.Event(), threading.Event()

    def work() -> int:
        runs.append(len(runs))
        began.set()
        assert go_on.wait(5)
        if len(runs) == 3:
            raise Conflict("the third")
        return len(runs)

    async def check() -> None:
        shared = SharedWork()
        first = asyncio.create_task(shared.in_worker("key", work))
        assert await asyncio.to_thread(began.wait, 5)
        crowd = [asyncio.create_task(shared.in_worker("key", work)) for _ in range(50)]
        assert await shared.in_worker("other", lambda: "at once") == "at once"
        go_on.set()
        assert await first == 1
        assert set(await asyncio.gather(*crowd)) == {2}
        with pytest.raises(Conflict, match="the third"):
            await shared.in_worker("key", work)
        assert len(runs) == 3

    run(check)


def test_a_stream_keeps_the_order_and_ends_with_the_error() -> None:
    def work(emit: Callable[[int], None]) -> None:
        for number in range(1000):
            emit(number)
        raise Conflict("at the end")

    async def check() -> None:
        got: list[int] = []

        async def read() -> None:
            async for number in stream_from_worker(work):
                got.append(number)  # noqa: PERF401

        with pytest.raises(Conflict):
            await read()
        assert got == list(range(1000))

    run(check)


def test_a_stream_waits_for_its_reader_and_stops_with_it() -> None:
    emitted = 0
    ended = threading.Event()

    def work(emit: Callable[[int], None]) -> None:
        nonlocal emitted
        try:
            while True:
                emit(emitted)
                emitted += 1
        except ClientGone:
            ended.set()
            raise

    async def check() -> None:
        stream = stream_from_worker(work)
        assert await anext(stream) == 0
        await asyncio.sleep(0.05)
        assert emitted < 50
        await stream.aclose()
        assert await asyncio.to_thread(ended.wait, 5)

    run(check)


def test_a_body_is_a_file_for_a_worker() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in (b"first line\n", b"second ", b"line\nrest"):
            yield piece

    async def check() -> None:
        body = BodyReader(chunks())
        file = io.BufferedReader(body)
        assert await in_worker(file.readline) == b"first line\n"
        assert await in_worker(file.readline) == b"second line\n"
        assert await in_worker(file.read) == b"rest"
        assert await in_worker(file.read) == b""
        await body.aclose()

    run(check)


def test_a_body_that_breaks_off_is_no_end() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise ClientGone

    async def check() -> None:
        body = BodyReader(chunks())
        with pytest.raises(ClientGone):
            await in_worker(body.readall)
        await body.aclose()

    run(check)


def test_closing_a_body_wakes_its_reader() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def check() -> None:
        body = BodyReader(chunks())
        reading = asyncio.create_task(in_worker(body.readall))
        await asyncio.sleep(0.05)
        await body.aclose()
        with pytest.raises(ClientGone):
            await reading

    run(check)
