"""The volumes of this engine: made, found, held, mounted, removed.

Every change of one volume happens under its name's lock. A volume is made by its driver first and recorded after, and
taken away by its driver first and recorded as removed after; `restore` settles what a dead engine left between the two.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from holdfast import faults, log
from holdfast.errors import Conflict, EngineError, NotFound
from holdfast.events import EventBus
from holdfast.locks import NamedLocks
from holdfast.plugins.discovery import NO_PLUGINS
from holdfast.plugins.registry import Plugins, Refused
from holdfast.store import Store
from holdfast.store.volumes import VolumeRecord, VolumeRef
from holdfast.volumes import copyup, subpath
from holdfast.volumes.catalogue import Catalogue
from holdfast.volumes.drivers.base import HERE, Hands, Opened, VolumeDriver
from holdfast.volumes.drivers.check import Step
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.drivers.plugin import PluginDriver, PluginHost
from holdfast.volumes.fills import Fills
from holdfast.volumes.filters import parse_prune_filters
from holdfast.volumes.keeper import Keeper
from holdfast.volumes.lookup import Lookup
from holdfast.volumes.model import ANONYMOUS_LABEL, Pruned, TrashPolicy, Usage, Volume, new_id
from holdfast.volumes.mounts import DEFAULT_DRIVER, MountPoint
from holdfast.volumes.outages import Outages
from holdfast.volumes.plugged import Plugged
from holdfast.volumes.restore import DEFAULT_POOL, reconcile
from holdfast.volumes.trash import Trash

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A volume that a container asks for, and the mount points that ask for it."""

    name: str
    first: MountPoint
    anonymous: bool


class Volumes:
    """The volume service. Calls block; errors are in Docker's words. Safe from any thread."""

    def __init__(
        self,
        store: Store,
        events: EventBus,
        local: LocalDriver,
        policy: TrashPolicy | None = None,
        plugins: PluginHost | None = None,
    ) -> None:
        """Serve the volumes in `store`; `restore` must be called before anything else. Without `plugins` none is found.
        """
        self._events = events
        self._local = local
        none = PluginHost(Plugins(NO_PLUGINS), store.intents, HERE, local.volumes_root, ())
        self._plugged = Plugged(plugins or none)
        self._is_starting = True
        self._to_remove: list[VolumeRecord] = []
        self._locks = NamedLocks()
        self._table = store.volumes
        self._catalogue = Catalogue(self._table)
        self._lookup = Lookup(self._catalogue, local, self._plugged)
        self._policy = policy or TrashPolicy()
        self._keeper = Keeper(self._table, local, self._policy)
        self._fills = Fills(store.intents, local.sync)
        self._pruning = threading.Lock()
        self._outages = Outages()
        self.trash = Trash(
            self._table,
            self._catalogue,
            self._keeper,
            local,
            self._locks,
            events,
            self._lookup.driver,
            self._settle_restored,
        )

    @property
    def driver_names(self) -> Sequence[str]:
        """The drivers that can be asked for, by name."""
        return sorted([self._local.name, *self._plugged.names])

    # --- made, found, removed -------------------------------------------------------------------------------------

    def create(
        self,
        name: str = "",
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or give the one that has the name already, unchanged.

        An empty name makes an anonymous volume. Raises InvalidParameter, NotFound (driver), Conflict, System.
        Source: Docker Engine API, VolumeCreate.
        """
        anonymous = not name
        if anonymous:
            name = new_id()
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        with self._locks.hold(name), contextlib.ExitStack() as undo:
            record, made = self._make(name, driver, options, labels)
            if made:
                undo.callback(self._unmake, record, keep=False)
                self._record([record], [])
                undo.pop_all()
        return self._lookup.show(record)

    def inspect(self, name: str) -> Volume:
        """Give the volume of exactly this name, as its plugin sees it now. Raises what `Lookup.inspect` raises."""
        return self.get(name) if self.is_local(name) else self._lookup.inspect(name)

    def get(self, name: str) -> Volume:
        """Give the volume of exactly this name, from memory. Raises NotFound."""
        volume = self._lookup.show(self._lookup.find(name))
        wrong = self._fills.status(volume.record)
        return replace(volume, status={**(volume.status or {}), **wrong}) if wrong else volume

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[Volume]:
        """Give the volumes that pass Docker's filters, by name. Raises InvalidParameter for a bad filter."""
        return self.look(filters)[0]

    def look(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[Volume], Sequence[str]]:
        """Give the same, and a warning for each plugin that does not answer."""
        return self._lookup.look(filters)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; with `force` one that is not there is no error.

        Raises NotFound, Conflict when a container refers to it, System. Source: Docker Engine API, VolumeDelete.
        """
        with self._locks.hold(name):
            try:
                record = self._lookup.find(name)
            except NotFound:
                self._plugged.look()
                owner = self._plugged.owner_of(name)
                if not owner:
                    if force:
                        return
                    raise
                record = VolumeRecord(new_id(), name, owner, DEFAULT_POOL, None, None, time.time())
                self._catalogue.add([record])
            try:
                self._remove(record)
            except EngineError as error:
                if not force or record.driver == DEFAULT_DRIVER or isinstance(error, Conflict):
                    raise
                logger.warning("forgetting a volume of a plugin", extra={"volume": name, "error": error})
                self._forgotten(record, keep=False)
                if isinstance(error, Refused):
                    raise

    def prune(self, filters: Mapping[str, Sequence[str]], api_version: tuple[int, int]) -> Pruned:
        """Remove the local volumes without options that nobody refers to: anonymous ones, or all if so filtered.

        Raises InvalidParameter for a bad filter, Conflict while another prune runs. Source: Docker Engine API,
        VolumePrune; before API 1.42 all means all.
        """
        wanted = parse_prune_filters(filters, api_version)
        if not self._pruning.acquire(blocking=False):
            raise Conflict("a prune operation is already running")
        try:
            names: list[str] = []
            reclaimed = 0
            for record in self._catalogue.all():
                if record.driver != DEFAULT_DRIVER or record.options or not self._lookup.passes(record, wanted):
                    continue
                with self._locks.hold(record.name):
                    if self._catalogue.get(record.name) != record or self._catalogue.is_referenced(record):
                        continue
                    size = max(0, self._local.size_bytes(record))
                    try:
                        self._remove(record)
                    except EngineError as error:
                        logger.warning("prune left a volume", extra={"volume": record.name, "error": error})
                        continue
                names.append(record.name)
                reclaimed += size
        finally:
            self._pruning.release()
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(tuple(names), reclaimed)

    def relabel(self, name: str, labels: Mapping[str, str] | None) -> Volume:
        """Replace the labels of a volume. Raises NotFound, System."""
        with self._locks.hold(name):
            return self._lookup.show(self._rewritten(self._catalogue.relabel(self._lookup.find(name), labels)))

    def protect(self, name: str, by: str) -> Volume:
        """Refuse every removal of a volume until `unprotect`; who protected it first stays. Raises NotFound, System."""
        with self._locks.hold(name):
            record = self._lookup.find(name)
            if not record.protected_by:
                record = self._rewritten(self._catalogue.protect(record, by, time.time()))
            return self._lookup.show(record)

    def unprotect(self, name: str) -> Volume:
        """Let a volume be removed again; one that is not protected is no error. Raises NotFound, System."""
        with self._locks.hold(name):
            return self._lookup.show(self._rewritten(self._catalogue.protect(self._lookup.find(name), "", 0.0)))

    def check(self, name: str) -> Sequence[Step]:
        """Find out whether a volume's data can be reached, step by step up to the first that fails. Raises NotFound.

        One of another driver is mounted and unmounted again.
        """
        asked_at = time.monotonic()
        with self._locks.hold(name):
            record = self._lookup.find(name)
            if record.driver == DEFAULT_DRIVER:
                return self._outages.check(record.id, asked_at, lambda: self._local.check(record))
            driver, mount_id = self._lookup.driver(record.driver), new_id()
            try:
                driver.mount(record, mount_id)
                driver.unmount(record, mount_id)
            except EngineError as error:
                return [Step("driver", False, str(error))]
            return [Step("driver", True, f"{record.driver} mounts it")]

    def disk_usage(self) -> Sequence[Usage]:
        """Measure every local volume without options."""
        return [
            Usage(self._lookup.show(record), len(self._catalogue.refs(record)), self._local.size_bytes(record))
            for record in self._catalogue.all()
            if record.driver == DEFAULT_DRIVER and not record.options
        ]

    # --- held and mounted by containers ---------------------------------------------------------------------------

    def attach(self, container_id: str, points: Sequence[MountPoint]) -> tuple[MountPoint, ...]:
        """Give a container its volumes: make what is missing and take the references, all of it or nothing.

        The points come back with volume names and sources filled in. Named volumes that were made stay if a later one
        fails, as with Docker; anonymous ones do not. Raises what `create` raises.
        """
        named = [
            replace(point, name=new_id(), labels={**(point.labels or {}), ANONYMOUS_LABEL: ""})
            if point.type == "volume" and not point.name
            else point
            for point in points
        ]
        wanted: dict[str, _Wanted] = {}
        for point in named:
            if point.type == "volume":
                known = wanted.get(point.name)
                wanted[point.name] = _Wanted(
                    point.name,
                    known.first if known else point,
                    point.anonymous and (known is None or known.anonymous),
                )
        if not wanted:
            return tuple(named)
        with contextlib.ExitStack() as held:
            for name in sorted(wanted):
                held.enter_context(self._locks.hold(name))
            records = self._attach(container_id, [wanted[name] for name in sorted(wanted)])
        return tuple(
            replace(
                point,
                source=self._lookup.driver(records[point.name].driver).mountpoint(records[point.name]),
                driver=records[point.name].driver,
            )
            if point.type == "volume"
            else point
            for point in named
        )

    def release(self, container_id: str, *, remove_anonymous: bool, auto_remove: bool = False) -> None:
        """Drop a container's references and, if asked, remove the anonymous volumes that nobody else holds.

        Those of a container that removes itself (`--rm`) do not go to the trash unless the policy says so. A volume
        that cannot be removed is logged and stays. Source: Docker Engine API, ContainerDelete `v`.
        """
        keep = not auto_remove or self._policy.keep_anonymous
        if remove_anonymous:
            for record, anonymous in self._catalogue.held_by(container_id):
                if anonymous and self._is_starting and record.driver != DEFAULT_DRIVER:
                    self._to_remove.append(record)  # its plugin may be silent, and the start waits for none
                elif anonymous:
                    self._remove_with(container_id, record, keep=keep)
        self._catalogue.release([container_id])

    def fill(self, point: MountPoint, rootfs: Path, layers: Sequence[Path] = ()) -> None:
        """Copy what the image has at the mount point's destination into its volume, if the volume is empty.

        `rootfs` is the container's mounted root and `layers` what it is mounted from, see `copyup.image_directory`.
        Interrupted or failed, it leaves the volume empty. Raises InvalidParameter, NotFound for a missing subpath,
        System in Docker's words. Source: Docker's guide "Volumes", populate a volume.
        """
        if point.type != "volume" or not point.copy_data:
            return
        mount_id, asked_at = new_id(), time.monotonic()
        with copyup.image_directory(rootfs, layers, point) as source, contextlib.ExitStack() as stack:
            if source is None:
                return
            stack.enter_context(self._locks.hold(point.name))
            record = self._lookup.find(point.name)
            driver = self._lookup.driver(record.driver)
            hands = driver.hands(record)
            try:
                with self._outages.attempt(record.id, asked_at):
                    path = self._mount(driver, record, mount_id)
                    stack.callback(driver.unmount, record, mount_id)
                    self._fills.before_use(record, driver.home(record), path, hands)
                    stage = driver.can_stage(record)
                    home = driver.home(record)
                    self._fills.fill(record, home, path, point.subpath, source, hands, can_stage=stage)
            except EngineError as error:
                raise error.within("failed to populate volume") from error

    def mount(self, container_id: str, point: MountPoint) -> Opened:
        """Make a volume's data reachable for a container that starts and open it, subpath applied.

        The caller closes the descriptor and passes the same point to `unmount` later. Raises NotFound for a volume or
        subpath that is gone, InvalidParameter for a subpath that escapes, MountFailed, System.
        """
        asked_at = time.monotonic()
        with self._locks.hold(point.name):
            record = self._lookup.find(point.name)
            driver = self._lookup.driver(record.driver)
            with self._outages.attempt(record.id, asked_at):
                path = self._mount(driver, record, point.mount_id or container_id)
                try:
                    self._fills.before_use(record, driver.home(record), path, driver.hands(record))
                    opened = _open_data(driver, record, path, point.subpath)
                    self._fills.note_use(record)
                except BaseException:
                    driver.unmount(record, point.mount_id or container_id)
                    raise
        self._events.publish(
            "volume",
            "mount",
            record.name,
            {
                "driver": record.driver,
                "container": container_id,
                "destination": point.destination,
                "read/write": "true" if point.rw else "false",
                "propagation": point.propagation,
            },
        )
        return opened

    def is_local(self, name: str) -> bool:
        """Tell whether there is a volume of this name, of the local driver."""
        record = self._catalogue.get(name)
        return record is not None and record.driver == DEFAULT_DRIVER

    def may_hang(self, name: str) -> bool:
        """Tell whether mounting the volume may have to wait for something that never answers."""
        record = self._catalogue.get(name)
        return record is not None and (record.driver != DEFAULT_DRIVER or self._local.may_hang(record))

    def hands_at(self, path: str) -> Hands:
        """Give who may touch a path of the host: what lies there may be on a server that is gone."""
        return self._local.hands_at(path)

    def unmount(self, container_id: str, point: MountPoint) -> None:
        """End what `mount` began. A volume that is gone is no error. Raises what the driver raises."""
        with self._locks.hold(point.name):
            record = self._catalogue.get(point.name)
            if record is None:
                return
            self._lookup.driver(record.driver).unmount(record, point.mount_id or container_id)
        self._events.publish("volume", "unmount", record.name, {"driver": record.driver, "container": container_id})

    def remount(self, container_id: str, point: MountPoint) -> None:
        """Count the mount of a container that runs on from an earlier engine; nothing is mounted, no event is sent."""
        with self._locks.hold(point.name):
            record = self._catalogue.get(point.name)
            if record is not None:
                self._lookup.driver(record.driver).adopt(record, point.mount_id or container_id)

    # --- after a restart ------------------------------------------------------------------------------------------

    def restore(self, containers: Collection[str]) -> None:
        """Bring catalogue and disk together after a start; `containers` are the ids of those that are recorded.

        See `volumes/restore`. References of containers that never came to be are dropped, with the anonymous volumes
        that were made for them.
        """
        self._plugged.remember()
        reconcile(self._catalogue, self._table, self._local)
        for container_id in self._catalogue.holders():
            if container_id not in containers:
                logger.info("releasing volumes of a container that never was", extra={"ref": container_id})
                self.release(container_id, remove_anonymous=True, auto_remove=True)
        self._fills.recover(self._data_of, {record.id for record in self._table.removed()})
        self._keeper.settle(self._table.unsettled())
        self._keeper.look_at_trash()

    def finish_start(self) -> None:
        """Undo what a dead engine left: mounts that no container uses, volumes that were never asked for.

        For after the start: storage and plugins may be silent. What stays is logged.
        """
        self._is_starting = False
        self._unmount_unused()
        self._plugged.settle(self._catalogue.get, self._settle_created)
        for record in self._to_remove:
            self._remove_with("", record, keep=False)

    def _unmount_unused(self) -> None:
        for name in sorted(self._local.mounted_names()):
            with self._locks.hold(name):
                record = self._catalogue.get(name)
                if record is None or record.driver != DEFAULT_DRIVER:
                    continue
                try:
                    self._local.unmount_unused(record)
                except EngineError as error:
                    logger.warning("volume stays mounted", extra={"volume": name, "error": error})

    def give_up_waiting(self) -> None:
        """Fail whatever waits for storage that does not answer, now and from now on: the engine stops."""
        self._plugged.close()
        self._local.close()

    def close(self) -> None:
        """Finish the background work that protects data, leave the rest to the next start."""
        self._plugged.close()
        self._local.close()
        self._fills.close()
        self._keeper.close()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _mount(self, driver: VolumeDriver, record: VolumeRecord, mount_id: str) -> Path:
        """Mount a volume whose lock is held; errors as Docker's."""
        try:
            return driver.mount(record, mount_id)
        except NotFound:
            raise
        except EngineError as error:
            raise error.within(f"error while mounting volume '{driver.mountpoint(record)}'") from error

    def _attach(self, container_id: str, wanted: Sequence[_Wanted]) -> dict[str, VolumeRecord]:
        """Make and reference volumes; the caller holds all their locks."""
        records: dict[str, VolumeRecord] = {}
        made: list[VolumeRecord] = []
        with contextlib.ExitStack() as undo:
            for want in wanted:
                point = want.first
                record, new = self._make(want.name, _asked_driver(point), point.options, point.labels)
                records[want.name] = record
                if new:
                    made.append(record)
                    undo.callback(self._unmake, record, keep=not want.anonymous)
            refs = [VolumeRef(records[want.name].id, container_id, want.anonymous) for want in wanted]
            self._record(made, refs)
            undo.pop_all()
        return records

    def _unmake(self, record: VolumeRecord, *, keep: bool) -> None:
        """Undo `_make`: Docker keeps a named volume whose container could not be created, an anonymous one goes."""
        if keep:
            self._record([record], [])
            return
        if record.driver == DEFAULT_DRIVER:
            self._local.unmake(record)
        else:
            self._plugged.driver(record.driver).remove(record)

    def _make(
        self, name: str, driver_name: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None
    ) -> tuple[VolumeRecord, bool]:
        """Give the volume of this name and whether the driver made it now; the caller holds the lock and records it."""
        known = self._catalogue.get(name)
        try:
            driver = self._lookup.driver_for(name, driver_name, known, labels)
            if known is not None:
                if self._lookup.is_there(known, driver):
                    return known, False
                logger.warning("volume is gone from its plugin", extra={"volume": name, "plugin": known.driver})
                self._forgotten(known, keep=False)
            record = VolumeRecord(new_id(), name, driver.name, DEFAULT_POOL, labels, options, time.time())
            if isinstance(driver, PluginDriver) and driver.find(name) is not None:
                self._record([record], [])
                return record, False
            driver.validate(name, options)
            driver.create(record)
        except EngineError as error:
            raise error.within(f"create {name}") from error
        return record, True

    def _record(self, records: Sequence[VolumeRecord], refs: Sequence[VolumeRef]) -> None:
        """Record what drivers made, then tell."""
        if records:
            faults.point("volume-created-not-recorded")
        self._catalogue.add(records, refs)
        local = [record for record in records if record.driver == DEFAULT_DRIVER]
        self._keeper.settle(local)
        for record in records:
            if record.driver != DEFAULT_DRIVER:
                self._plugged.driver(record.driver).recorded(record)
        if records:
            faults.point("volume-recorded-not-told")
        for record in records:
            self._events.publish("volume", "create", record.name, {"driver": record.driver})

    def _remove_with(self, container_id: str, record: VolumeRecord, *, keep: bool) -> None:
        """Remove an anonymous volume unless another container holds it; references go with it, in one transaction."""
        with self._locks.hold(record.name):
            others = [ref for ref in self._catalogue.refs(record) if ref != container_id]
            if self._catalogue.get(record.name) != record or others:
                return
            try:
                self._remove(record, keep=keep, holder=container_id)
            except EngineError as error:
                logger.warning(
                    "anonymous volume stays", extra={"volume": record.name, "ref": container_id, "error": error}
                )

    def _remove(self, record: VolumeRecord, *, keep: bool = True, holder: str = "") -> None:
        """Remove one volume, into the trash if it is to be kept; the caller holds its lock.

        `holder` is the container that goes with it: its reference does not count.
        """
        refs = [ref for ref in self._catalogue.refs(record) if ref != holder]
        if refs:
            raise Conflict(
                f"remove {record.name}: volume is in use - [{', '.join(refs)}]",
                hint="remove the containers that use it first",
            )
        if record.protected_by:
            raise Conflict(
                f"remove {record.name}: volume is protected by {record.protected_by} since "
                f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(record.protected_at))}",
                hint=f"holdfast volume unprotect {record.name}",
            )
        faults.point("volume-removing")
        try:
            self._lookup.driver(record.driver).remove(record)
        except EngineError as error:
            raise error.within(f"remove {record.name}") from error
        faults.point("volume-removed-not-forgotten")
        self._forgotten(record, keep=keep)

    def _forgotten(self, record: VolumeRecord, *, keep: bool) -> None:
        """Note that a volume is removed, and tell. What a plugin removed is not in the trash: it kept nothing."""
        now = time.time()
        if record.driver != DEFAULT_DRIVER:
            self._plugged.forget(record)
            self._catalogue.lose(record)
            self.trash.note_lost(record, now)
        else:
            self._catalogue.remove(record, now, now + self._policy.keep_s if keep else now)
            self._keeper.look_at_trash()
        self._events.publish("volume", "destroy", record.name, {"driver": record.driver})

    def _rewritten(self, record: VolumeRecord) -> VolumeRecord:
        """Bring the copy of the record that lies beside the data up to date."""
        if record.driver == DEFAULT_DRIVER:
            try:
                self._local.rewrite(record)
            except OSError as error:
                logger.warning("record beside the data is old", extra={"volume": record.name, "error": error})
            else:
                self._keeper.settle([record])
        return record

    def _settle_created(self, record: VolumeRecord, anonymous: bool) -> None:
        """Record a volume that a plugin made for an engine that died; nobody ever had an anonymous one."""
        with self._locks.hold(record.name):
            if self._catalogue.get(record.name) is not None:
                return
            if anonymous:
                self._plugged.driver(record.driver).remove(record)
            else:
                self._record([record], [])

    def _settle_restored(self, record: VolumeRecord) -> None:
        if record.driver == DEFAULT_DRIVER:
            self._fills.take_back(record, Path(self._local.mountpoint(record)))

    def _data_of(self, volume_id: str) -> tuple[VolumeRecord, Path] | None:
        """Give a volume and the path of its data, as far as that is known."""
        for record in self._catalogue.all():
            if record.id == volume_id:
                return record, Path(self._lookup.driver(record.driver).mountpoint(record))
        return None



def _asked_driver(point: MountPoint) -> str:
    """Give the driver to ask for: a point that names no driver takes whatever the volume has."""
    return "" if point.driver == DEFAULT_DRIVER else point.driver


def _open_data(driver: VolumeDriver, record: VolumeRecord, data: Path, at: str) -> Opened:
    """Open a volume's mounted data, or `at` in it, which is made where the volume's options say so."""
    create = subpath.of_options(record.options)
    try:
        return driver.open(record, at)
    except NotFound:
        if create is None:
            raise
    hands = driver.hands(record)
    mode, (fd,) = hands.do(subpath.make_data, (), os.fspath(data), at, *astuple(create))
    assert isinstance(mode, int)
    return Opened(fd, mode, hands)
