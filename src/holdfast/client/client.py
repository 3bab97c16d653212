"""The engine as an object: one attribute for each noun of its API."""

from __future__ import annotations

from typing import Self

from holdfast.client.address import Tls, parse_url
from holdfast.client.containers import Containers
from holdfast.client.images import Images
from holdfast.client.networks import Networks
from holdfast.client.system import Engine
from holdfast.client.transport import Transport
from holdfast.client.volumes import Volumes


class Client:
    """A client of the engine at `url`; connects at the first call. Not for several threads at once: make one each.

    Every call raises EngineError by the status of the answer, and Unreachable when there is no engine to ask.
    """

    def __init__(self, url: str, *, tls: Tls | None = None) -> None:
        """Raises BadAddress for an address that is none."""
        self._tls = tls
        self.transport = Transport(parse_url(url, tls=tls is not None), tls)
        self.volumes = Volumes(self.transport)
        self.containers = Containers(self.transport)
        self.images = Images(self.transport)
        self.networks = Networks(self.transport)
        self.engine = Engine(self.transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The engine's address, in full."""
        return self.transport.address.url

    def twin(self) -> Client:
        """Another client of the same engine, for another thread or a signal handler."""
        return Client(self.url, tls=self._tls)

    def close(self) -> None:
        """Close what is open."""
        self.transport.close()
