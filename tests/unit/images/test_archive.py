"""Archives of images, from their manifests to files of ours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from holdfast.errors import InvalidParameter
from holdfast.images.archive import Archive, parse_manifest, read_archive
from holdfast.images.platforms import parse_platform
from tests.support import images

HOST = parse_platform("")


def archive(data: bytes, workspace: Path) -> Archive:
    return read_archive(io.BytesIO(data), workspace, lambda _: None)


def test_several_images(tmp_path: Path) -> None:
    first = images.image([images.layer([images.file_entry("a")])], tags=["a:1", "b:1"])
    second = images.image([images.layer([images.file_entry("b")])])
    members = archive(images.docker_archive([first, second]), tmp_path)
    found = members.images(HOST)
    assert [each.tags for each in found] == [("a:1", "b:1"), ()]
    assert [images.digest(members.metadata(each.config)) for each in found] == [first.id, second.id]
    assert [members.find(each.layers[0]).digest for each in found] == [
        images.digest(first.layers[0]),
        images.digest(second.layers[0]),
    ]


def test_layers_may_be_links(tmp_path: Path) -> None:
    each = images.image([images.layer([])])
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["2/layer.tar"]}]
    data = images.layer(
        [
            images.file_entry("c.json", each.config),
            images.file_entry("1/layer.tar", each.layers[0]),
            images.symlink_entry("2/layer.tar", "../1/layer.tar"),
            images.file_entry("manifest.json", json.dumps(manifest).encode()),
        ]
    )
    assert archive(data, tmp_path).find("2/layer.tar").digest == images.digest(each.layers[0])


def test_names_are_never_paths(tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    archive(images.layer([images.file_entry("../evil", b"x"), images.file_entry("/etc/evil", b"x")]), workspace)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["member-0", "member-1", "work"]


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    data = images.layer([images.symlink_entry("a", "b"), images.symlink_entry("b", "a")])
    with pytest.raises(InvalidParameter, match="a is missing"):
        archive(data, tmp_path).find("a")


def test_oci_layout(tmp_path: Path) -> None:
    each = images.image([images.layer([images.file_entry("a")])])
    members = archive(images.oci_archive(each, name="docker.io/library/app:1"), tmp_path)
    (found,) = members.images(HOST)
    assert found.tags == ("docker.io/library/app:1",)
    assert images.digest(members.metadata(found.config)) == each.id


def test_neither_manifest_nor_index(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"neither manifest\.json nor index\.json"):
        archive(images.layer([images.file_entry("x")]), tmp_path).images(HOST)


def test_large_metadata_is_refused(tmp_path: Path) -> None:
    members = archive(images.layer([images.file_entry("manifest.json", b" " * (9 << 20))]), tmp_path)
    with pytest.raises(InvalidParameter, match=r"manifest\.json has 9437184 bytes"):
        members.images(HOST)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[1]", b'[{"Layers": []}]', b'[{"Config": 1}]', b'[{"Config": "c", "Layers": [1]}]', b"[" * 100_000],
)
def test_bad_manifests(text: bytes) -> None:
    with pytest.raises(InvalidParameter, match="invalid archive"):
        parse_manifest(text)
