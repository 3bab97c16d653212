"""The query string, read by Docker's rules."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from holdfast.errors import InvalidParameter, System

_FALSE_WORDS = frozenset({"", "0", "no", "false", "none"})
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def percent_decode(text: str) -> str:
    """Decode %XX. Bytes that are no UTF-8 become surrogates, as in file names.

    Raises InvalidParameter in Go's words.
    """
    if "%" not in text:
        return text
    position = text.find("%")
    while position >= 0:
        digits = text[position + 1 : position + 3]
        if len(digits) < 2 or not _HEX_DIGITS.issuperset(digits):
            raise InvalidParameter(f'invalid URL escape "{text[position : position + 3]}"')
        position = text.find("%", position + 3)
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


class Query:
    """The arguments after `?`, in order, repeats kept. Names are matched exactly."""

    __slots__ = ("_values",)

    def __init__(self, text: str = "") -> None:
        """Decode `text`. Raises InvalidParameter for a broken escape or a `;`, as Go's url.ParseQuery does."""
        self._values: dict[str, list[str]] = {}
        for argument in text.split("&") if text else ():
            if not argument:
                continue
            if ";" in argument:
                raise InvalidParameter("invalid semicolon separator in query")
            name, _, value = argument.partition("=")
            self._values.setdefault(percent_decode(name.replace("+", " ")), []).append(
                percent_decode(value.replace("+", " "))
            )

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, default: str = "") -> str:
        """Give the first value of `name`, or `default` if the name is absent."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Give every value of `name`, in order."""
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """Read a boolean: "", 0, no, false, none mean no, anything else yes; `default` only if the name is absent.

        Source: moby, daemon/server/httputils, BoolValue and BoolValueOrDefault.
        """
        values = self._values.get(name)
        return default if values is None else values[0].strip().lower() not in _FALSE_WORDS

    def integer(self, name: str, default: int = 0, *, parser: str = "ParseInt") -> int:
        """Read a decimal number; `default` if absent or empty. `parser` names the Go function in the error's text.

        Raises System, as Docker answers 500, for example `strconv.ParseInt: parsing "a": invalid syntax`.
        """
        text = self.get(name)
        if not text:
            return default
        digits = text[1:] if text[0] in "+-" else text
        if not (digits.isascii() and digits.isdigit()):
            raise System(f'strconv.{parser}: parsing "{text}": invalid syntax')
        if len(digits) > 4000 or not -(1 << 63) <= int(text) < 1 << 63:
            raise System(f'strconv.{parser}: parsing "{text[:64]}": value out of range')
        return int(text)


EMPTY = Query()
