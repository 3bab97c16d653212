"""The directories of one engine, and the lock that keeps a second engine out of them.

<state_root>/          0711   outlives a reboot
    holdfast.lock             held by the engine that runs
    holdfast.db               the catalogue
    volumes/ trash/           see volumes/drivers/local
    images/ containers/       see images, containers
<run_root>/            0711   does not
    holdfast.sock             the API
    containers/ exits/ ...    see runtime
"""

from __future__ import annotations

import fcntl
import os

from holdfast.config import Config
from holdfast.errors import Conflict, System
from holdfast.kernel.mount import make_shared

LOCK = "holdfast.lock"


def prepare(config: Config) -> int:
    """Make the roots, lock the state root, and make both roots shared mounts of their own.

    Shared, so that what the engine mounts below them reaches the namespaces that it starts programs in, also where `/`
    is private (mount_namespaces(7)). Gives the fd that holds the lock until it is closed. Raises Conflict if another
    engine has it, System if the roots cannot be used.
    """
    try:
        for root in (config.state_root, config.run_root):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(config.state_root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise System(f"prepare {error.filename}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(lock)
        os.close(lock)
        raise Conflict(
            f"another engine{owner} uses the state root {config.state_root}",
            hint="stop it first, or give this one a --state-root of its own",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    try:
        make_shared(config.state_root)
        make_shared(config.run_root)
    except OSError as error:
        os.close(lock)
        raise System(f"prepare the roots' mounts: {error}", hint="the engine needs root, with CAP_SYS_ADMIN") from error
    return lock


def _owner(lock: int) -> str:
    pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    return f" (process {pid})" if pid.isdigit() else ""
