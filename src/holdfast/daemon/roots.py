"""The directories of one engine, and the lock that keeps a second engine out of them.

<state_root>/          0711   outlives a reboot
    holdfast.lock             held by the engine that runs
    holdfast.db               the catalogue
    volumes/ trash/           see volumes/drivers/local
    images/ containers/       see images, containers
<run_root>/            0711   does not
    roots.json                which of the two roots' mounts we made, in which boot
    holdfast.sock             the API
    containers/ exits/ ...    see runtime
"""

from __future__ import annotations

import fcntl
import json
import os

from holdfast import log
from holdfast.config import Config
from holdfast.errors import Conflict, System
from holdfast.kernel.identity import boot_id
from holdfast.kernel.mount import make_shared, umount2
from holdfast.kernel.mountinfo import hides_nothing, mount_at, read_mountinfo

logger = log.get(__name__)

LOCK = "holdfast.lock"
MADE = "roots.json"


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
        _make_mounts(config)
    except OSError as error:
        os.close(lock)
        raise System(f"prepare the roots' mounts: {error}", hint="the engine needs root, with CAP_SYS_ADMIN") from error
    return lock


def release(config: Config) -> None:
    """Unmount those of the roots' mounts that an engine of ours made, unless anything else is mounted below them.

    Open files and the lock stay good. What cannot be unmounted is logged: the next engine uses it.
    """
    made = _made(config)
    for root in (config.run_root, config.state_root):
        try:
            table = read_mountinfo()
            found = mount_at(os.path.realpath(root), table)
            if found is not None and found.mount_id in made and hides_nothing(found, table):
                umount2(found.mount_point)
                made.remove(found.mount_id)
                _note(config, made)  # the kernel gives the number to the next mount
        except OSError as error:
            logger.warning("a root's mount stays", extra={"error": str(error)})


def _make_mounts(config: Config) -> None:
    made = _made(config)
    for root in (config.state_root, config.run_root):
        is_new = mount_at(os.path.realpath(root)) is None
        entry = make_shared(root)
        if is_new:
            made.append(entry.mount_id)
            _note(config, made)


def _note(config: Config, made: list[int]) -> None:
    new = config.run_root / f"{MADE}.new"
    new.write_text(json.dumps({"boot_id": boot_id(), "mounts": made}))
    new.replace(config.run_root / MADE)


def _made(config: Config) -> list[int]:
    """The ids of the mounts that engines of this boot made."""
    try:
        noted = json.loads((config.run_root / MADE).read_text())
        return [int(mount_id) for mount_id in noted["mounts"]] if noted["boot_id"] == boot_id() else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _owner(lock: int) -> str:
    pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    return f" (process {pid})" if pid.isdigit() else ""
