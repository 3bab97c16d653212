"""The mount grammar against what Docker Engine 28.5 answers, and what Docker's guide promises beyond that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidParameter
from holdfast.volumes.mounts import (
    MountPoint,
    MountRequest,
    MountSpec,
    clean,
    parse,
    parse_bind,
    parse_mount,
    parse_volumes_from,
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("data:/d", MountPoint("volume", "/d", name="data", driver="local", mode="z", copy_data=True)),
        ("data:/d:", MountPoint("volume", "/d", name="data", driver="local", mode="z", copy_data=True)),
        ("data:/d:ro", MountPoint("volume", "/d", name="data", driver="local", mode="ro", rw=False, copy_data=True)),
        (
            "data:/d:ro,Z",
            MountPoint("volume", "/d", name="data", driver="local", mode="ro,Z", rw=False, copy_data=True),
        ),
        ("data:/d:nocopy", MountPoint("volume", "/d", name="data", driver="local", mode="nocopy")),
        ("data:/d/../e/", MountPoint("volume", "/e", name="data", driver="local", mode="z", copy_data=True)),
        ("/d", MountPoint("volume", "/d", driver="local", anonymous=True, copy_data=True)),
        (
            "/host/:/d",
            MountPoint("bind", "/d", source="/host", propagation="rprivate", create_source=True),
        ),
        (
            "/host:/d:ro,rslave",
            MountPoint(
                "bind", "/d", source="/host", mode="ro,rslave", rw=False, propagation="rslave", create_source=True
            ),
        ),
    ],
)
def test_binds(spec: str, expected: MountPoint) -> None:
    assert parse_bind(spec) == expected


def test_binds_accept_the_words_of_the_guide() -> None:
    readonly = parse_bind("data:/d:readonly")
    assert not readonly.rw and readonly.copy_data
    nocopy = parse_bind("data:/d:volume-nocopy")
    assert nocopy.rw and not nocopy.copy_data


def test_binds_take_the_containers_driver() -> None:
    assert parse_bind("data:/d", "rclone") == MountPoint("volume", "/d", name="data", driver="rclone", copy_data=True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "invalid volume specification: ''"),
        (":/foo", "invalid volume specification: ':/foo'"),
        ("/foo:ro", "invalid volume specification: '/foo:ro'"),
        ("/foo:rw,z", "invalid volume specification: '/foo:rw,z'"),
        ("foo:", "invalid volume specification: 'foo:'"),
        ("a:/b:ro:x", "invalid volume specification: 'a:/b:ro:x'"),
        ("foo:/a:bad", "invalid mode: bad"),
        ("foo:/a:ro,ro", "invalid mode: ro,ro"),
        ("foo:/a:ro,rw", "invalid mode: ro,rw"),
        ("foo:/a:shared,rslave", "invalid mode: shared,rslave"),
        (
            "relsrc:reldst",
            "invalid volume specification: 'relsrc:reldst': invalid mount config for type \"volume\": "
            "invalid mount path: 'reldst' mount path must be absolute",
        ),
        (
            "foo:/",
            "invalid volume specification: 'foo:/': invalid mount config for type \"volume\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "foo:/a:rshared",
            "invalid volume specification: 'foo:/a:rshared': invalid mount config for type \"volume\": "
            "field BindOptions must not be specified",
        ),
        (
            "/tmp:/a:nocopy",
            "invalid volume specification: '/tmp:/a:nocopy': invalid mount config for type \"bind\": "
            "field VolumeOptions must not be specified",
        ),
    ],
)
def test_binds_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_bind(spec)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (MountSpec("volume", "a", ""), 'invalid mount config for type "volume": field Target must not be empty'),
        (
            MountSpec("volume", "a", "/x/.."),
            "invalid mount config for type \"volume\": invalid specification: destination can't be '/'",
        ),
        (
            MountSpec("volume", "a", "b"),
            "invalid mount config for type \"volume\": invalid mount path: 'b' mount path must be absolute",
        ),
        (MountSpec("bind", "", "/d"), 'invalid mount config for type "bind": field Source must not be empty'),
        (
            MountSpec("bind", "rel", "/d"),
            "invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
        ),
        (
            MountSpec("bind", "/s", "/d", propagation="foo"),
            'invalid mount config for type "bind": invalid propagation mode: foo',
        ),
        (MountSpec("tmpfs", "s", "/d"), 'invalid mount config for type "tmpfs": field Source must not be specified'),
        (
            MountSpec("tmpfs", "", "/d", tmpfs_options=(("foo",),)),
            'invalid mount config for type "tmpfs": invalid option: foo',
        ),
        (MountSpec("foo", "s", "/d"), 'invalid mount config for type "foo": mount type unknown'),
        (MountSpec("", "s", "/d"), 'invalid mount config for type "": mount type unknown'),
        (
            MountSpec("volume", "", "/d", subpath="a"),
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes',
        ),
        (
            MountSpec("volume", "v", "/d", subpath="a/../.."),
            'invalid mount config for type "volume": subpath must be a relative path within the volume',
        ),
        (
            MountSpec("bind", "/s", "/d", given=frozenset({"VolumeOptions"})),
            'VolumeOptions must not be specified on mount type "bind"',
        ),
        (
            MountSpec("volume", "s", "/d", given=frozenset({"ImageOptions"})),
            'invalid mount config for type "volume": field ImageOptions must not be specified',
        ),
    ],
)
def test_mounts_that_are_refused(mount: MountSpec, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_mount(mount)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("mount", "version", "message"),
    [
        (MountSpec("volume", "v", "/d", subpath="a"), (1, 44), "VolumeOptions.Subpath needs API v1.45 or newer"),
        (MountSpec("image", "v", "/d"), (1, 47), 'Mount type "Image" needs API v1.48 or newer'),
        (
            MountSpec("bind", "/v", "/d", read_only=True, read_only_force_recursive=True),
            (1, 43),
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
    ],
)
def test_mounts_newer_than_the_client(mount: MountSpec, version: tuple[int, int], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_mount(mount, version)
    assert str(refused.value) == message
    parse_mount(mount)


def test_volume_mounts() -> None:
    point = parse_mount(
        MountSpec("volume", "v", "/d/", read_only=True, subpath="/a/b", driver_options={"k": "v"}, labels={"l": ""})
    )
    assert point == MountPoint(
        "volume",
        "/d",
        name="v",
        driver="local",
        mode="z",
        rw=False,
        copy_data=True,
        subpath="a/b",
        labels={"l": ""},
        options={"k": "v"},
    )


def test_tmpfs_mounts() -> None:
    point = parse_mount(
        MountSpec("tmpfs", "", "/d", tmpfs_size_bytes=3 << 20, tmpfs_mode=0o1770, tmpfs_options=(("exec",),))
    )
    assert point.tmpfs_options == ("mode=1770", "size=3m", "exec")


def test_precedence() -> None:
    inherited = (
        MountPoint("volume", "/a", name="from", driver="local", mode="z", copy_data=True, mount_id="1"),
        MountPoint("volume", "/b", name="kept", driver="local", rw=True),
        MountPoint("tmpfs", "/t"),
    )
    points = parse(
        MountRequest(
            binds=["own:/a"],
            mounts=[MountSpec("volume", "m", "/m/n")],
            volumes=["/a", "/new", "/scratch"],
            image_volumes=["/m/n", "/new/"],
            volumes_from=[("ro", inherited)],
            tmpfs={"/scratch": ""},
        )
    )
    assert [(point.destination, point.name, point.rw, point.copy_data) for point in points] == [
        ("/a", "own", True, True),
        ("/b", "kept", False, False),
        ("/new", "", True, True),
        ("/m/n", "m", True, True),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        MountRequest(binds=["a:/x", "b:/x/"]),
        MountRequest(binds=["a:/x"], mounts=[MountSpec("volume", "b", "/x")]),
        MountRequest(binds=["a:/x"], tmpfs={"/x": ""}),
    ],
)
def test_two_mounts_at_one_place(request_: MountRequest) -> None:
    with pytest.raises(InvalidParameter, match=r"^Duplicate mount point: /x$"):
        parse(request_)


@pytest.mark.parametrize(
    ("spec", "expected"), [("c", ("c", "rw")), ("c:", ("c", "rw")), ("c:ro", ("c", "ro")), ("c:ro,z", ("c", "ro"))]
)
def test_volumes_from(spec: str, expected: tuple[str, str]) -> None:
    assert parse_volumes_from(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "volumes-from specification cannot be an empty string"),
        ("c:x", "invalid mode: x"),
        ("c:rshared", "invalid mode: rshared"),
        ("c:nocopy", "invalid mode: nocopy"),
    ],
)
def test_volumes_from_that_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_volumes_from(spec)
    assert str(refused.value) == message


_SEGMENT = st.text(st.characters(exclude_characters=":/\\\0", codec="utf-8"), min_size=1).filter(
    lambda text: text not in (".", "..")
)


@given(name=_SEGMENT, path=st.lists(_SEGMENT, min_size=1), mode=st.sampled_from(["", "ro", "rw,z", "nocopy,Z"]))
def test_binds_round_trip(name: str, path: list[str], mode: str) -> None:
    destination = "/" + "/".join(path)
    point = parse_bind(f"{name}:{destination}:{mode}")
    assert (point.name, point.destination) == (name, destination)
    assert MountPoint.decode(point.encode()) == point


@given(st.text(max_size=40))
def test_binds_never_fail_otherwise(spec: str) -> None:
    try:
        point = parse_bind(spec)
    except InvalidParameter:
        return
    assert point.destination.startswith("/") and point.destination == clean(point.destination) != "/"
