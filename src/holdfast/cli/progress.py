"""Progress of pull, load and import: a line for each layer, changed in place on a terminal; plain lines elsewhere.

Source: Docker Engine API, the progress messages of ImageCreate; docker's output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from holdfast.client import ClientError, Document


class StreamFailed(ClientError):
    """The work failed after the engine had begun to answer; its last message says why. `code` is a program's, or 0."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def show_progress(messages: Iterable[Document], out: TextIO | None) -> list[Document]:
    """Show the messages as they come, nowhere if `out` is None; give back those that carry data (`aux`).

    Raises StreamFailed with the engine's message.
    """
    data: list[Document] = []
    lines: dict[str, int] = {}
    on_terminal = out is not None and out.isatty()
    for message in messages:
        if message.raw.get("error") or message.raw.get("errorDetail"):
            detail = message.document("errorDetail")
            raise StreamFailed(detail.text("message") or message.text("error"), detail.number("code"))
        if "aux" in message.raw:
            data.append(message.document("aux"))
        elif out is None:
            continue
        elif stream := message.text("stream"):
            out.write(stream)
        elif on_terminal:
            _rewrite(out, message, lines)
        elif not message.text("progress"):
            out.write(_text(message) + "\n")
        if out is not None:
            out.flush()
    return data


def _text(message: Document) -> str:
    identifier = message.text("id")
    progress = message.text("progress")
    text = f"{identifier}: {message.text('status')}" if identifier else message.text("status")
    return f"{text} {progress}" if progress else text


def _rewrite(out: TextIO, message: Document, lines: dict[str, int]) -> None:
    """Write a message over the earlier one of the same id, counting lines up from the cursor."""
    identifier = message.text("id")
    if not identifier:
        lines.clear()
        out.write(_text(message) + "\n")
        return
    if identifier not in lines:
        lines[identifier] = len(lines)
        out.write("\n")
    up = len(lines) - lines[identifier]
    out.write(f"\x1b[{up}A\x1b[2K\r{_text(message)}\r\x1b[{up}B")
