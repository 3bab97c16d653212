"""Fills of volumes from images, and what the engine owes them until they are safely on disk.

A fill answers as soon as the copy is complete; flushing it first would cost seconds. An intent `volume.fill` is on disk
before the copy begins and ends once everything has been flushed in the background, so what a start finds is:

    same boot       the engine died; the kernel has the copy, whole or not. An incomplete one goes, a complete one is
                    moved in to the end, then it is flushed
    another boot    the power went. The volume is compared with the layers that it was filled from. If no container was
                    started with it since, what differs is copied again; else it is left alone, the log and the
                    volume's `Status` say what is wrong, and the intent stays open to say so after every start

A volume that is a mount of its own (a device, NFS, a plugin's) is flushed before the answer, as it may be unmounted
right after. Its open intent means an incomplete copy, which goes when the volume is next mounted: of an engine that
died, or of a server that did.

Callers hold the volume's lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from holdfast import faults, log
from holdfast.errors import EngineError, NotFound, System, Unavailable
from holdfast.kernel.identity import boot_id
from holdfast.kernel.path import mount_id, owned_fd
from holdfast.store.intents import Intent, IntentTable
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes import copyup, subpath, verify
from holdfast.volumes.drivers.base import HERE, Hands, MountFailed
from holdfast.volumes.layers import DIRECTORY, close, is_empty, open_merged

logger = log.get(__name__)

INTENT = "volume.fill"
STATUS = "Fill"
_FLUSH_AFTER_S = 3.0
_PLAIN = (stat.S_IFDIR | 0o755, 0, 0)
"""Mode and owner of a new volume's root: giving it the same again needs no care."""


@dataclass(frozen=True, slots=True)
class _Fill:
    """An open intent, decoded. `beside`: the copy is made beside the data, not within it."""

    intent: int
    volume_id: str
    boot: str
    identity: str
    subpath: str
    layers: tuple[str, ...]
    names: tuple[str, ...]
    beside: bool
    used: bool = False
    verdict: str = ""

    def encode(self) -> dict[str, str]:
        return {
            "boot": self.boot,
            "identity": self.identity,
            "subpath": self.subpath,
            "layers": json.dumps(self.layers),
            "names": json.dumps(self.names),
            "beside": "1" if self.beside else "",
        }

    @classmethod
    def decode(cls, intent: Intent) -> _Fill:
        details = intent.details
        return cls(
            intent.id,
            intent.subject,
            details["boot"],
            details["identity"],
            details["subpath"],
            tuple(json.loads(details["layers"])),
            tuple(json.loads(details["names"])),
            bool(details["beside"]),
            bool(details.get("used")),
            details.get("verdict", ""),
        )


class Fills:
    """Fills volumes and looks after the copies. Safe from any thread."""

    def __init__(self, intents: IntentTable, flush: Callable[[], None]) -> None:
        """`flush` puts everything in the pool of the local driver on disk."""
        self._intents = intents
        self._flush = flush
        self._boot = boot_id()
        self._open: dict[str, list[_Fill]] = {}
        self._due: list[_Fill] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def fill(
        self,
        record: VolumeRecord,
        home: Path,
        data: Path,
        at: str,
        source: copyup.Source,
        hands: Hands,
        *,
        can_stage: bool,
    ) -> None:
        """Copy an image's directory into the volume, or into `at` in it, if that is an empty directory.

        `data` is the volume's mounted data, which `hands` may touch; `home` is its folder, see `VolumeDriver.home`, and
        `can_stage` says that the data lies in it. Raises NotFound for a subpath that is missing, InvalidParameter for
        one that escapes, MountFailed, System; the volume is empty then, at the latest after `before_use`.
        """
        try:
            create = subpath.of_options(record.options)
            _, found = hands.do(copyup.open_empty, (), os.fspath(data), at, create and astuple(create))
            for target in found:
                with owned_fd(target):
                    self._fill_target(record, home, at, source, target, hands, can_stage=can_stage)
        except MountFailed as error:
            raise error.within(f"error while mounting volume '{data}'") from None
        except OSError as error:
            raise System(_why(error)) from error

    def before_use(self, record: VolumeRecord, home: Path, data: Path, hands: Hands) -> None:
        """Settle a fill that was cut short in a volume that is a mount of its own, which is mounted at `data` now.

        Raises System if that is not possible: the volume must not be used half-filled.
        """
        for fill in self._fills_of(record):
            if fill.beside:
                continue
            try:
                with owned_fd(os.open(home, DIRECTORY)) as volume:
                    settled, _ = hands.do(
                        copyup.settle_mounted, [volume], os.fspath(data), fill.subpath, fill.identity
                    )
            except MountFailed as error:
                raise error.within(f"error while mounting volume '{data}'") from None
            except OSError as error:
                raise System(f"cannot settle an interrupted copy into {record.name}: {_why(error)}") from error
            logger.info("settled an interrupted copy", extra={"volume": record.name, "how": settled})
            self._end(fill)

    def note_use(self, record: VolumeRecord) -> None:
        """Note, on disk when this returns, that a container is about to use the volume and may change it."""
        for fill in self._fills_of(record):
            if not fill.used:
                self._intents.note(fill.intent, used="1")
                self._replace(fill, replace(fill, used=True))

    def status(self, record: VolumeRecord) -> Mapping[str, str] | None:
        """Give what is known to be wrong with a volume's content, None if nothing is."""
        verdicts = [fill.verdict for fill in self._fills_of(record) if fill.verdict]
        return {STATUS: "; ".join(verdicts)} if verdicts else None

    def recover(self, find: Callable[[str], tuple[VolumeRecord, Path] | None], removed: Collection[str]) -> None:
        """Settle the fills that were open when the last engine ended.

        `find` gives a volume and the path of its data by its id, None if there is none; `removed` are ids of volumes
        in the trash. Nothing uses any volume meanwhile. One broken volume is logged and stops no other.
        """
        for intent in self._intents.open():
            if intent.kind != INTENT:
                continue
            fill = _Fill.decode(intent)
            self._open.setdefault(fill.volume_id, []).append(fill)
            if fill.volume_id in removed:
                continue
            found = find(fill.volume_id)
            if found is None:
                self._end(fill)
                continue
            if not fill.beside:
                continue
            self._recover_or_report(*found, fill)

    def take_back(self, record: VolumeRecord, data: Path) -> None:
        """Settle the fills of a volume that comes out of the trash, where they were left alone."""
        for fill in self._fills_of(record):
            if fill.beside:
                self._recover_or_report(record, data, fill)

    def close(self) -> None:
        """Stop flushing; what is not flushed yet is flushed after the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _fill_target(
        self,
        record: VolumeRecord,
        home: Path,
        at: str,
        source: copyup.Source,
        target: int,
        hands: Hands,
        *,
        can_stage: bool,
    ) -> None:
        """Fill the empty directory fd `target` (O_PATH)."""
        status = os.fstat(source.fds[0])
        bare = all(is_empty(fd) for fd in source.fds)
        if bare and (status.st_mode, status.st_uid, status.st_gid) == _PLAIN:
            hands.do(copyup.give_attributes, [source.fds[0], target])
            return
        with owned_fd(os.open(home, DIRECTORY)) as volume:
            beside = can_stage and hands is HERE and mount_id(volume) == mount_id(target)
            fill = self._begin(record, at, source, beside=beside)
            try:
                faults.point("fill-noted")
                if beside:
                    with owned_fd(os.open(".", DIRECTORY, dir_fd=target)) as directory:
                        copyup.fill(source.fds, volume, directory, fill.identity, at)
                else:
                    hands.do(copyup.fill_mounted, [volume, target, *source.fds], fill.identity, at)
            except (MountFailed, Unavailable):
                raise  # what it left, `before_use` settles
            except BaseException:
                self._end(fill)
                raise
        if beside:
            self._flush_soon(fill)
        else:
            self._end(fill)

    def _begin(self, record: VolumeRecord, at: str, source: copyup.Source, *, beside: bool) -> _Fill:
        fill = _Fill(0, record.id, self._boot, secrets.token_hex(8), at, source.layers, source.names, beside)
        fill = replace(fill, intent=self._intents.begin(INTENT, record.id, **fill.encode()))
        with self._changed:
            self._open.setdefault(record.id, []).append(fill)
        return fill

    def _recover_or_report(self, record: VolumeRecord, data: Path, fill: _Fill) -> None:
        try:
            self._recover(record, data, fill)
        except (EngineError, OSError) as error:
            self._report(record, fill, f"cannot be checked: {error}")

    def _recover(self, record: VolumeRecord, data: Path, fill: _Fill) -> None:
        with contextlib.ExitStack() as fds:
            try:
                opened = fds.enter_context(owned_fd(subpath.open_data(data, fill.subpath)))
                target = fds.enter_context(owned_fd(os.open(".", DIRECTORY, dir_fd=opened)))
            except NotFound:
                if fill.boot == self._boot:
                    self._end(fill)
                    return
                raise
            volume = fds.enter_context(owned_fd(os.open(data.parent, DIRECTORY)))
            settled = copyup.settle(volume, target, fill.identity)
            if settled != "nothing":
                logger.info("settled an interrupted copy", extra={"volume": record.name, "how": settled})
            if fill.boot == self._boot:
                if fill.verdict:
                    return
            elif not self._check(record, fill, volume, target):
                return
        self._flush_soon(fill)

    def _check(self, record: VolumeRecord, fill: _Fill, volume: int, target: int) -> bool:
        """Compare a fill that a power cut may have hurt with its source, and repair it if nobody used it since."""
        if not fill.layers:
            return True
        gone = [layer for layer in fill.layers if not os.path.isdir(layer)]
        source = [] if gone else [fd for _, fd in open_merged(fill.layers, fill.names)]
        try:
            if not source:
                self._report(record, fill, "cannot be checked, as the image that it was filled from is gone")
                return False
            found = verify.compare(source, target, used=fill.used)
            if not found:
                logger.info("volume is whole after a power cut", extra={"volume": record.name})
                return True
            if fill.used:
                what = f"{found.missing} entries missing, {found.damaged} damaged"
                self._report(record, fill, f"differs from the image that it was filled from: {what}")
                return False
            logger.warning(
                "filling a volume again after a power cut",
                extra={"volume": record.name, "missing": found.missing, "damaged": found.damaged},
            )
            copyup.replace(source, volume, target, fill.identity, frozenset(found.names))
            return True
        finally:
            close(source)

    def _report(self, record: VolumeRecord, fill: _Fill, what: str) -> None:
        """Report a volume that may not be what its users think."""
        name = f"{record.name}/{fill.subpath}" if fill.subpath else record.name
        self._condemn(fill, f"power was lost before the copy from the image was on disk; {name} {what}")

    def _condemn(self, fill: _Fill, verdict: str) -> None:
        """Note what is wrong with a copy, for the volume's status from now on."""
        logger.warning("volume may be damaged", extra={"id": fill.volume_id, "what": verdict})
        self._intents.note(fill.intent, verdict=verdict)
        self._replace(fill, replace(fill, verdict=verdict))

    def _fills_of(self, record: VolumeRecord) -> list[_Fill]:
        if not self._open:
            return []
        with self._changed:
            return list(self._open.get(record.id, ()))

    def _replace(self, old: _Fill, new: _Fill) -> None:
        with self._changed:
            fills = self._open.get(old.volume_id, [])
            fills[:] = [new if fill.intent == old.intent else fill for fill in fills]

    def _end(self, fill: _Fill) -> None:
        self._intents.end(fill.intent)
        with self._changed:
            left = [other for other in self._open.pop(fill.volume_id, ()) if other.intent != fill.intent]
            if left:
                self._open[fill.volume_id] = left

    def _flush_soon(self, fill: _Fill) -> None:
        with self._changed:
            if self._stopping:
                return
            self._due.append(fill)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="volume-fills", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Flush what is due until nothing is; a moment passes first, so that a container starts undisturbed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=_FLUSH_AFTER_S)
                due = self._due.copy()
                self._due.clear()
                if self._stopping or not due:
                    self._thread = None
                    return
            try:
                self._put_on_disk(due)
            except EngineError as error:  # the catalogue's disk is full: the next start flushes again
                logger.error("cannot note that copies are on disk", extra={"count": len(due), "error": error})

    def _put_on_disk(self, due: Sequence[_Fill]) -> None:
        try:
            self._flush()
            faults.point("fill-flushed")
        except OSError as error:
            for fill in due:
                self._condemn(fill, f"the copy from the image could not be written to disk: {_why(error)}")
            return
        for fill in due:
            self._end(fill)


def _why(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
