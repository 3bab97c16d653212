"""Linux capabilities: their names, Docker's default set, and what `CapAdd` and `CapDrop` make of it.

Source: capabilities(7); the default set and the order of rules are Docker's (`oci/caps`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.errors import InvalidParameter
from holdfast.kernel import identity

ALL: Final = "ALL"

NAMES: Final = identity.CAPABILITIES
"""In the kernel's order, number 0 first."""

DEFAULT: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What a container has when nothing is said: Docker's fourteen."""


def normalize(names: Iterable[str], field: str) -> tuple[str, ...]:
    """Bring `chown`, `Cap_Chown` and `CHOWN` to `CAP_CHOWN`, and any `all` to `ALL`.

    `field` is `CapAdd` or `CapDrop`, for the message of the InvalidParameter that an unknown name raises.
    """
    result: list[str] = []
    for name in names:
        upper = name.upper()
        if upper == ALL:
            return (ALL,)
        full = upper if upper.startswith("CAP_") else "CAP_" + upper
        if full not in NAMES:
            raise InvalidParameter(f'invalid {field}: unknown capability: "{full}"')
        if full not in result:
            result.append(full)
    return tuple(result)


def effective(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> tuple[str, ...]:
    """Work out a container's capabilities by Docker's rules. Raises InvalidParameter for an unknown name.

    `ALL` in `add` wins over the default set, `ALL` in `drop` leaves only `add`; privileged means every one.
    """
    added, dropped = normalize(add, "CapAdd"), normalize(drop, "CapDrop")
    if privileged:
        return NAMES
    if added == (ALL,):
        return tuple(name for name in NAMES if name not in dropped and dropped != (ALL,))
    if dropped == (ALL,):
        return added
    kept = [name for name in DEFAULT if name not in dropped]
    return tuple(kept + [name for name in added if name not in kept])
