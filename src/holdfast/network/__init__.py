"""Network namespaces, the default bridge with its addresses, and published ports."""

from __future__ import annotations

from holdfast.network.model import Endpoint, NetworkInfo, PortRequest, PublishedPort
from holdfast.network.service import Network

__all__ = ["Endpoint", "Network", "NetworkInfo", "PortRequest", "PublishedPort"]
