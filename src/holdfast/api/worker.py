"""The one door between the event loop and blocking work."""

from __future__ import annotations

import asyncio
import functools
import io
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from holdfast import log
from holdfast.api.request import ClientGone

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

P = ParamSpec("P")
T = TypeVar("T")

logger = log.get(__name__)

THREADS = 32
_WAITING_ITEMS = 16

_engine_lane = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
# Calls that wait for a container or a volume, whose storage may be hung, have threads of their own: however many wait,
# the others are not held up. Threads are made as they are needed.
_patient_lane = ThreadPoolExecutor(8 * THREADS, thread_name_prefix="patient")
# A stream holds its thread for as long as its client listens, so streams have threads of their own.
_stream_lane = ThreadPoolExecutor(4 * THREADS, thread_name_prefix="stream")


async def in_worker(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `work` in the engine's threads; give its result or raise what it raised.

    A cancelled request lets the work finish: only the waiting ends.
    """
    return await _run(_engine_lane, functools.partial(work, *args, **kwargs))


async def in_patient_worker(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Do the same for work that may wait long for one container or volume, without holding up calls to others."""
    return await _run(_patient_lane, functools.partial(work, *args, **kwargs))


class SharedWork:
    """Runs work once for everybody who asks for the same before it begins, so that a crowd costs two runs at most.

    Who asks while it runs gets the next run: no answer is older than its question. To be used in the event loop.
    Source: moby shares its measurements of disk usage, too (daemon/disk_usage.go).
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[object]] = {}
        self._next: dict[Hashable, asyncio.Future[object]] = {}

    async def in_worker(self, key: Hashable, work: Callable[[], T]) -> T:
        """Give the result of `work`, or raise what it raised; whoever gives the same `key` means the same work."""
        shared = self._next.get(key)
        if shared is None:
            shared = self._next[key] = asyncio.ensure_future(self._run(key, work))
            shared.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits any more
        return cast("T", await asyncio.shield(shared))

    async def _run(self, key: Hashable, work: Callable[[], object]) -> object:
        before = self._running.get(key)
        if before is not None:
            await asyncio.wait([before])
        this = self._running[key] = self._next.pop(key)
        try:
            return await in_worker(work)
        finally:
            if self._running[key] is this:
                del self._running[key]


def finish_work() -> None:
    """Wait for work that outlived its request; none can be given to a worker afterwards."""
    _engine_lane.shutdown()
    _patient_lane.shutdown()


def _run(lane: ThreadPoolExecutor, call: Callable[[], T]) -> asyncio.Future[T]:
    # The loop's own run_in_executor() links the two futures both ways and then needs a shield against it.
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    lane.submit(call).add_done_callback(functools.partial(_report, loop, result))
    return result


def _report(loop: asyncio.AbstractEventLoop, result: asyncio.Future[T], job: Future[T]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, result, job)


def _settle(result: asyncio.Future[T], job: Future[T]) -> None:
    error = job.exception()
    if result.done():
        if error is not None and not isinstance(error, ClientGone):
            logger.info("work failed after its request was given up", extra={"error": str(error)})
    elif error is not None:
        result.set_exception(error)
    else:
        result.set_result(job.result())


class _Handoff(Generic[T]):
    """A short queue from a thread to the event loop; the thread waits while it is full."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = threading.Condition()
        self._items: deque[T] = deque()
        self._abandoned = False
        self.ready = asyncio.Event()

    def put(self, item: T) -> None:
        """Called in the thread. Raises ClientGone once nobody listens."""
        with self._room:
            while len(self._items) >= _WAITING_ITEMS and not self._abandoned:
                self._room.wait()
            if self._abandoned:
                raise ClientGone
            self._items.append(item)
            if len(self._items) == 1:
                self._loop.call_soon_threadsafe(self.ready.set)

    def take(self) -> list[T]:
        """Called in the loop: everything that waits."""
        with self._room:
            items = list(self._items)
            self._items.clear()
            self.ready.clear()
            self._room.notify_all()
        return items

    def abandon(self) -> None:
        """Called in the loop: nobody listens any more."""
        with self._room:
            self._abandoned = True
            self._items.clear()
            self._room.notify_all()


async def stream_from_worker(work: Callable[[Callable[[T], None]], object]) -> AsyncGenerator[T, None]:
    """Run blocking `work(emit)` in a thread and give what it emits, in order; then raise what it raised, if anything.

    `emit` blocks while the reader is behind, and raises ClientGone once the reader has stopped. The work starts with
    the first item asked for.
    """
    handoff: _Handoff[T] = _Handoff(asyncio.get_running_loop())
    job = _run(_stream_lane, functools.partial(work, handoff.put))

    def end(done: asyncio.Future[object]) -> None:
        if not done.cancelled():
            done.exception()  # it is told below; if nobody listens any more, nobody need be told
        handoff.ready.set()

    job.add_done_callback(end)
    try:
        while True:
            await handoff.ready.wait()
            finished = job.done()
            for item in handoff.take():
                yield item
            if finished:
                job.result()
                return
    finally:
        handoff.abandon()
        if not job.done():
            job.cancel()


class BodyReader(io.RawIOBase):
    """A request's body as a file for blocking code; reading raises ClientGone if the client went away half-way.

    Make and close it in the event loop, read it in a worker. Wrap it in io.BufferedReader where small reads are many.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._changed = threading.Condition()
        self._current = memoryview(b"")
        self._ended = False
        self._error: BaseException | None = None
        self._wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pump = self._loop.create_task(self._fill())

    async def _fill(self) -> None:
        try:
            await self._wanted.wait()
            async for chunk in self._chunks:
                self._wanted.clear()
                with self._changed:
                    self._current = memoryview(chunk)
                    self._changed.notify()
                await self._wanted.wait()
        except ClientGone as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with what is there, waiting for at least one byte; 0 at the end. Raises ClientGone."""
        target = memoryview(buffer).cast("B")
        with self._changed:
            if not self._current and not self._ended and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wanted.set)
            while not self._current and not self._ended:
                self._changed.wait()
            if self._current:
                count = min(len(target), len(self._current))
                target[:count] = self._current[:count]
                self._current = self._current[count:]
                return count
            if self._error is not None:
                raise self._error
            return 0

    async def aclose(self) -> None:
        """Stop: later reads end with ClientGone."""
        if not self._pump.done():
            self._error = ClientGone()
            self._pump.cancel()
            await asyncio.wait((self._pump,))
        self.close()
