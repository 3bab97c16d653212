"""Calls of plugins: whole answers whatever their form, deadlines, limits, and what is done about silence."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.errors import NotFound, Unavailable
from holdfast.plugins import registry
from holdfast.plugins.discovery import Discovery, Endpoint, Tls
from holdfast.plugins.registry import Plugin, Plugins, Refused, Timeouts
from holdfast.plugins.transport import Transport, Unreachable

Say = Callable[[socket.socket], None]
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"A":1}'


@contextlib.contextmanager
def plugin_that(folder: Path, *say: Say) -> Iterator[Plugin]:
    """A plugin that answers its connections by these functions in turn, the last one again and again."""
    path = folder / "plugin.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(50)

        def serve() -> None:
            asked = list(say)
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    (asked.pop(0) if len(asked) > 1 else asked[0])(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Plugin(Endpoint("plug", path=str(path)), Transport())
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def says(content: bytes) -> Say:
    return lambda connection: connection.sendall(content)


def ask(plugin: Plugin, timeout_s: float = 5, limit_bytes: int = 1000) -> int:
    document = plugin.call("VolumeDriver.Get", {}, timeout_s, question=True, limit_bytes=limit_bytes)
    return len(document.array("B"))


@pytest.mark.parametrize(
    "content",
    [
        OK,
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"A\r\n4\r\n":1}\r\n0\r\n\r\n',
        b'HTTP/1.0 200 OK\r\n\r\n{"b":null}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_answers_of_every_form(tmp_path: Path, content: bytes) -> None:
    with plugin_that(tmp_path, says(content)) as plugin:
        assert ask(plugin) == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"nonsense\r\n\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b" " * 2000, "longer than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 90_000, "longer than 1000 bytes"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nboom", "VolumeDriver.Get: boom"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"err":"boom"}', "boom"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"B":1}', "no array at B"),
    ],
)
def test_answers_that_make_no_sense(tmp_path: Path, content: bytes, text: str) -> None:
    with plugin_that(tmp_path, says(content)) as plugin, pytest.raises(Refused, match=text):
        ask(plugin)


def test_a_trickle_has_one_deadline(tmp_path: Path) -> None:
    def trickle(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    with plugin_that(tmp_path, trickle) as plugin:
        began = time.monotonic()
        with pytest.raises((Unreachable, Refused)):
            ask(plugin, timeout_s=0.3)
        assert time.monotonic() - began < 1


def test_a_question_is_asked_again_and_work_is_not(tmp_path: Path) -> None:
    def breaks(_: socket.socket) -> None:
        return

    with plugin_that(tmp_path, breaks, says(OK)) as plugin:
        assert ask(plugin) == 0
    (tmp_path / "plugin.sock").unlink()
    with plugin_that(tmp_path, breaks, says(OK)) as plugin, pytest.raises(Unreachable, match="EOF"):
        plugin.call("VolumeDriver.Create", {}, 5, question=False)


def test_a_silent_plugin_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PAUSE_S", 0.3)
    with plugin_that(tmp_path, lambda _: time.sleep(0.4), says(OK)) as plugin:
        with pytest.raises(Unreachable, match="context deadline exceeded"):
            ask(plugin, timeout_s=0.2)
        with pytest.raises(Unreachable, match='plugin "plug" does not answer: ') as error:
            ask(plugin)
        assert "it is asked again in" in error.value.hint
        time.sleep(0.4)
        assert ask(plugin) == 0
        assert ask(plugin) == 0


def test_work_that_takes_too_long_says_nothing_of_the_plugin(tmp_path: Path) -> None:
    with plugin_that(tmp_path, lambda _: time.sleep(0.4), says(OK)) as plugin:
        with pytest.raises(Unreachable):
            plugin.call("VolumeDriver.Mount", {}, 0.2, question=False)
        assert ask(plugin) == 0


def test_only_so_many_calls_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_AT_ONCE", 3)
    with plugin_that(tmp_path, lambda _: time.sleep(0.4)) as plugin, ThreadPoolExecutor(5) as callers:
        calls = [callers.submit(ask, plugin, 0.2) for _ in range(5)]
        texts = sorted(str(call.exception()) for call in calls)
    assert [text for text in texts if "3 calls wait for it" in text] and len(texts) == 5


def test_closing_wakes_whoever_waits(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "run" / "slow.sock"))
        listening.listen()
        plugins = Plugins(Discovery(tmp_path / "run", ()), Timeouts(30, 30))
        with ThreadPoolExecutor(1) as callers:
            waiting = callers.submit(plugins.get, "slow", "VolumeDriver")
            time.sleep(0.2)
            plugins.close()
            assert isinstance(waiting.exception(5), Unavailable)
        with pytest.raises(NotFound, match='plugin "other" not found'):
            plugins.get("other", "VolumeDriver")


def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: scripts/setup.sh test")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"B":[1,2]}')

        def log_message(self, *_: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            tls = Tls(authorities=str(certificate), certificate=str(certificate), key=str(key))
            assert ask(Plugin(Endpoint("p", host="127.0.0.1", port=server.server_port, tls=tls), Transport())) == 2
            bare = Plugin(Endpoint("p", host="127.0.0.1", port=server.server_port, tls=Tls()), Transport())
            with pytest.raises(Unreachable):
                ask(bare)
        finally:
            server.shutdown()
            thread.join(5)
