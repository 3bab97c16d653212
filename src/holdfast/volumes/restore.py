"""Bringing the catalogue and the disk together after a start, whatever the engine or the machine died of.

The catalogue is flushed before a change is acknowledged, the directories soon after. So, for the local driver:

    in the catalogue      on disk                   what happened                        what is done
    live                  in volumes/               all is well
    live                  in trash/                 a removal that was never recorded    taken back
    live, not settled     nowhere                   power cut just after the creation    made again, empty
    live, settled         nowhere                   somebody deleted it                  dropped, with a warning
    removed               in volumes/, same id      power cut just after the removal     removed again
    unknown               in volumes/               a creation that was never recorded,  adopted
                                                    or the catalogue was lost
    unknown               in volumes/, anonymous    the same, but nobody ever had it         removed
                          and empty
    removed, not settled  in volumes/, no record    power cut just after both            removed again
    removed, not settled  nowhere                   power cut just after both            made in trash/, empty
    removed, settled      nowhere                   its deletion was not recorded        its row goes too
    unknown               in trash/                 the catalogue was lost               left, with a warning
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping

from holdfast import log
from holdfast.errors import EngineError
from holdfast.kernel.path import owned_fd
from holdfast.store.volumes import VolumeRecord, VolumeTable
from holdfast.volumes import copyup
from holdfast.volumes.catalogue import Catalogue
from holdfast.volumes.drivers.local import DATA, LocalDriver
from holdfast.volumes.model import ANONYMOUS_LABEL, new_id
from holdfast.volumes.mounts import DEFAULT_DRIVER

logger = log.get(__name__)

DEFAULT_POOL = "default"


def reconcile(catalogue: Catalogue, table: VolumeTable, local: LocalDriver) -> None:
    """Settle every row of the table above. One broken volume is logged and never stops the others."""
    local.recover()
    removed = {record.id: record for record in table.removed()}
    unsettled = {record.id for record in table.unsettled()}
    trash = local.in_trash()
    names = local.names()
    plain = _beyond_doubt(catalogue, unsettled, removed.values()) & names
    on_disk = {volume.name: volume.record for volume in local.look_at(names - plain)}
    # File systems keep the order of renames: while the older of two volumes of one name is not in the trash, the folder
    # of that name is the older one's.
    lost = [record for record in removed.values() if record.id in unsettled and record.id not in trash]
    owners = {record.name: record for record in sorted(lost, key=lambda record: -record.created_at)}
    for name, stored in tuple(on_disk.items()):
        stored = stored or owners.get(name)
        if stored is not None and stored.id in removed:
            logger.info("removing volume again", extra={"volume": name})
            _attempt(local.remove, stored)
            del on_disk[name]
    for record in catalogue.all():
        if record.driver != DEFAULT_DRIVER or record.name in on_disk or record.name in plain:
            continue
        if record.id in trash:
            logger.info("taking back a volume whose removal was not recorded", extra={"volume": record.name})
            _attempt(local.take_back, record)
        elif record.id in unsettled:
            logger.info("making a volume's directory again", extra={"volume": record.name})
            _attempt(local.create, record)
        else:
            logger.warning("volume directory is gone, dropping its record", extra={"volume": record.name})
            catalogue.lose(record)
    _adopt(catalogue, on_disk, local)
    for name, stored in on_disk.items():
        current = catalogue.get(name)
        if current is not None and current != stored:
            logger.info("writing the record beside a volume's data again", extra={"volume": name})
            _attempt(local.rewrite, current)
    trash = local.in_trash()
    for record in removed.values():
        if record.driver != DEFAULT_DRIVER or record.id in trash:
            continue
        if record.id in unsettled:
            logger.info("making a removed volume's directory again", extra={"volume": record.name})
            _attempt(local.create_removed, record)
        else:
            table.purge([record.id])
    trash = local.in_trash()
    for volume_id in trash - removed.keys() - {record.id for record in catalogue.all()}:
        logger.warning("unknown volume in the trash is left there", extra={"path": local.trash_root / volume_id})


def _beyond_doubt(
    catalogue: Catalogue, unsettled: Collection[str], removed: Collection[VolumeRecord]
) -> frozenset[str]:
    """Give the names of the volumes whose directory, if it is there, is theirs and as recorded.

    That is nearly all of them, and they are not opened: a start with many volumes takes no longer than with one.
    """
    settled = {
        record.name for record in catalogue.all() if record.driver == DEFAULT_DRIVER and record.id not in unsettled
    }
    return frozenset(settled - {record.name for record in removed})


def _adopt(catalogue: Catalogue, on_disk: Mapping[str, VolumeRecord | None], local: LocalDriver) -> None:
    adopted = []
    for name, stored in on_disk.items():
        if catalogue.get(name) is not None:
            continue
        if stored is not None and ANONYMOUS_LABEL in (stored.labels or {}) and local.is_empty(stored):
            logger.info("removing anonymous volume that nobody ever had", extra={"volume": name})
            _attempt(local.unmake, stored)
        else:
            logger.info("adopting volume found on disk", extra={"volume": name})
            adopted.append(
                stored or VolumeRecord(new_id(), name, DEFAULT_DRIVER, DEFAULT_POOL, None, None, time.time())
            )
    if adopted:
        catalogue.add(adopted)
    for record in adopted:
        _attempt(functools.partial(_settle_copies, local), record)


def _settle_copies(local: LocalDriver, record: VolumeRecord) -> None:
    """Settle copies from images beside an adopted volume's data: no intent tells of them (see `volumes/fills`)."""
    with owned_fd(local.open_volume(record)) as volume:
        copyup.settle_unknown(volume, DATA)


def _attempt(work: Callable[[VolumeRecord], None], record: VolumeRecord) -> None:
    try:
        work(record)
    except (EngineError, OSError) as error:
        logger.warning("cannot restore a volume", extra={"volume": record.name, "error": error})
