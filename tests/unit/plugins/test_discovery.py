"""Where plugins are found, and what their files say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from holdfast.errors import System
from holdfast.plugins.discovery import Discovery, Endpoint, Tls, parse_address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("run", "etc", "usr"):
        (tmp_path / name).mkdir(mode=0o755)
    return tmp_path


def discovery(folder: Path) -> Discovery:
    return Discovery(folder / "run", (folder / "etc", folder / "usr"))


def listen(path: Path) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def test_sockets_come_before_files_and_etc_before_usr(folder: Path) -> None:
    listen(folder / "run" / "aa.sock")
    listen(folder / "run" / "bb" / "bb.sock")
    (folder / "run" / "cc.sock").write_text("no socket")
    for place, port in (("etc", 1), ("usr", 2)):
        for name in ("aa", "dd"):
            (folder / place / f"{name}.spec").write_text(f"tcp://host:{port}\n")
    (folder / "etc" / "ee").mkdir()
    document = '{"Name": "x", "Addr": "https://h:3", "TLSConfig": {"CAFile": "/ca"}}'
    (folder / "etc" / "ee" / "ee.json").write_text(document)
    found = discovery(folder)
    assert found.find("aa") == Endpoint("aa", path=str(folder / "run" / "aa.sock"))
    assert found.find("bb") == Endpoint("bb", path=str(folder / "run" / "bb" / "bb.sock"))
    assert found.find("cc") is None
    assert found.find("dd") == Endpoint("dd", host="host", port=1)
    assert found.find("ee") == Endpoint("ee", host="h", port=3, tls=Tls(authorities="/ca"))
    assert found.names() == {"aa", "bb", "dd", "ee"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../run/aa", "a\0", "a\n", ".hidden", "x" * 300])
def test_names_lead_nowhere_else(folder: Path, name: str) -> None:
    listen(folder / "run" / "aa.sock")
    assert discovery(folder).find(name) is None


def test_a_folder_that_others_may_write_to_is_not_looked_at(folder: Path) -> None:
    listen(folder / "run" / "aa.sock")
    listen(folder / "run" / "bb" / "bb.sock")
    (folder / "run" / "bb").chmod(0o777)
    assert discovery(folder).names() == {"aa"}
    (folder / "run").chmod(0o775)
    assert discovery(folder).names() == frozenset() and discovery(folder).find("aa") is None


@pytest.mark.parametrize("address", ["", "host:1", "ftp://host", "unix://relative", "tcp://", "tcp://h:x", "tcp://[::1"])
def test_addresses_that_make_no_sense(address: str) -> None:
    with pytest.raises(System, match='plugin "p": '):
        parse_address("p", address)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"Addr": 7}', "{", "\xff"])
def test_files_that_make_no_sense(folder: Path, content: str) -> None:
    (folder / "etc" / "aa.json").write_text(content, encoding="latin-1")
    with pytest.raises(System, match='plugin "aa": '):
        discovery(folder).find("aa")
