"""The API's table from kinds of errors to status codes, and the answers made from it."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast import log
from holdfast.api.response import Response, empty, json_response
from holdfast.errors import EngineError

logger = log.get(__name__)

HINT_HEADER = "Holdfast-Hint"
"""What to do about an error, for our own client: Docker's clients show the body's message alone."""
NO_HEADERS: Mapping[str, str] = {}

STATUS_BY_KIND = {
    "NotModified": 304,
    "InvalidParameter": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "Conflict": 409,
    "DeadlineExceeded": 500,
    "System": 500,
    "NotImplemented": 501,
    "Unavailable": 503,
}


def status_of(error: EngineError) -> int:
    """Give the status code for an error. Source: moby, daemon/server/httpstatus."""
    return STATUS_BY_KIND[error.kind]


def error_response(error: EngineError) -> Response:
    """Give `{"message": ...}`; 304 has no body."""
    status = status_of(error)
    if status >= 500 and error.__cause__ is not None:
        logger.warning("request failed", extra={"error": str(error), "cause": repr(error.__cause__)})
    headers = {HINT_HEADER: printable(error.hint)} if error.hint.isascii() and error.hint else {}
    return empty(304) if status == 304 else message_response(status, str(error), headers)


def message_response(status: int, message: str, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """Give a status with Docker's error body. Bytes that were no UTF-8 are shown as U+FFFD."""
    return json_response(status, {"message": printable(message)}, headers)


def plain_error(error: EngineError) -> Response:
    """Give an error as attach does: plain text, CRLF, the type of a raw stream."""
    return Response(
        status_of(error),
        {"Content-Type": "application/vnd.docker.raw-stream"},
        f"{printable(str(error))}\r\n".encode(),
    )


def printable(text: str) -> str:
    """Replace surrogates, which JSON in UTF-8 cannot carry."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
