"""HTTP for what skopeo does not do: logging in, and fetching an archive to import.

Certificates are those of the machine and, for a registry, of `/etc/docker/certs.d/HOST[:PORT]` and its twin below
`/etc/containers`: `*.crt` are trusted, `*.cert` with `*.key` are shown. Proxies are those of the engine's environment.
Source: Docker, "Use certificates for repository access"; Go's net/http for the words of failures.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast
from urllib.parse import urlsplit

from holdfast.errors import System
from holdfast.images.skopeo import is_loopback

CERTIFICATES: Final = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))

_SCHEMES: Final = ("http", "https")
_ERRNO_TEXTS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENETUNREACH: "network is unreachable",
    errno.EHOSTUNREACH: "no route to host",
    errno.ETIMEDOUT: "connection timed out",
    errno.ECONNRESET: "connection reset by peer",
}


class Unreachable(System):
    """Nobody answers there, or not in HTTP."""


@contextlib.contextmanager
def opened(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    timeout_s: float,
    verify: bool = True,
    follow: bool = False,
) -> Iterator[http.client.HTTPResponse]:
    """Ask for `url`, GET or with `data` POST, and give the response, whatever its status; to be read in the block.

    `timeout_s` is how long nothing may come. Without `verify` any certificate will do. Redirections are followed only
    with `follow`, since headers go with them. Raises Unreachable in the words of Docker's own HTTP client.
    """
    method = "Get" if data is None else "Post"
    if urlsplit(url).scheme not in _SCHEMES:
        raise Unreachable(f'{method} "{url}": unsupported protocol scheme "{urlsplit(url).scheme}"')
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPSHandler(context=tls_context(url, verify=verify)),
        _Redirections() if follow else _NoRedirection(),
    ]
    if is_loopback(urlsplit(url).netloc):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(url, data=data, headers={"User-Agent": "holdfast", **(headers or {})})
    try:
        response: IO[bytes] = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        response = error
    except urllib.error.URLError as error:
        raise Unreachable(f'{method} "{url}": {_why(error.reason, url)}') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f'{method} "{url}": {_why(error, url)}') from error
    with contextlib.closing(response):
        yield cast("http.client.HTTPResponse", response)


def tls_context(url: str, *, verify: bool) -> ssl.SSLContext:
    """Give what decides about certificates for `url`. Raises System for one of ours that cannot be read."""
    if not verify:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context = ssl.create_default_context()
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    for folder in (base / urlsplit(url).netloc.rpartition("@")[2] for base in CERTIFICATES):
        try:
            for path in sorted(folder.glob("*.crt")):
                context.load_verify_locations(path)
            for path in sorted(folder.glob("*.cert")):
                context.load_cert_chain(path, path.with_suffix(".key"))
        except OSError as error:
            raise System(f"read certificates of {folder}: {error}") from error
    return context


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows within HTTP and HTTPS alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Give the request for the new place, None to stay with the redirection itself."""
        if urlsplit(newurl).scheme not in _SCHEMES:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Gives a redirection itself as the answer."""

    def redirect_request(self, *_args: object, **_more: object) -> None:
        """Follow nowhere."""


def _why(reason: object, url: str) -> str:
    """Say what went wrong as Go does."""
    place = urlsplit(url)
    host = place.hostname or ""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {reason.verify_message}"
    if isinstance(reason, ssl.SSLError):
        return f"tls: {reason.reason or reason}"
    if isinstance(reason, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(reason, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(reason, OSError) and reason.errno is not None:
        text = _ERRNO_TEXTS.get(reason.errno) or os.strerror(reason.errno).lower()
        port = place.port or (443 if place.scheme == "https" else 80)
        return f"dial tcp {f'[{host}]' if ':' in host else host}:{port}: connect: {text}"
    if isinstance(reason, http.client.RemoteDisconnected):
        return "EOF"
    return str(reason)
