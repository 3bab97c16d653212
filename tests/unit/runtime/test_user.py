from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.errors import InvalidParameter
from holdfast.runtime.user import LIMIT_BYTES, User, resolve, resolve_user

PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/sh

web:x:33:34:www:/var/www:/bin/false
1001:x:44:45::/odd:
short:x:50
web:x:99:99:second:/x:/x
"""
GROUP = """\
root:x:0:
www:x:34:
disk:x:6:web,root
audio:x:29:web
1002:x:77:
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0, (0, 6), "/root")),
        ("root", User(0, 0, (0, 6), "/root")),
        ("0", User(0, 0, (0, 6), "/root")),
        ("web", User(33, 34, (34, 6, 29), "/var/www")),
        ("33", User(33, 34, (34, 6, 29), "/var/www")),
        ("web:", User(33, 34, (34, 6, 29), "/var/www")),
        ("web:disk", User(33, 6, (6,), "/var/www")),
        ("web:1234", User(33, 1234, (1234,), "/var/www")),
        ("1000", User(1000, 0, (0,), "/")),
        ("1000:1000", User(1000, 1000, (1000,), "/")),
        ("1000:audio", User(1000, 29, (29,), "/")),
        ("short", User(50, 0, (0,), "/")),
        (":disk", User(0, 6, (6,), "/root")),
    ],
)
def test_resolve(user: str, expected: User) -> None:
    assert resolve(user, (), PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nobody", (), "unable to find user nobody: no matching entries in passwd file"),
        ("web:nogroup", (), "unable to find group nogroup: no matching entries in group file"),
        ("web", ("nogroup",), "unable to find group nogroup: no matching entries in group file"),
        ("-1", (), "uids and gids must be in range 0-2147483647"),
        ("2147483648", (), "uids and gids must be in range 0-2147483647"),
        ("0:4294967296", (), "uids and gids must be in range 0-2147483647"),
        ("1_0", (), "unable to find user 1_0: no matching entries in passwd file"),
        ("٣", (), "unable to find user ٣: no matching entries in passwd file"),
    ],
)
def test_refused(user: str, groups: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        resolve(user, groups, PASSWD, GROUP)
    assert str(refused.value) == message


def test_added_groups() -> None:
    assert resolve("web", ("audio", "1234", "34"), PASSWD, GROUP).additional_gids == (34, 6, 29, 1234)


def test_files_of_the_container(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    assert resolve_user(tmp_path, "5:6") == User(5, 6, (6,), "/")
    etc.mkdir()
    (tmp_path / "real").write_text(PASSWD)
    (etc / "passwd").symlink_to("/real")                       # from the container's root, not ours
    (etc / "group").write_text(GROUP)
    assert resolve_user(tmp_path, "web").home == "/var/www"
    assert resolve_user(tmp_path, "", ("audio",)).additional_gids == (0, 6, 29)


def test_files_that_would_lead_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("evil:x:7:7::/:\n")
    (root / "etc/passwd").symlink_to("../../secret")
    with pytest.raises(InvalidParameter, match="unable to find user evil"):
        resolve_user(root, "evil")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidParameter, match="unable to find user evil"):
        resolve_user(root, "evil")


def test_files_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    passwd = tmp_path / "etc/passwd"
    os.mkfifo(passwd)
    with pytest.raises(InvalidParameter, match="not a regular file"):
        resolve_user(tmp_path, "web")
    passwd.unlink()
    with passwd.open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(InvalidParameter, match="larger than"):
        resolve_user(tmp_path, "web")
    passwd.unlink()
    passwd.symlink_to("passwd")
    with pytest.raises(InvalidParameter, match="unable to find user web"):
        resolve_user(tmp_path, "web")
