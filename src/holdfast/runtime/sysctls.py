"""Which kernel parameters a container may set: those that belong to a namespace of its own. Pure.

Source: sysctl(8), namespaces(7); the rules and their texts are runc's (`libcontainer/configs/validate`).
"""

from __future__ import annotations

from typing import Final

from holdfast.errors import InvalidParameter

_IPC: Final = frozenset({
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
})  # fmt: skip


def check_sysctl(name: str, *, network: str, ipc: str, uts: str) -> None:
    """Check one parameter; `network`, `ipc` and `uts` are `host` where the container has none of its own.

    Raises InvalidParameter for one that would change the host.
    """
    dotted = _dotted(name)
    if dotted in _IPC or dotted.startswith("fs.mqueue."):
        if ipc == "host":
            raise InvalidParameter(f'sysctl "{dotted}" is not allowed in the hosts ipc namespace')
    elif dotted.startswith("net."):
        if network == "host":
            raise InvalidParameter(f'sysctl "{dotted}" not allowed in host network namespace')
    elif dotted == "kernel.hostname" and uts != "host":
        raise InvalidParameter(f'sysctl "{dotted}" is not allowed as it conflicts with the OCI "hostname" field')
    elif dotted != "kernel.domainname" or uts == "host":
        raise InvalidParameter(f'sysctl "{dotted}" is not in a separate kernel namespace')


def _dotted(name: str) -> str:
    """`net/ipv4/conf/eth0.1/x` and `net.ipv4.conf.eth0/1.x` are the same: what comes first separates."""
    first = next((letter for letter in name if letter in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))
