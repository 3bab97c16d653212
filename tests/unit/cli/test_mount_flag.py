"""--mount: fields to the API's Mount, and docker's refusals word for word."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.mount_flag import parse_mount, split_csv

_HERE = os.getcwd()


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("source=myvol2,target=/app", {"Type": "volume", "Source": "myvol2", "Target": "/app"}),
        ("SRC=a,dst=/x,readonly", {"Type": "volume", "Source": "a", "Target": "/x", "ReadOnly": True}),
        ("dst=/x,ro=false", {"Type": "volume", "Target": "/x", "ReadOnly": False}),
        (
            "src=logs,destination=/l,volume-subpath=app1",
            {
                "Type": "volume",
                "Source": "logs",
                "Target": "/l",
                "VolumeOptions": {"DriverConfig": {}, "Subpath": "app1"},
            },
        ),
        (
            "type=volume,source=nfs,target=/app,volume-driver=local,volume-opt=type=nfs,volume-opt=device=:/d,"
            '"volume-opt=o=addr=10.0.0.10,rw,async"',
            {
                "Type": "volume",
                "Source": "nfs",
                "Target": "/app",
                "VolumeOptions": {
                    "DriverConfig": {
                        "Name": "local",
                        "Options": {"type": "nfs", "device": ":/d", "o": "addr=10.0.0.10,rw,async"},
                    }
                },
            },
        ),
        (
            "dst=/x,volume-nocopy,volume-label=a=b,volume-label=c",
            {
                "Type": "volume",
                "Target": "/x",
                "VolumeOptions": {"DriverConfig": {}, "NoCopy": True, "Labels": {"a": "b", "c": ""}},
            },
        ),
        (
            "type=bind,src=./x,dst=/y,bind-propagation=rshared",
            {"Type": "bind", "Source": f"{_HERE}/x", "Target": "/y", "BindOptions": {"Propagation": "rshared"}},
        ),
        (
            "type=bind,src=.,dst=/y,bind-recursive=disabled",
            {"Type": "bind", "Source": _HERE, "Target": "/y", "BindOptions": {"NonRecursive": True}},
        ),
        ("type=bind,src=/x,dst=/y,bind-recursive=enabled", {"Type": "bind", "Source": "/x", "Target": "/y"}),
        (
            "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770}},
        ),
        (
            "type=image,src=alpine,dst=/i,image-subpath=etc",
            {"Type": "image", "Source": "alpine", "Target": "/i", "ImageOptions": {"Subpath": "etc"}},
        ),
    ],
)
def test_parse(text: str, mount: dict[str, object]) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "value is empty"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("dst=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("type=,dst=/x", "type is required"),
        ("dst=/x,readonly=foo", "invalid value for readonly: foo"),
        ("type=bind,volume-nocopy,dst=/x", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("tmpfs-size=1,dst=/x", "cannot mix 'tmpfs-*' options with mount type 'volume'"),
        ("type=tmpfs,tmpfs-size=zz", "invalid value for tmpfs-size: zz"),
        ("type=tmpfs,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        ("type=bind,bind-recursive=x", 'invalid value for bind-recursive: x (must be "enabled", "disabled",'),
        ("type=bind,bind-recursive=writable", "option 'bind-recursive=writable' requires 'readonly'"),
        ("type=bind,bind-recursive=readonly,ro", "requires 'bind-propagation=rprivate'"),
        ('a"b', 'parse error on line 1, column 2: bare " in non-quoted-field'),
        ('"ab', 'extraneous or missing " in quoted-field'),
        ('"a"b', 'extraneous or missing " in quoted-field'),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as failed:
        parse_mount(text)
    assert why in str(failed.value)


@given(st.lists(st.text(alphabet='ab,"= '), min_size=1))
def test_csv_quoting_is_undone(fields: list[str]) -> None:
    quoted = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert split_csv(quoted) == fields
