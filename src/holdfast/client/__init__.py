"""A client of the engine's own API: small, blocking, quick to import."""

from holdfast.client.address import DEFAULT_URL, Tls, choose_url
from holdfast.client.client import Client
from holdfast.client.document import Document
from holdfast.client.failures import ClientError, Unreachable

__all__ = ["Client", "ClientError", "DEFAULT_URL", "Document", "Tls", "Unreachable", "choose_url"]
