"""TLS over real sockets: certificates are checked, and stdin may end while output goes on."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.client import Client, Tls, Unreachable

_HEAD = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate by it for 127.0.0.1, which serves both sides."""
    folder = tmp_path_factory.mktemp("tls")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        out = ("-keyout", f"{name}-key.pem", "-out", f"{name}.pem")
        _openssl(folder, "req", "-x509", *new, *out, "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")
    _openssl(folder, "req", *new[:-2], "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=test")
    (folder / "extensions").write_text(
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    _openssl(
        folder, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
        "-out", "cert.pem", "-days", "2", "-extfile", "extensions",
    )  # fmt: skip
    _openssl(folder, "verify", "-x509_strict", "-CAfile", "ca.pem", "cert.pem")  # as strict as Python from 3.13 on
    return folder


@pytest.fixture
def port(files: Path) -> Iterator[int]:
    """A server of one connection that answers the head of an attach, reads to the end, and sends it back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    context.load_verify_locations(files / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    def serve() -> None:
        plain, _ = listener.accept()
        with plain:
            try:
                connection = context.wrap_socket(plain, server_side=True)
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096)
                connection.sendall(_HEAD)
                said = head.partition(b"\r\n\r\n")[2]
                while data := connection.recv(65536):
                    said += data
                connection.sendall(said[::-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def _tls(files: Path, ca: str = "ca") -> Tls:
    return Tls(ca=str(files / f"{ca}.pem"), certificate=str(files / "cert.pem"), key=str(files / "key.pem"))


def test_input_ends_and_output_goes_on(files: Path, port: int) -> None:
    client = Client(f"tcp://127.0.0.1:{port}", tls=_tls(files))
    sent = bytes(range(256)) * 2000
    with client.containers.attach("c", stdin=True) as streams:
        streams.write(sent)
        streams.end_input()
        assert b"".join(streams.chunks()) == sent[::-1]


def test_a_stranger_is_refused(files: Path, port: int) -> None:
    client = Client(f"tcp://127.0.0.1:{port}", tls=_tls(files, ca="other"))
    with pytest.raises(Unreachable, match=r"tcp://127.0.0.1:\d+: .*certificate"):
        client.engine.info()
