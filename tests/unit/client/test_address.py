"""Engine addresses: parsing, choosing, and what is said when nobody listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from holdfast.client import Client, Unreachable, choose_url
from holdfast.client.address import DEFAULT_URL, parse_url
from holdfast.client.failures import BadAddress


@pytest.mark.parametrize(
    ("url", "path", "host", "port"),
    [
        ("unix:///run/x.sock", "/run/x.sock", "", 0),
        ("/run/x.sock", "/run/x.sock", "", 0),
        ("tcp://example.org:1234", "", "example.org", 1234),
        ("tcp://example.org", "", "example.org", 2375),
        ("tcp://example.org/", "", "example.org", 2375),
        ("tcp://[::1]:99", "", "::1", 99),
        ("tcp://[::1]", "", "::1", 2375),
        ("tcp://:99", "", "127.0.0.1", 99),
        ("localhost:99", "", "localhost", 99),
    ],
)
def test_parse(url: str, path: str, host: str, port: int) -> None:
    address = parse_url(url)
    assert (address.path, address.host, address.port) == (path, host, port)


def test_tls_has_a_port_of_its_own() -> None:
    assert parse_url("tcp://example.org", tls=True).port == 2376


@pytest.mark.parametrize(
    "url", ["", "unix://", "unix://relative", "tcp://h:0", "tcp://h:65536", "tcp://h:x", "ssh://h"]
)
def test_refused(url: str) -> None:
    with pytest.raises(BadAddress, match="invalid engine address"):
        parse_url(url)


def test_flag_then_environment_then_default() -> None:
    environment = {"HOLDFAST_HOST": "tcp://b", "HOLDFAST_SOCKET": "/c", "DOCKER_HOST": "tcp://d"}
    assert choose_url("tcp://a", environment) == "tcp://a"
    assert choose_url(None, environment) == "tcp://b"
    assert choose_url(None, {"HOLDFAST_SOCKET": "/c"}) == "unix:///c"
    assert choose_url(None, {"DOCKER_HOST": "tcp://d"}) == DEFAULT_URL


def test_nobody_there_says_what_where_why_and_what_to_do(tmp_path: Path) -> None:
    missing = tmp_path / "s"
    with pytest.raises(Unreachable) as failed:
        Client(f"unix://{missing}").volumes.find()
    text = str(failed.value)
    assert text.startswith(f"Cannot connect to the Holdfast engine at unix://{missing}: No such file or directory. ")
    assert "systemctl start holdfast" in text
    assert "\n" not in text


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    with pytest.raises(Unreachable, match="Connection refused"):
        Client(f"unix://{tmp_path / 's'}").engine.info()
