"""What volumes there are, across the catalogue and all drivers: which one a name means, and what is shown of it.

The catalogue knows the volumes that were made or used here. Plugins may have more, and may have lost some: see
`plugged`. Callers hold the volume's lock where they go on to change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.errors import Conflict, EngineError, NotFound
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes.catalogue import Catalogue
from holdfast.volumes.drivers.base import DriverVolume, VolumeDriver
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.filters import VolumeFilters, parse_list_filters
from holdfast.volumes.model import ANONYMOUS_LABEL, Volume
from holdfast.volumes.mounts import DEFAULT_DRIVER
from holdfast.volumes.plugged import Plugged
from holdfast.volumes.restore import DEFAULT_POOL


class Lookup:
    """Finds volumes and drivers. Safe from any thread."""

    def __init__(self, catalogue: Catalogue, local: LocalDriver, plugged: Plugged) -> None:
        self._catalogue = catalogue
        self._local = local
        self._plugged = plugged

    def find(self, name: str) -> VolumeRecord:
        """Give the recorded volume of exactly this name. Raises NotFound."""
        record = self._catalogue.get(name)
        if record is None:
            raise _missing(name)
        return record

    def inspect(self, name: str) -> Volume:
        """Give the volume of exactly this name, as its plugin sees it now where it is of one.

        Raises NotFound, also where the plugin does not have it any more, System where the plugin does not answer.
        Source: Docker Engine API, VolumeInspect.
        """
        record = self._catalogue.get(name)
        if record is None:
            self._plugged.look()
            found = next((volume for volume in self.foreign() if volume.name == name), None)
            if found is None:
                raise _missing(name)
            record = found.record
        if record.driver == DEFAULT_DRIVER:
            return self.show(record)
        driver = self._plugged.driver(record.driver)
        try:
            reported = driver.find(name)
        except EngineError as error:
            if isinstance(error, NotFound):
                raise error.within(f"get {name}") from None
            raise error.within(
                f'get {name}: error while checking if volume "{name}" exists in driver "{record.driver}"'
            ) from None
        if reported is None:
            raise NotFound(f"get {name}: no such volume", hint=f"the plugin {record.driver} does not have it any more")
        if record.id:
            driver.note_path(record, reported.mountpoint)
        return self.show(record, reported)

    def look(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[Volume], Sequence[str]]:
        """Give the volumes that pass Docker's filters, by name, and warnings for plugins that are silent.

        What plugins have by themselves is among them. Raises InvalidParameter for a bad filter.
        Source: Docker Engine API, VolumeList.
        """
        wanted = parse_list_filters(filters or {})
        known = self._catalogue.all()
        warnings = self._plugged.look(frozenset(record.driver for record in known) - {DEFAULT_DRIVER})
        volumes = [
            self.show(record, self._plugged.reported(record.driver, record.name))
            for record in known
            if self.passes(record, wanted)
        ]
        foreign = [volume for volume in self.foreign() if self.passes(volume.record, wanted)]
        if foreign:
            volumes = sorted([*volumes, *foreign], key=lambda volume: volume.name)
        return volumes, warnings

    def show(self, record: VolumeRecord, reported: DriverVolume | None = None) -> Volume:
        """Give a volume as callers see it, with what its driver reported of it."""
        driver = self.driver(record.driver)
        status: dict[str, Any] = {"ProtectedBy": record.protected_by} if record.protected_by else {}
        mountpoint = driver.mountpoint(record)
        if reported is not None:
            status = {**(reported.status or {}), **status}
            mountpoint = reported.mountpoint or mountpoint
            record = replace(record, created_at=reported.created_at or record.created_at)
        return Volume(record, mountpoint, driver.capabilities.scope, status or None)

    def driver(self, name: str) -> VolumeDriver:
        """Give the driver of a recorded volume, by name; its plugin need not be there."""
        return self._local if name == DEFAULT_DRIVER else self._plugged.driver(name)

    def driver_for(
        self, name: str, driver_name: str, known: VolumeRecord | None, labels: Mapping[str, str] | None
    ) -> VolumeDriver:
        """Give the driver that a volume is to be of; without a name it is the one that has the volume. Raises NotFound.
        """
        if not driver_name and known is not None:
            return self.driver(known.driver)
        if not driver_name and ANONYMOUS_LABEL not in (labels or {}):
            self._plugged.look()
            driver_name = self._plugged.owner_of(name)
        driver_name = driver_name or DEFAULT_DRIVER
        return self._local if driver_name == DEFAULT_DRIVER else self._plugged.find(driver_name)

    def is_there(self, known: VolumeRecord, driver: VolumeDriver) -> bool:
        """Tell whether a volume is still there: a plugin may have lost it.

        Raises Conflict, in Docker's words, if it is of another driver, if that cannot be told, or if containers refer
        to one that is gone. Source: moby, volume/service, checkConflict.
        """
        name = known.name
        if known.driver == DEFAULT_DRIVER:
            is_there = True
        else:
            try:
                is_there = self._plugged.driver(known.driver).find(name) is not None
            except EngineError as error:
                raise Conflict(
                    f"found reference to volume '{name}' in driver '{known.driver}', but got an error while checking "
                    f"the driver: {error}: volume name must be unique",
                    hint=f"docker volume rm --force {name} forgets it",
                ) from None
        if is_there and known.driver != driver.name:
            raise Conflict(f"driver '{known.driver}' already has volume '{name}': volume name must be unique")
        if is_there:
            return True
        if self._catalogue.is_referenced(known):
            raise Conflict(
                f"found references to volume '{name}' in driver '{known.driver}' but the volume was not found in the "
                "driver -- you may need to remove containers referencing this volume or force remove the volume to "
                "re-create it: volume name must be unique"
            )
        return False

    def foreign(self) -> Sequence[Volume]:
        """Give what plugins have that is in no catalogue, from memory; of one name the first."""
        found: dict[str, Volume] = {}
        for driver, reported in self._plugged.foreign():
            name = reported.name
            if name not in found and self._catalogue.get(name) is None:
                found[name] = self.show(VolumeRecord("", name, driver, DEFAULT_POOL, None, None, 0.0), reported)
        return list(found.values())

    def passes(self, record: VolumeRecord, filters: VolumeFilters) -> bool:
        """Tell whether a volume passes."""
        return filters.match(record, referenced=self._catalogue.is_referenced(record))


def _missing(name: str) -> NotFound:
    return NotFound(f"get {name}: no such volume" if name else "get: no such volume")
