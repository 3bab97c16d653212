"""What this machine and the engine's own process are and may do. Each is read when asked."""

import os
import resource
from pathlib import Path
from typing import Final

# In the kernel's numbering. Source: Linux, include/uapi/linux/capability.h; capabilities(7).
CAPABILITIES: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)

_SELF: Final = Path("/proc/self")


def boot_id() -> str:
    """A UUID that is new at each boot. Source: random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_capabilities(status: str) -> frozenset[str]:
    """What a /proc/PID/status allows to pass on: capabilities both permitted and in the bounding set. Pure.

    Raises ValueError if the lines are not there. Numbers this list does not know are left out.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    try:
        held = int(fields["CapPrm"], 16) & int(fields["CapBnd"], 16)
    except KeyError as error:
        raise ValueError(f"no line {error} in /proc/PID/status") from None
    return frozenset(name for number, name in enumerate(CAPABILITIES) if held >> number & 1)


def own_capabilities() -> frozenset[str]:
    """The capabilities that the engine can give to a container, as `CAP_...`. Raises OSError.

    On some machines root lacks CAP_SYS_RESOURCE; a spec that names one we lack fails in every runtime.
    """
    return parse_capabilities((_SELF / "status").read_text())


def own_oom_score_adj() -> int:
    """The engine's own oom_score_adj; without CAP_SYS_RESOURCE no container's can be lower. Raises OSError."""
    return int((_SELF / "oom_score_adj").read_text())


def rlimits() -> dict[str, tuple[int, int]]:
    """Soft and hard limit by `RLIMIT_...` name; -1 is unlimited. getrlimit(2)."""
    names = (name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE")
    return {name: resource.getrlimit(getattr(resource, name)) for name in sorted(names)}


def kernel_release() -> str:
    """As `uname -r` shows it."""
    return os.uname().release


def machine() -> str:
    """As `uname -m` shows it."""
    return os.uname().machine


def total_memory_bytes() -> int:
    """Memory of the machine that the kernel can use, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cpu_count() -> int:
    """How many processors the engine may run on."""
    return len(os.sched_getaffinity(0))
