"""Root file systems of containers."""

from __future__ import annotations

import io
import os
import stat

import pytest

from holdfast.errors import NotFound
from holdfast.images.rootfs import RootFs
from tests.integration.images.conftest import Shelf
from tests.support import images as make

pytestmark = pytest.mark.kernel

ID = "f" * 64
BASE = [".dockerenv", "dev", "etc", "proc", "sys"]
"""What every root has."""


def test_life(shelf: Shelf) -> None:
    each = make.image(
        [
            make.layer([make.dir_entry("./", mode=0o711), make.file_entry("a", b"1"), make.file_entry("gone/x", b"")]),
            make.layer([make.dir_entry("./", mode=0o711), make.file_entry("a", b"22"), make.file_entry(".wh.gone")]),
        ],
        tags=["a:1"],
    )
    shelf.images.load(io.BytesIO(make.docker_archive([each])))
    image = shelf.images.resolve("a:1")
    rootfs = RootFs(shelf.state_root)
    rootfs.prepare(ID, image.layers)
    rootfs.prepare(ID, image.layers)
    merged = rootfs.mount(ID, image.layers)
    try:
        assert rootfs.mount(ID, image.layers) == merged
        assert rootfs.is_mounted(ID)
        assert sorted(os.listdir(merged)) == sorted([*BASE, "a"])
        assert (merged / "a").read_bytes() == b"22"
        assert stat.S_IMODE(merged.stat().st_mode) == 0o711
        (merged / "new").write_bytes(b"xyz")
        assert rootfs.size_bytes(ID) == 3
    finally:
        rootfs.unmount(ID)
    assert not rootfs.is_mounted(ID)
    rootfs.unmount(ID)
    (layer, _) = shelf.images.layers_of(image)
    assert not (layer / "new").exists()
    rootfs.mount(ID, image.layers)
    assert (merged / "new").read_bytes() == b"xyz"
    rootfs.remove(ID)
    rootfs.remove(ID)
    assert not rootfs.is_mounted(ID)
    assert not rootfs.directory(ID).exists()
    assert rootfs.size_bytes(ID) == 0


def test_an_image_without_layers(shelf: Shelf) -> None:
    rootfs = RootFs(shelf.state_root)
    rootfs.prepare(ID)
    merged = rootfs.mount(ID, ())
    try:
        assert sorted(os.listdir(merged)) == BASE
        assert os.readlink(merged / "etc" / "mtab") == "/proc/mounts"
        (merged / "x").touch()
    finally:
        rootfs.remove(ID)


def test_other_files_of_the_container_stay(shelf: Shelf) -> None:
    rootfs = RootFs(shelf.state_root)
    rootfs.prepare(ID)
    (rootfs.directory(ID) / "container.log").touch()
    rootfs.remove(ID)
    assert os.listdir(rootfs.directory(ID)) == ["container.log"]


def test_a_missing_layer_is_named(shelf: Shelf) -> None:
    rootfs = RootFs(shelf.state_root)
    rootfs.prepare(ID)
    missing = "sha256:" + "0" * 64
    with pytest.raises(NotFound, match=f"layer {missing}"):
        rootfs.mount(ID, [missing])
    rootfs.remove(ID)
