"""What is wrong with a text that is not JSON, in the words of Go's encoding/json. Slow, for known errors only."""

from __future__ import annotations

import re

_SPACE = b" \t\r\n"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLAIN_TEXT = re.compile(rb'[^"\\\x00-\x1f]*')
_EOF = "unexpected EOF"


class _Wrong(Exception):
    pass


def syntax_error(data: bytes) -> str:
    """Give the message of Go's SyntaxError for the first document in `data`; "" if nothing is wrong with it."""
    try:
        _Scanner(data).document()
    except _Wrong as wrong:
        return str(wrong)
    return ""


class _Scanner:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def document(self) -> None:
        """Walk one value. Kept flat, with a stack of the open brackets, since depth is the client's choice."""
        stack: list[int] = []
        expects = "value"
        while True:
            byte = self._next()
            if expects == "value" or (expects == "value or end" and byte != ord("]")):
                if byte in b"{[":
                    self._at += 1
                    stack.append(byte)
                    expects = "key or end" if byte == ord("{") else "value or end"
                    continue
                self._scalar(byte)
            elif expects in {"key", "key or end"} and byte == ord('"'):
                self._text()
                if self._next() != ord(":"):
                    self._fail("after object key")
                self._at += 1
                expects = "value"
                continue
            elif expects == "key" or (expects == "key or end" and byte != ord("}")):
                self._fail("looking for beginning of object key string")
            else:
                self._at += 1
                stack.pop()
            # A value has just ended.
            while stack:
                byte = self._next()
                is_object = stack[-1] == ord("{")
                if byte == ord(","):
                    self._at += 1
                    expects = "key" if is_object else "value"
                    break
                if byte != (ord("}") if is_object else ord("]")):
                    self._fail("after object key:value pair" if is_object else "after array element")
                self._at += 1
                stack.pop()
            else:
                return

    def _next(self) -> int:
        while self._at < len(self._data) and self._data[self._at] in _SPACE:
            self._at += 1
        return self._here()

    def _here(self) -> int:
        if self._at >= len(self._data):
            raise _Wrong(_EOF)
        return self._data[self._at]

    def _fail(self, where: str) -> None:
        raise _Wrong(f"invalid character {_quote(self._here())} {where}")

    def _scalar(self, byte: int) -> None:
        if byte == ord('"'):
            self._text()
        elif byte in _LITERALS:
            word = _LITERALS[byte]
            for index, expected in enumerate(word):
                if self._here() != expected:
                    name = word.decode()
                    self._fail(f"in literal {name} (expecting {_quote(word[index])})")
                self._at += 1
        elif byte == ord("-") or chr(byte).isdigit():
            self._number()
        else:
            self._fail("looking for beginning of value")

    def _number(self) -> None:
        found = _NUMBER.match(self._data, self._at)
        if found is None:  # a minus and nothing behind it
            self._at += 1
            self._fail("in numeric literal")
            return
        self._at = found.end()
        rest = self._data[self._at : self._at + 1]
        if rest == b"." and b"." not in found.group() and not re.search(rb"[eE]", found.group()):
            self._at += 1
            self._fail("after decimal point in numeric literal")
        if rest in {b"e", b"E"} and not re.search(rb"[eE]", found.group()):
            self._at += 1
            if self._here() in b"+-":
                self._at += 1
            self._fail("in exponent of numeric literal")

    def _text(self) -> None:
        self._at += 1
        while True:
            found = _PLAIN_TEXT.match(self._data, self._at)
            assert found is not None
            self._at = found.end()
            byte = self._here()
            if byte == ord('"'):
                self._at += 1
                return
            if byte != ord("\\"):
                self._fail("in string literal")
            self._at += 1
            escape = self._here()
            if escape == ord("u"):
                for _ in range(4):
                    self._at += 1
                    if self._here() not in b"0123456789abcdefABCDEF":
                        self._fail("in \\u hexadecimal character escape")
            elif escape not in b'bfnrt\\/"':
                self._fail("in string escape code")
            self._at += 1


def _quote(byte: int) -> str:
    """Write a byte as Go's quoteChar does: as if it were a code point."""
    if byte == ord("'"):
        return "'\\''"
    if byte == ord('"'):
        return "'\"'"
    short = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}.get(byte)
    if short is None:
        short = chr(byte) if chr(byte).isprintable() else (f"\\x{byte:02x}" if byte < 0x80 else f"\\u{byte:04x}")
    return f"'{short}'"
