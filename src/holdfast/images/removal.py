"""What `docker rmi` takes away and when it refuses. Pure. Source: Docker Engine, `ImageDelete`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import Conflict
from holdfast.images import reference
from holdfast.images.model import Image

Users = Sequence[tuple[str, bool]]
"""Containers of an image: (id, whether it runs)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Names (familiar) to take away, and whether the image goes as well."""

    image: Image
    untag: tuple[str, ...]
    delete: bool


def plan(name: str, image: Image, users: Users, *, force: bool, has_children: bool = False) -> Plan:
    """Decide what removing `name`, which led to `image`, comes to. Raises Conflict in Docker's words.

    A name goes alone while others are left, digests of its repository with its last tag. An id takes all names with it
    if they are of one repository. Images made from it and a running container keep the image in any case, a stopped
    one unless `force`.
    """
    if image.is_named_by_id(name):
        if has_children:
            raise _conflict(image, "cannot be forced", "image has dependent child images")
        referenced = not _is_single(image) and bool(image.tags or image.digests)
        _check(image, users, force=force, referenced=referenced)
        return everything(image)
    if users and not force and _is_single(image):
        raise Conflict(
            f'conflict: unable to remove repository reference "{name}" (must force) - container'
            f" {reference.short_id(users[0][0])} is using its referenced image {image.short_id}"
        )
    given = reference.parse(name).tagged()
    untag = [given.with_digest(given.digest).familiar if given.digest else given.familiar]
    left = [text for text in (*image.tags, *image.digests) if text not in untag]
    if not given.digest and not any(_repository(text) == given.name for text in left if text in image.tags):
        follow = [text for text in left if _repository(text) == given.name]
        untag += follow
        left = [text for text in left if text not in follow]
    if left:
        return Plan(image, tuple(untag), delete=False)
    running = any(runs for _, runs in users)
    return Plan(image, tuple(untag), delete=not has_children and not running and (force or not users))


def everything(image: Image) -> Plan:
    """Take an image away with all its names."""
    return Plan(image, (*image.tags, *image.digests), delete=True)


def _check(image: Image, users: Users, *, force: bool, referenced: bool) -> None:
    running = [container_id for container_id, runs in users if runs]
    if running:
        raise _conflict(
            image, "cannot be forced", f"image is being used by running container {reference.short_id(running[0])}"
        )
    if force:
        return
    if referenced:
        raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
    if users:
        raise _conflict(
            image, "must be forced", f"image is being used by stopped container {reference.short_id(users[0][0])}"
        )


def _conflict(image: Image, force: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {image.short_id} ({force}) - {why}")


def _is_single(image: Image) -> bool:
    """Whether all names of an image are one: none or one tag, and digests of the same repository only."""
    if len(image.tags) + len(image.digests) <= 1:
        return True
    if len(image.tags) > 1:
        return False
    repositories = {_repository(text) for text in image.digests}
    first = _repository(image.tags[0] if image.tags else image.digests[0])
    return repositories == {first}


def _repository(name: str) -> str:
    return reference.parse(name).name
