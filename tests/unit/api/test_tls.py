"""TCP with TLS: a client certificate is needed, and each direction ends on its own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.api.server import tcp_sockets
from holdfast.api.tls import server_context
from holdfast.errors import InvalidParameter
from tests.unit.api.rig import Rig, api_test, get


@dataclass(frozen=True)
class Files:
    """Paths of PEM files."""

    ca: str
    certificate: str
    key: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate that signs itself serves as everything."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: scripts/setup.sh test")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    argv = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]  # basicConstraints is CA:TRUE by default
    subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30)
    # As strict as Python is from 3.13 on.
    argv = [openssl, "verify", "-x509_strict", "-CAfile", str(certificate), str(certificate)]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    return Files(str(certificate), str(certificate), str(key))


class TlsClient:
    """A blocking client that can close its writing side alone, as Go's can."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self._pump(self._tls.do_handshake)

    def _pump(self, work: Callable[[], object]) -> object:
        while True:
            try:
                result = work()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(65536)
                if not data:
                    return b""
                self._incoming.write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        self.sock.sendall(self._outgoing.read())

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._tls.write(data)
        self._flush()

    def half_close(self) -> None:
        """Say that no more will come."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def rest(self) -> bytes:
        """Read up to the end."""
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._pump(lambda: self._tls.read(65536))
            except ssl.SSLZeroReturnError:
                break
            assert isinstance(piece, bytes)
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces)


def client_context(files: Files, *, with_certificate: bool = True) -> ssl.SSLContext:
    """What a client needs."""
    context = ssl.create_default_context(cafile=files.ca)
    if with_certificate:
        context.load_cert_chain(files.certificate, files.key)
    return context


async def listen(rig: Rig, files: Files) -> int:
    """Serve on a free port as well."""
    (sock,) = tcp_sockets("127.0.0.1:0")
    await rig.server.listen([sock], server_context(ca=files.ca, certificate=files.certificate, key=files.key))
    return int(sock.getsockname()[1])


def talk(port: int, context: ssl.SSLContext, request: bytes, *, half_close: bool) -> bytes:
    """Send a request, read the end of the answer."""
    client = TlsClient(port, context)
    with client.sock:
        client.send(request)
        if half_close:
            client.half_close()
        return client.rest()


def test_requests_and_attached_streams(files: Files, tmp_path: Path) -> None:
    @api_test
    async def check(rig: Rig) -> None:
        port = await listen(rig, files)
        context = client_context(files)
        answer = await asyncio.to_thread(
            talk, port, context, get("/_ping", "GET", "Connection: close"), half_close=False
        )
        assert answer.endswith(b"\r\n\r\nOK")
        request = get("/attach/echo", "POST", "Connection: Upgrade", "Upgrade: tcp") + b"x" * 300_000
        answer = await asyncio.to_thread(talk, port, context, request, half_close=True)
        assert answer.partition(b"\r\n\r\n")[2] == b"[]" + b"X" * 300_000 + b"after-eof"

    check(tmp_path)


def test_a_client_without_certificate_gets_nothing(files: Files, tmp_path: Path) -> None:
    @api_test
    async def check(rig: Rig) -> None:
        port = await listen(rig, files)
        context = client_context(files, with_certificate=False)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(talk, port, context, get("/_ping"), half_close=False)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(get("/_ping"))
            assert b"HTTP" not in await asyncio.to_thread(plain.recv, 100)

    check(tmp_path)


def test_files_that_cannot_be_used(files: Files, tmp_path: Path) -> None:
    for ca, certificate, key in (
        (files.ca, files.certificate, str(tmp_path / "missing")),
        (files.key, files.certificate, files.key),
        (files.ca, files.key, files.key),
    ):
        with pytest.raises(InvalidParameter, match="TLS files"):
            server_context(ca=ca, certificate=certificate, key=key)


def test_a_context_that_asks_no_certificate_is_refused(tmp_path: Path) -> None:
    @api_test
    async def check(rig: Rig) -> None:
        (sock,) = tcp_sockets("127.0.0.1:0")
        with sock, pytest.raises(InvalidParameter, match="without TLS"):
            await rig.server.listen([sock], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    check(tmp_path)
