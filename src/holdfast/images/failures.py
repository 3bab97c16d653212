"""What disk and kernel refuse, as the engine's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import System


@contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Turn OSError into System, `what` before its text; a client that went away stays what it is."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise System(f"{what}: {error}") from error
