"""Images from and to registries, and what a registry says when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast import log
from holdfast.errors import InvalidParameter, NotFound
from holdfast.events import EventBus
from holdfast.images import distribution, login, pulling, pushing, reference, skopeo
from holdfast.images.distribution import Distribution
from holdfast.images.failures import failing_as
from holdfast.images.files import ImageFiles
from holdfast.images.intake import Intake
from holdfast.images.model import Image
from holdfast.images.progress import Progress, nowhere, status
from holdfast.images.skopeo import Credentials
from holdfast.locks import NamedLocks
from holdfast.store.images import ImageTable

logger = log.get(__name__)

Resolve = Callable[[str, str], Image]
"""Finds an image by name, for a platform ("": any). Raises NotFound, InvalidParameter."""


class Registries:
    """The part of the image service that asks others. Calls block; errors are in Docker's words."""

    def __init__(
        self, files: ImageFiles, intake: Intake, table: ImageTable, events: EventBus, resolve: Resolve
    ) -> None:
        self._files = files
        self._intake = intake
        self._table = table
        self._events = events
        self._resolve = resolve
        self._pulls = NamedLocks()

    def pull(
        self,
        name: str,
        tag: str = "",
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress = nowhere,
    ) -> str:
        """Get an image from its registry, unless it is here already; gives its id.

        `tag` may be a digest and wins over one in `name`. Raises InvalidParameter, NotFound (no such image, or no
        access), Unauthorized, System. Source: Docker Engine API, operationId ImageCreate.
        """
        wanted = pulling.wanted_reference(name, tag)
        pulled = self._pull(wanted, platform, credentials or Credentials(), progress)
        pulling.finish(wanted.familiar, [pulled], progress)
        return pulled.id

    def pull_all(
        self, name: str, *, platform: str = "", credentials: Credentials | None = None, progress: Progress = nowhere
    ) -> Sequence[str]:
        """Get every tag that a registry has of a repository; gives their images' ids. Raises as `pull`."""
        repository = reference.parse(name)
        who = credentials or Credentials()
        tags = skopeo.list_tags(repository, who)
        if not tags:
            raise NotFound(f"manifest for {repository.familiar_name} not found: manifest unknown: manifest unknown")
        pulled = [self._pull(repository.with_tag(tag), platform, who, progress) for tag in tags]
        pulling.finish(repository.familiar, pulled, progress)
        return [each.id for each in pulled]

    def _pull(
        self, wanted: reference.Reference, platform: str, credentials: Credentials, progress: Progress
    ) -> pulling.Pulled:
        with self._pulls.hold(str(wanted)), failing_as("pull image"):
            pulled = pulling.pull(self._files, self._intake, self._table, wanted, platform, credentials, progress)
        self._events.publish(
            "image", "pull", wanted.familiar, {**(pulled.labels or {}), "name": wanted.familiar_name}
        )
        return pulled

    def push(
        self, name: str, tag: str = "", *, platform: str = "", credentials: Credentials | None = None,
        progress: Progress = nowhere,
    ) -> None:
        """Send an image to its registry under `tag`, or that of `name`, or (neither) every tag of the repository.

        Raises NotFound, InvalidParameter, Unauthorized, System; all but the first two after the first message.
        Source: Docker Engine API, operationId ImagePush.
        """
        named = reference.parse(name)
        if tag:
            named = named.with_tag(tag)
        if platform and not named.digest:
            self._resolve(named.tagged().familiar, platform)
        progress(status(f"The push refers to repository [{named.name}]"))
        if named.digest:
            raise InvalidParameter("cannot push a digest reference")
        found = self._tags_of_repository(named)
        wanted = [each for each in found if each == named] if named.tag else found
        if not wanted:
            raise NotFound(f"tag does not exist: {named.familiar}")
        for each in wanted:
            image = self._resolve(each.familiar, "")
            with failing_as("push image"):
                digest = pushing.push(self._files, self._table, image, each, credentials or Credentials(), progress)
            logger.info("image pushed", extra={"image": image.id, "reference": str(each), "digest": digest})
            self._events.publish("image", "push", each.familiar, {**(image.labels or {}), "name": each.familiar_name})

    def log_in(self, server: str, credentials: Credentials) -> str:
        """Present credentials to a registry; gives the token that stands for them, if it issues one.

        Raises InvalidParameter, Unauthorized, Unsupported, System. Source: Docker Engine API, operationId SystemAuth.
        """
        return login.log_in(server, credentials)

    def distribution(self, name: str, credentials: Credentials) -> Distribution:
        """Ask a registry what it has under a name; see `distribution.look_up`."""
        with failing_as("inspect distribution"):
            return distribution.look_up(self._files, self._table, name, credentials)

    def _tags_of_repository(self, named: reference.Reference) -> Sequence[reference.Reference]:
        found = []
        for record in self._table.all():
            for text in record.tags:
                stored = reference.parse_stored(text)
                if stored.name == named.name:
                    found.append(stored)
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {named.familiar_name}")
        return found
