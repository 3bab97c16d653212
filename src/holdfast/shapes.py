"""Types that JSON documents are read into, worked out before there are threads.

msgspec works out what a type looks like when it is first used, and two threads that do so at once end the process
(msgspec 0.22: a null pointer in `_core`). So the types are told at import, or before the engine serves.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def know(*types: type) -> None:
    """Have these types, and all that they consist of, worked out. To be called where they are defined."""
    for shape in types:
        msgspec.json.Decoder(shape)


def know_structs() -> None:
    """Have every `msgspec.Struct` worked out that is defined so far. To be called when all modules are imported."""
    know(*_below(msgspec.Struct))


def _below(shape: type) -> Iterator[type]:
    lower: type
    for lower in shape.__subclasses__():
        yield lower
        yield from _below(lower)
