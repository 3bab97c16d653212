"""Logging: one line an event, a constant message first, its facts after it as `key=value`."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _LineFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO volumes.service: volume created volume=data`, always a single line."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {key}={_quote(str(value))}" for key, value in vars(record).items() if key not in _STANDARD)
        room = record.name.removeprefix("holdfast.")
        line = f"{self.formatTime(record)} {record.levelname} {room}: {record.getMessage()}{facts}"
        if record.exc_info:
            line += " traceback=" + _quote(self.formatException(record.exc_info))
        return line.replace("\n", "\\n")


def _quote(text: str) -> str:
    return f'"{text}"' if not text or any(c in text for c in ' "\n=') else text


def get(name: str) -> logging.Logger:
    """Give the logger of a module: `logger = log.get(__name__)`."""
    return logging.getLogger(name)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send everything from `level` up to `stream` (standard error unless given), one line an event."""
    import time

    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = _LineFormatter()
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
