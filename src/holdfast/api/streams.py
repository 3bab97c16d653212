"""Answers that blocking work produces piece by piece: progress messages, archives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Generic, Self, TypeVar

from holdfast.api.response import JSON, StreamResponse, json_line
from holdfast.api.status import printable
from holdfast.api.worker import stream_from_worker
from holdfast.errors import EngineError

T = TypeVar("T")
Emit = Callable[[T], None]


async def progress_response(
    work: Callable[[Emit[Mapping[str, Any]]], object], *, always_ok: bool = False
) -> StreamResponse:
    """Run `work(emit)` and stream the messages it emits, as pull, push, load, import and build do.

    An error before the first message is raised here and becomes a status, unless the status is `always_ok`, as for
    load; a later one becomes the last message, `{"errorDetail": {"message": E}, "error": E}`.
    Source: Docker Engine API, ImageCreate.
    """
    try:
        items = _Progress(*await _start(work))
    except EngineError as error:
        if not always_ok:
            raise
        items = _Progress([_last(error)], _nothing())
    return StreamResponse(200, {"Content-Type": JSON}, items)


async def bytes_response(work: Callable[[Emit[bytes]], object], headers: Mapping[str, str]) -> StreamResponse:
    """Run `work(emit)` and stream the bytes it emits; a late error cuts the connection, an early one is raised here."""
    return StreamResponse(200, headers, _Pieces(*await _start(work)))


async def _start(work: Callable[[Emit[T]], object]) -> tuple[list[T], AsyncGenerator[T, None]]:
    items = stream_from_worker(work)
    try:
        return [await anext(items)], items
    except StopAsyncIteration:
        return [], items


def _last(error: EngineError) -> Mapping[str, Any]:
    text = printable(str(error))
    return {"errorDetail": {"message": text}, "error": text}


async def _nothing() -> AsyncGenerator[Mapping[str, Any], None]:
    nothing: tuple[Mapping[str, Any], ...] = ()
    for message in nothing:
        yield message


class _Items(Generic[T]):
    """The first item, if any, and those after it. A class, because closing a generator that never ran does nothing."""

    def __init__(self, first: list[T], rest: AsyncGenerator[T, None]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    async def _next(self) -> T:
        return self._first.pop() if self._first else await anext(self._rest)

    async def aclose(self) -> None:
        """Stop the work: its next emit raises ClientGone."""
        await self._rest.aclose()


class _Pieces(_Items[bytes]):
    async def __anext__(self) -> bytes:
        return await self._next()


class _Progress(_Items[Mapping[str, Any]]):
    async def __anext__(self) -> bytes:
        try:
            message = await self._next()
        except EngineError as error:
            message = _last(error)
        return json_line(message, b"\r\n")
