"""Signals by the names and numbers that users write. Source: signal(7); moby, sys/signal."""

from __future__ import annotations

import signal

from holdfast.errors import InvalidParameter


def parse_signal(text: str) -> int:
    """Give the number of `SIGTERM`, `term`, `15` or `RTMIN+3`. Raises InvalidParameter, `invalid signal: BAD`."""
    if text.isascii() and text.removeprefix("-").isdigit():
        number = int(text)
        if 0 < number < signal.NSIG:
            return number
        reason = f"the linux daemon does not support signal {number}" if number else f"invalid signal: {text}"
        raise InvalidParameter(reason)
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    if base in ("RTMIN", "RTMAX") and (not sign or offset.isdigit()):
        number = int(getattr(signal, f"SIG{base}")) + (int(offset) if offset else 0) * (-1 if sign == "-" else 1)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    known = getattr(signal, f"SIG{name}", None)
    if isinstance(known, signal.Signals):
        return int(known)
    raise InvalidParameter(f"invalid signal: {text}")


def stop_signal(text: str) -> int:
    """Give the number of a container's stop signal; SIGTERM if it names none that is known."""
    try:
        return parse_signal(text) if text else int(signal.SIGTERM)
    except InvalidParameter:
        return int(signal.SIGTERM)
