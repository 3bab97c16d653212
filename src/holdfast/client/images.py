"""`/images` of the engine's API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from holdfast.client.document import Document
from holdfast.client.http import Response
from holdfast.client.transport import Transport, segment

Filters = Mapping[str, list[str]]


class Images:
    """Calls about images. Progress comes as a stream of objects. Source: Docker Engine API, tag Image."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def find(
        self, filters: Filters | None = None, *, everything: bool = False, digests: bool = False
    ) -> list[Document]:
        """The images, newest first; intermediate ones too with `everything`."""
        query = {"all": everything, "digests": digests, "filters": filters}
        return self._transport.get_list("/images/json", query)

    def get(self, reference: str) -> Document:
        """Inspect an image."""
        return self._transport.get(f"/images/{segment(reference)}/json")

    def history(self, reference: str) -> list[Document]:
        """How it was built, newest layer first."""
        return self._transport.get_list(f"/images/{segment(reference)}/history")

    def pull(self, repository: str, tag: str, *, platform: str = "", auth: str = "") -> Iterator[Document]:
        """Fetch from a registry; `tag` may be a digest, "" is every tag. `auth` is the header `X-Registry-Auth`."""
        query = {"fromImage": repository, "tag": tag, "platform": platform}
        return self._transport.stream("POST", "/images/create", query, headers=_auth(auth))

    def push(self, repository: str, tag: str, *, platform: str = "", auth: str = "") -> Iterator[Document]:
        """Send to a registry; "" is every tag."""
        wanted = ""
        if platform:
            system, _, rest = platform.partition("/")
            architecture, _, variant = rest.partition("/")
            wanted = json.dumps({"os": system, "architecture": architecture, "variant": variant})
        query = {"tag": tag, "platform": wanted}
        return self._transport.stream("POST", f"/images/{segment(repository)}/push", query, headers=_auth(auth))

    def commit(
        self,
        container: str,
        repository: str = "",
        tag: str = "",
        *,
        author: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        pause: bool = True,
    ) -> str:
        """Make an image of a container; gives its id."""
        query = {
            "container": container,
            "repo": repository,
            "tag": tag,
            "author": author,
            "changes": list(changes),
            "comment": message,
            "pause": "1" if pause else "0",
        }
        return self._transport.post("/commit", query).text("Id")

    def import_(
        self,
        source: str,
        body: Iterable[bytes] | None,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> Iterator[Document]:
        """Make an image of a root file system: `source` is `-` for the body, else a URL."""
        query = {
            "fromSrc": source,
            "repo": repository,
            "tag": tag,
            "message": message,
            "changes": list(changes),
            "platform": platform,
        }
        return self._transport.stream("POST", "/images/create", query, body)

    def build(self, context: Iterable[bytes], query: Mapping[str, object], *, config: str = "") -> Iterator[Document]:
        """Build an image of a context in a tar; `query` as the API names it. `config`: header `X-Registry-Config`."""
        return self._transport.stream("POST", "/build", query, context, {"X-Registry-Config": config} if config else {})

    def prune_builds(
        self, filters: Filters | None = None, *, everything: bool = False, keep_bytes: int = 0
    ) -> Document:
        """Remove the build cache unless it takes no more than `keep_bytes`."""
        query = {"filters": filters, "all": everything, "keep-storage": keep_bytes or None}
        return self._transport.post("/build/prune", query)

    def load(self, archive: Iterable[bytes], *, quiet: bool = False, platform: str = "") -> Iterator[Document]:
        """Read an archive that save() wrote."""
        return self._transport.stream("POST", "/images/load", {"quiet": quiet, "platform": platform}, archive)

    def save(self, references: Sequence[str], *, platform: str = "") -> Response:
        """An archive of images, to be read in pieces."""
        return self._transport.open("GET", "/images/get", {"names": list(references), "platform": platform})

    def tag(self, reference: str, repository: str, tag: str) -> None:
        """Give an image one more name."""
        self._transport.post(f"/images/{segment(reference)}/tag", {"repo": repository, "tag": tag})

    def remove(self, reference: str, *, force: bool = False, prune: bool = True) -> list[Document]:
        """Take away a name, and the image with its last one: a list of `Untagged` and `Deleted`."""
        query = {"force": force, "noprune": not prune}
        return self._transport.delete(f"/images/{segment(reference)}", query)

    def prune(self, filters: Filters | None = None) -> Document:
        """Remove unused images: `ImagesDeleted` and `SpaceReclaimed` in bytes."""
        return self._transport.post("/images/prune", {"filters": filters})


def _auth(header: str) -> dict[str, str]:
    return {"X-Registry-Auth": header} if header else {}
