"""What can go wrong, as a caller sees it.

EngineError
├── NotFound           the thing named is not there
├── InvalidParameter   the request makes no sense as written
├── Conflict           it makes sense, but not in the present state
├── NotModified        it is already so
├── Unauthorized       who is asking is not known
├── Forbidden          who is asking may not
├── Unsupported        this engine does not do that
├── Unavailable        something it depends on is not there now
├── DeadlineExceeded   it took too long and was given up
└── System             the machine failed: disk, kernel, another program

The class says what a caller can do about it, the text says what happened, in Docker's words where Docker has any.
"""

from __future__ import annotations

from typing import ClassVar, Self


class EngineError(Exception):
    """A failure that the caller can act on. `str()` is one line; `hint` says what to do, for people only."""

    kind: ClassVar[str] = "System"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def within(self, what: str) -> Self:
        """Give the same failure with `what: ` before its text, as Docker does for nested operations."""
        return type(self)(f"{what}: {self.message}", hint=self.hint)


class NotFound(EngineError):
    """The thing that was named does not exist."""

    kind = "NotFound"


class InvalidParameter(EngineError):
    """The request is wrong whatever the state of the engine."""

    kind = "InvalidParameter"


class Conflict(EngineError):
    """The request is right but clashes with the present state."""

    kind = "Conflict"


class NotModified(EngineError):
    """The wanted state is the present state."""

    kind = "NotModified"


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""

    kind = "Unauthorized"


class Forbidden(EngineError):
    """The caller is known and may not do this."""

    kind = "Forbidden"


class Unsupported(EngineError):
    """The engine does not offer this."""

    kind = "NotImplemented"


class Unavailable(EngineError):
    """Something the request depends on cannot be reached now."""

    kind = "Unavailable"


class DeadlineExceeded(EngineError):
    """The work was given up after its time limit."""

    kind = "DeadlineExceeded"


class System(EngineError):
    """The machine failed: disk, kernel or a program that the engine runs."""

    kind = "System"
