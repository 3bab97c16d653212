"""The images of this engine: found, named, listed, loaded, saved, imported, made of containers and removed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import log
from holdfast.errors import InvalidParameter, NotFound, System
from holdfast.events import EventBus
from holdfast.images import directory as image_directory
from holdfast.images import history, importing, loading, reference, removal, saving
from holdfast.images.failures import failing_as
from holdfast.images.files import ImageFiles
from holdfast.images.filters import ImageFilters, parse_list_filters, parse_prune_filters
from holdfast.images.intake import Intake
from holdfast.images.model import LAYERS_MAX, Image, from_record
from holdfast.images.platforms import mismatch_of, parse_platform, platform_of
from holdfast.images.progress import Progress, nowhere, status
from holdfast.images.registries import Registries
from holdfast.store import Store

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.images.tarstream import Readable

logger = log.get(__name__)

InUse = Callable[[str], Sequence[tuple[str, bool]]]
"""Takes an image id and gives the containers made from it: (container id, whether it runs)."""

Records = list[dict[str, str]]
"""What a removal did: `Untagged` with a name, `Deleted` with an id."""
Steps = list[history.HistoryEntry]
Users = list[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image with the names that passed the filters. -1 stands for what was not asked for."""

    image: Image
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    shared_size_bytes: int = -1
    containers: int = -1


Listing = list[ListedImage]


class Images:
    """The image service. Calls block; errors are in Docker's words. Safe from any thread.

    `registries` is the part of it that asks registries.
    """

    def __init__(self, config: Config, store: Store, events: EventBus) -> None:
        """Serve the images in `store`; `restore` must be called before anything else."""
        self.in_use_by: InUse = lambda _: ()
        self._table = store.images
        self._events = events
        self._files = ImageFiles(config.state_root)
        self._intake = Intake(self._files, self._table)
        self.registries = Registries(self._files, self._intake, self._table, events, self.resolve_for)
        self._held: Counter[str] = Counter()
        self._held_guard = threading.Lock()

    def restore(self) -> None:
        """Make the directories and remove what a dead engine left unfinished. Raises OSError."""
        self._files.make()
        self._remove_hidden()
        with self._intake.guard:
            removed = self._files.sweep(self._table.blobs(), set(self._table.layer_sizes()))
        if removed:
            logger.info("unfinished images removed", extra={"entries": removed})

    # -- finding -------------------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> Image:
        """Find an image by name, digest, id or the unambiguous beginning of an id; a name wins over an id.

        Raises NotFound (`No such image: nope:latest`), InvalidParameter for what can be no name.
        Source: Docker Engine, `GetImage`.
        """
        image_id = self._find(name)
        record = None if image_id is None else self._table.get(image_id)
        if record is None or record.hidden:
            raise NotFound(f"No such image: {_shown(name)}")
        return from_record(record)

    def get(self, image_id: str) -> Image:
        """Give an image by its whole id, even one that was removed by force under a container. Raises NotFound."""
        record = self._table.get(image_id)
        if record is None:
            raise NotFound(f"No such image: {image_id}")
        return from_record(record)

    @contextmanager
    def held(self, name: str, platform: str = "") -> Iterator[Image]:
        """Find an image and keep it and its layers for the length of the block, until a container is recorded.

        Raises as `resolve_for`.
        """
        with self._intake.guard:
            image = self.resolve_for(name, platform)
            with self._held_guard:
                self._held[image.id] += 1
        try:
            yield image
        finally:
            with self._held_guard:
                self._held[image.id] -= 1
                if not self._held[image.id]:
                    del self._held[image.id]

    def resolve_for(self, name: str, platform: str) -> Image:
        """Find an image as `resolve` does, for one platform ("": any). Raises NotFound if it is for another one."""
        wanted = parse_platform(platform)
        image = self.resolve(name)
        if platform and not wanted.accepts(platform_of(image.config)):
            raise NotFound(mismatch_of(name, platform_of(image.config), wanted))
        return image

    def layers_of(self, image: Image) -> tuple[Path, ...]:
        """The directories of an image's layers, topmost first."""
        return tuple(self._files.layer(chain_id) for chain_id in reversed(image.layers))

    def history(self, name: str, platform: str = "") -> tuple[Image, Steps]:
        """Give an image and the steps that made it, the newest first. Raises as `resolve_for`."""
        image = self.resolve_for(name, platform)
        sizes = [layer.size_bytes for layer in self._table.layers_of(image.id)]
        ancestors: list[Image] = []
        parent_id = image.parent_id
        while parent_id and len(ancestors) < LAYERS_MAX and (record := self._table.get(parent_id)) is not None:
            ancestors.append(from_record(record))
            parent_id = record.parent_id
        return image, history.of(image, sizes, ancestors)

    def count(self) -> int:
        """How many images there are."""
        return self._table.count()

    def list(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, everything: bool = False, shared_size: bool = False
    ) -> Listing:
        """Give the images that pass Docker's filters, newest first, with the number of their containers.

        One without names that others were made from is left out unless `everything` is asked for. Raises
        InvalidParameter, NotFound (`before`), System.
        """
        wanted = parse_list_filters(filters or {}, lambda name: self.resolve(name).created_at, time.time())
        return self._listed(wanted, everything=everything, shared_size=shared_size, containers=True)

    def disk_usage(self) -> Listing:
        """Give every image with its shared size and the number of its containers, for `system df`."""
        return self._listed(ImageFilters(), everything=True, shared_size=True, containers=True)

    def layers_size(self) -> int:
        """Size in bytes of the files of all layers, each counted once."""
        return sum(size for size, _ in self._table.layer_sizes().values())

    # -- changing ------------------------------------------------------------------------------------------------------

    def tag(self, name: str, repository: str, tag: str = "") -> str:
        """Give an image another name, taking it from whichever had it; gives the familiar form of the new name.

        Raises NotFound, InvalidParameter. Source: Docker Engine API, operationId ImageTag.
        """
        new = _tag_reference(repository, tag)
        with self._intake.guard:
            image = self.resolve(name)
            self._table.tag(str(new), image.id, time.time())
        self._tell("tag", image.id, new.familiar, image.labels)
        return new.familiar

    def remove(self, name: str, *, force: bool = False, noprune: bool = False) -> Records:
        """Take a name from an image, and with the last one the image; gives `Untagged` and `Deleted` records.

        What it was made from goes too if nothing else needs it, unless `noprune`. Raises NotFound, InvalidParameter,
        Conflict. Source: Docker Engine API, operationId ImageDelete.
        """
        with self._intake.guard, failing_as("remove image"):
            image = self.resolve(name)
            has_children = bool(self._table.children_of(image.id))
            plan = removal.plan(name, image, self._users(image.id), force=force, has_children=has_children)
            return self._carry_out(plan, prune=not noprune)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Records, int]:
        """Remove images without names, or (`dangling=false`) all that no container uses; gives records and bytes freed.

        Raises InvalidParameter. Source: Docker Engine API, operationId ImagePrune.
        """
        wanted = parse_prune_filters(filters or {}, time.time())
        records: Records = []
        with self._intake.guard, failing_as("prune images"):
            before = self.layers_size()
            for listed in self._listed(wanted, everything=False, shared_size=False, containers=False):
                if not self._users(listed.image.id) and not self._table.children_of(listed.image.id):
                    records += self._carry_out(removal.everything(listed.image), prune=True)
            freed = before - self.layers_size()
        self._events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return records, freed

    def container_removed(self, image_id: str) -> None:
        """Say that the record of a container of this image is gone: what was only kept for it goes. Raises System."""
        if image_id in self._table.hidden():
            self._remove_hidden()

    # -- moving images in and out --------------------------------------------------------------------------------------

    def load(self, archive: Readable, progress: Progress = nowhere, *, quiet: bool = False, platform: str = "") -> None:
        """Load the images of an archive. What came before an error stays loaded.

        Raises InvalidParameter for a bad archive, System. Source: Docker Engine API, operationId ImageLoad.
        """
        with failing_as("load image"):
            for image_id, labels in loading.load(
                self._files, self._intake, archive, progress, quiet=quiet, platform=platform
            ):
                self._tell("load", image_id, image_id, labels)

    def save(self, names: Sequence[str], write: Callable[[bytes], object], *, platform: str = "") -> None:
        """Write an archive of images, given by name or id, piece by piece; with `platform` they must be for that one.

        Raises NotFound, InvalidParameter or System before the first piece. Source: Docker Engine API, operationId
        ImageGetAll.
        """
        chosen = [(image, saving.tags_for(name, image)) for name in names for image in [self._to_save(name)]]
        wanted = parse_platform(platform)
        if platform and not all(wanted.accepts(platform_of(image.config)) for image, _ in chosen):
            raise System(f"no suitable export target found for platform {wanted}")
        with failing_as("save image"):
            saving.save(self._files, self._table, chosen, write)
        for image, _ in chosen:
            self._tell("save", image.id, image.id, image.labels)

    def _to_save(self, name: str) -> Image:
        """Find an image to write; where there is none, Docker says so in other words than elsewhere."""
        try:
            return self.resolve(name)
        except InvalidParameter as error:
            raise System(str(error)) from None
        except NotFound:
            tagged = ":" in name.rpartition("/")[2]
            raise NotFound("reference does not exist" if tagged else f"No such image: {name}") from None

    def import_(self, archive: Readable, wanted: importing.NewImage, progress: Progress = nowhere) -> str:
        """Make an image of one layer from a root file system in a tar; gives its id.

        Raises InvalidParameter, System. Source: Docker Engine API, operationId ImageCreate.
        """
        return self._import(importing.from_stream(archive), wanted, wanted.describe("-"), progress)

    def import_url(self, url: str, wanted: importing.NewImage, progress: Progress = nowhere) -> str:
        """Fetch a root file system, by HTTP or HTTPS, and do the same with it. Raises NotFound, too."""
        return self._import(importing.from_url(url, progress), wanted, wanted.describe(url), progress)

    def _import(
        self, source: importing.Source, wanted: importing.NewImage, description: importing.Description,
        progress: Progress,
    ) -> str:
        new = _tag_reference(wanted.repository, wanted.tag) if wanted.repository else None
        with failing_as("import image"):
            image_id, labels = importing.import_layer(self._files, self._intake, source, new, description)
        progress(status(image_id))
        if new is not None:
            self._tell("tag", image_id, new.familiar, labels)
        self._tell("import", image_id, image_id, labels)
        return image_id

    def commit(
        self, parent_id: str, changed: importing.Source, repository: str, tag: str, description: importing.Description
    ) -> str:
        """Make an image of another and a layer on top of it, as a tar with whiteouts; gives its id.

        Raises InvalidParameter, NotFound, System. Source: Docker Engine API, operationId ImageCommit.
        """
        new = _tag_reference(repository, tag) if repository else None
        parent = self.get(parent_id)
        if parent_id in self._table.hidden():
            parent = replace(parent, id="")  # no name leads there any more
        layers = self._table.layers_of(parent_id)
        with failing_as("commit image"):
            image_id, labels = importing.import_layer(
                self._files, self._intake, changed, new, description, parent=parent, parent_layers=layers
            )
        self._tell("create", image_id, image_id, labels)
        if new is not None:
            self._tell("tag", image_id, new.familiar, labels)
        return image_id

    def check_name(self, repository: str, tag: str = "") -> str:
        """Check the name of an image that is to be made; gives its familiar form. Raises InvalidParameter."""
        return _tag_reference(repository, tag).familiar

    # -- for a builder, which has a store of its own -----------------------------------------------------------------

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory on the file system of the images, for the length of the block. Raises OSError."""
        with self._files.workspace() as path:
            yield path

    def lay_out(self, image: Image, directory: Path) -> None:
        """Lay an image out as `dir:` in a new directory of a workspace. Raises NotFound if it is gone, System."""
        record = self._table.get(image.id)
        if record is None:
            raise NotFound(f"No such image: {image.id}")
        with failing_as("lay out image"):
            image_directory.lay_out(self._files, self._table, record, self._table.layers_of(image.id), directory)

    def take_in(self, directory: Path, tags: Sequence[str], workspace: Path) -> str:
        """Add the image that was laid out in a directory of `workspace`, and name it; gives its id.

        Raises InvalidParameter, System.
        """
        names = [_tag_reference(tag, "") for tag in tags]
        with failing_as("add image"):
            image_id, _ = image_directory.take_in(self._intake, directory, names, workspace)
        return image_id

    # -- inner ---------------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> str | None:
        if reference.is_image_id(name):
            return name
        if reference.is_image_id(f"sha256:{name}"):
            return f"sha256:{name}"
        parsed = reference.parse(name)
        if parsed.digest:
            found = self._table.find_digest(str(parsed.with_digest(parsed.digest)))
        else:
            found = self._table.find_tag(str(parsed.tagged()))
        digits = reference.id_prefix(name)
        if found is None and digits is not None:
            ids = self._table.find_prefix(digits)
            found = ids[0] if len(ids) == 1 else None
        return found

    def _remove_hidden(self) -> None:
        with self._held_guard:
            held = tuple(self._held)
        with failing_as("remove image"):
            self._intake.remove_hidden(held)

    def _listed(self, filters: ImageFilters, *, everything: bool, shared_size: bool, containers: bool) -> Listing:
        listed: Listing = []
        sizes = self._table.layer_sizes() if shared_size else {}
        records = self._table.all()
        parents = {record.parent_id for record in records}
        for record in records:
            image = from_record(record)
            names = filters.match(image)
            if not everything and image.id in parents and not image.tags and not image.digests:
                continue
            if names is not None:
                shared = sum(sizes[chain][0] for chain in image.layers if chain in sizes and sizes[chain][1] > 1)
                listed.append(
                    ListedImage(
                        image,
                        *names,
                        shared_size_bytes=shared if shared_size else -1,
                        containers=len(self.in_use_by(image.id)) if containers else -1,
                    )
                )
        return listed

    def _users(self, image_id: str) -> Users:
        with self._held_guard:
            held = self._held.get(image_id, 0)
        return [*self.in_use_by(image_id), *[("0" * 64, True)] * held]

    def _carry_out(self, plan: removal.Plan, *, prune: bool) -> Records:
        """Do what was planned, under the intake's guard; gives the records of the API."""
        image = plan.image
        records: Records = []
        if plan.untag:
            self._table.untag([str(reference.parse(name)) for name in plan.untag])
            for name in plan.untag:
                self._tell("untag", image.id, image.id, image.labels)
                records.append({"Untagged": name})
        if plan.delete:
            unused = self._intake.remove(image.id, keep_hidden=bool(self._users(image.id)))
            self._tell("delete", image.id, image.id, None)
            records.append({"Deleted": image.id})
            gone = frozenset(unused.layers)
            records += [{"Deleted": chain_id} for chain_id in reversed(image.layers) if chain_id in gone]
            if prune and image.parent_id:
                records += self._prune_parent(image.parent_id)
        return records

    def _prune_parent(self, image_id: str) -> Records:
        """Remove what a removed image was made from, if no name, image or container needs it."""
        record = self._table.get(image_id)
        if record is None or record.hidden or record.tags or record.digests:
            return []
        if self._table.children_of(image_id) or self._users(image_id):
            return []
        return self._carry_out(removal.everything(from_record(record)), prune=True)

    def _tell(self, action: str, image_id: str, name: str, labels: Mapping[str, str] | None) -> None:
        self._events.publish("image", action, image_id, {**(labels or {}), "name": name})


def _shown(name: str) -> str:
    """A name as Docker's `No such image` shows it."""
    if reference.is_image_id(name):
        return name
    if reference.is_image_id(f"sha256:{name}"):
        return f"sha256:{name}"
    return reference.parse(name).tagged().familiar


def _tag_reference(repository: str, tag: str) -> reference.Reference:
    """Parse a name for an image and its tag, which wins over one in the name. Raises InvalidParameter."""
    parsed = reference.parse(repository)
    if parsed.digest:
        raise InvalidParameter("cannot import digest reference")
    return parsed.with_tag(tag) if tag else parsed.tagged()
