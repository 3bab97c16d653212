"""Failures that the client finds by itself. The command line shows them as they are; what the engine answered is shown
as the engine's answer."""

from __future__ import annotations

from holdfast.errors import EngineError, InvalidParameter, System, Unavailable


class ClientError(EngineError):
    """Found on this side of the socket."""


class Unreachable(ClientError, Unavailable):
    """There is no engine to ask."""


class Garbled(ClientError, System):
    """The answer is not what the protocol says, or it ended too early."""


class BadAddress(ClientError, InvalidParameter):
    """The engine's address cannot be understood."""
