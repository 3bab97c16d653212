"""Images in and out of the store: load, save, import, names, removal."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast import faults
from holdfast.errors import Conflict, InvalidParameter, NotFound, System
from holdfast.images.importing import Description, NewImage
from holdfast.kernel import mount
from holdfast.store.containers import ContainerRow
from tests.integration.images.conftest import Shelf
from tests.support import images as make

pytestmark = pytest.mark.kernel

FILE_A = make.layer([make.file_entry("a", b"aaa")])
FILE_B = make.layer([make.file_entry("b", b"bb")])
EXTENSIONS = {
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "StartInterval": 5},
    "OnBuild": ["RUN true"],
    "Shell": ["/bin/bash", "-c"],
    "Labels": {"kind": "test"},
    "SomethingNew": {"deep": [1, None, "ä"]},
}


def load(shelf: Shelf, *images: make.TestImage, quiet: bool = True) -> list[dict[str, object]]:
    return load_bytes(shelf, make.docker_archive(images), quiet=quiet)


def load_bytes(shelf: Shelf, data: bytes, *, quiet: bool = True) -> list[dict[str, object]]:
    said: list[dict[str, object]] = []
    shelf.images.load(io.BytesIO(data), said.append, quiet=quiet)
    return said


def save(shelf: Shelf, *names: str) -> bytes:
    out = io.BytesIO()
    shelf.images.save(names, out.write)
    return out.getvalue()


def test_load(shelf: Shelf) -> None:
    first = make.image([FILE_A, FILE_B], tags=["a:1", "docker.io/library/a:latest"])
    second = make.image([FILE_A])
    said = load(shelf, first, second)
    assert said == [
        {"stream": "Loaded image: a:1\n"},
        {"stream": "Loaded image: a:latest\n"},
        {"stream": f"Loaded image ID: {second.id}\n"},
    ]
    assert [event.action for event in shelf.events] == ["load", "load"]
    image = shelf.images.resolve("a")
    assert (image.id, image.tags, image.size_bytes) == (first.id, ("a:1", "a:latest"), 5)
    top, base = shelf.images.layers_of(image)
    assert (base / "a").read_bytes() == b"aaa"
    assert (top / "b").read_bytes() == b"bb"
    assert shelf.on_disk() == (4, 2, 0)  # the layer in common is there once
    for name in ("a", "a:1", first.id, first.id[7:], first.id[7:19], first.id[:20], "docker.io/library/a"):
        assert shelf.images.resolve(name).id == first.id
    listed = {each.image.id: each.shared_size_bytes for each in shelf.images.disk_usage()}
    assert listed == {first.id: 3, second.id: 3}
    assert (shelf.images.layers_size(), shelf.images.count()) == (5, 2)


def test_load_tells_about_layers_and_moved_names(shelf: Shelf) -> None:
    first, second = make.image([FILE_A], tags=["a:1"]), make.image([FILE_B], tags=["a:1"])
    load(shelf, first)
    said = load(shelf, second, quiet=False)
    assert [message.get("status") or message["stream"] for message in said] == [
        "Loading layer",
        f"The image a:1 already exists, renaming the old one with ID {first.id} to empty string\n",
        "Loaded image: a:1\n",
    ]
    assert shelf.images.resolve(first.id).tags == ()


@pytest.mark.parametrize("program", ["gzip", "xz", "bzip2", "zstd"])
def test_load_compressed(shelf: Shelf, program: str) -> None:
    each = make.image([FILE_A], tags=["a:1"])
    packed = subprocess.run([program, "-c"], input=make.docker_archive([each]), capture_output=True, check=True).stdout
    load_bytes(shelf, packed)
    assert shelf.images.resolve("a:1").id == each.id
    assert shelf.on_disk() == (2, 1, 0)


def test_load_oci_layout(shelf: Shelf) -> None:
    each = make.image([FILE_A])
    load_bytes(shelf, make.oci_archive(each, name="docker.io/library/app:3"))
    assert shelf.images.resolve("app:3").id == each.id


def test_configuration_keeps_every_byte(shelf: Shelf) -> None:
    each = make.image([make.layer([make.file_entry("a")], compress=True), FILE_B], tags=["x:1"], config=EXTENSIONS)
    load(shelf, each)
    archive = save(shelf, "x:1")
    shelf.images.remove("x:1")
    assert shelf.on_disk()[:2] == (0, 0)
    load_bytes(shelf, archive)
    assert shelf.images.resolve("x:1").id == each.id
    assert shelf.images.resolve("x:1").defaults["Healthcheck"] == EXTENSIONS["Healthcheck"]
    assert save(shelf, "x:1") == archive


def test_save_is_both_formats(shelf: Shelf) -> None:
    first, second = make.image([FILE_A], tags=["a:1", "a:2"]), make.image([FILE_B], tags=["b:1"])
    load(shelf, first, second)
    files = {}
    with tarfile.open(fileobj=io.BytesIO(save(shelf, "a:1", "a:2", second.id))) as archive:
        for member in archive:
            opened = archive.extractfile(member)
            files[member.name] = b"" if opened is None else opened.read()
    manifest = json.loads(files["manifest.json"])
    assert [(entry["Config"], entry["RepoTags"]) for entry in manifest] == [
        (f"blobs/sha256/{first.id[7:]}", ["a:1", "a:2"]),
        (f"blobs/sha256/{second.id[7:]}", None),
    ]
    index = json.loads(files["index.json"])
    assert [each.get("annotations", {}).get("io.containerd.image.name") for each in index["manifests"]] == [
        "docker.io/library/a:1", "docker.io/library/a:2", None,
    ]  # fmt: skip
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert make.digest(data) == "sha256:" + name.removeprefix("blobs/sha256/")


def test_save_of_what_is_not_there_writes_nothing(shelf: Shelf) -> None:
    with pytest.raises(NotFound, match=r"^No such image: nope$"):
        shelf.images.save(["nope"], lambda _: pytest.fail("something was written"))


BAD = {
    "wrong layer": (
        make.docker_archive([make.image([FILE_A], rootfs={"diff_ids": [make.digest(FILE_B)]})]),
        "invalid diffID for layer 0",
    ),
    "wrong compressed layer": (
        make.docker_archive([make.image([gzip.compress(FILE_A)], rootfs={"diff_ids": [make.digest(FILE_B)]})]),
        "invalid diffID for layer 0",
    ),
    "layer missing": (
        make.docker_archive([make.image([FILE_A], rootfs={"diff_ids": []})]),
        "layers length mismatch: expected 1, got 0",
    ),
    "file missing": (
        make.docker_archive([make.image([FILE_A])], leave_out=[make.digest(FILE_A)[7:] + "/layer.tar"]),
        "layer.tar is missing",
    ),
    "bad name": (make.docker_archive([make.image([FILE_A], tags=["UPPER:1"])]), "must be lowercase"),
    "second image bad": (
        make.docker_archive([make.image([FILE_A], tags=["a:1"]), make.image([FILE_B], tags=["a/:1"])]),
        "invalid reference format",
    ),
    "escape": (make.docker_archive([make.image([make.layer([make.file_entry("../../x", b"")])])]), "invalid layer"),
    "no archive": (b"what?" * 1000, "invalid tar"),
    "nothing": (b"", "neither manifest.json nor index.json"),
    "cut": (make.docker_archive([make.image([FILE_A])])[:3000], "unexpected EOF"),
    "cut compressed": (gzip.compress(make.docker_archive([make.image([FILE_A])]))[:-300], "invalid|unexpected"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_leaves_nothing(shelf: Shelf, name: str) -> None:
    data, message = BAD[name]
    with pytest.raises(InvalidParameter, match=message):
        load_bytes(shelf, data)
    assert (shelf.on_disk(), shelf.images.count()) == ((0, 0, 0), 0)


def test_a_client_that_goes_away_leaves_nothing(shelf: Shelf) -> None:
    class Gone(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(min(size or 0, 700))
            if not data:
                raise ConnectionResetError
            return data

    with pytest.raises(ConnectionResetError):
        shelf.images.load(Gone(make.docker_archive([make.image([FILE_A])])[:2000]))
    assert shelf.on_disk() == (0, 0, 0)


@pytest.mark.parametrize(
    "point",
    ["image-layer-extracted", "image-layer-unpacked", "image-flushed-not-placed", "image-placed-not-recorded"],
)
def test_a_disk_that_fails_leaves_nothing_that_counts(shelf: Shelf, point: str) -> None:
    each = make.image([FILE_A, FILE_B], tags=["a:1"])
    faults.arm(f"{point}=ENOSPC")
    with pytest.raises(System, match="No space left on device"):
        load(shelf, each)
    assert shelf.images.count() == 0
    load(shelf, each)
    assert (shelf.images.resolve("a:1").id, shelf.on_disk()) == (each.id, (3, 2, 0))


def test_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount.mount_tmpfs(small, size_bytes=24 << 20, flags=0)
    try:
        shelf = Shelf(small)
        fits = make.image([FILE_A], tags=["a:1"])
        load(shelf, fits)
        for compress in (False, True):
            too_big = make.image([make.layer([make.file_entry("big", bytes(30 << 20))], compress=compress)])
            with pytest.raises(System, match="No space left on device"):
                load(shelf, too_big)
        assert shelf.on_disk() == (2, 1, 0)
        assert shelf.images.resolve("a:1").id == fits.id
        shelf.store.close()
    finally:
        mount.umount2(small)


def test_concurrent_loads_and_removals_agree(shelf: Shelf) -> None:
    images = [make.image([FILE_A, make.layer([make.file_entry(str(n))])], tags=[f"i:{n}"]) for n in range(3)]
    errors: list[BaseException] = []

    def work(each: make.TestImage) -> None:
        try:
            for _ in range(4):
                load(shelf, each)
                shelf.images.remove(each.id, force=True)
            load(shelf, each)
        except BaseException as error:  # noqa: BLE001 - it is shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert shelf.is_consistent()
    for each in images:
        top, base = shelf.images.layers_of(shelf.images.resolve(each.id))
        assert base.is_dir()
        assert top.is_dir()


def test_tag_and_remove(shelf: Shelf) -> None:
    each = make.image([FILE_A], tags=["a:1"], config={"Labels": {"k": "v"}})
    load(shelf, each)
    assert shelf.images.tag("a:1", "team/b") == "team/b:latest"
    assert shelf.images.tag("a:1", "quay.io/x", "2") == "quay.io/x:2"
    with pytest.raises(InvalidParameter, match="cannot import digest reference"):
        shelf.images.tag("a:1", f"x@{each.id}")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        shelf.images.remove(each.id)
    assert shelf.images.remove("team/b") == [{"Untagged": "team/b:latest"}]
    assert shelf.images.remove("quay.io/x:2") == [{"Untagged": "quay.io/x:2"}]
    assert shelf.images.remove("a:1") == [
        {"Untagged": "a:1"}, {"Deleted": each.id}, {"Deleted": make.digest(FILE_A)},
    ]  # fmt: skip
    told = [(event.action, event.attributes.get("k")) for event in shelf.events]
    assert told[-2:] == [("untag", "v"), ("delete", None)]
    with pytest.raises(NotFound, match="No such image: a:1"):
        shelf.images.remove("a:1")


def test_layers_of_other_images_stay(shelf: Shelf) -> None:
    first, second = make.image([FILE_A, FILE_B], tags=["a:1"]), make.image([FILE_A], tags=["b:1"])
    load(shelf, first, second)
    records = shelf.images.remove("a:1")
    assert len([record for record in records if "Deleted" in record]) == 2  # the image and its own layer
    (layer,) = shelf.images.layers_of(shelf.images.resolve("b:1"))
    assert (layer / "a").exists()
    deadline = time.monotonic() + 10
    while shelf.on_disk() != (2, 1, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shelf.on_disk() == (2, 1, 0)


def test_an_image_under_a_container_is_kept_until_it_goes(shelf: Shelf) -> None:
    each = make.image([FILE_A], tags=["a:1"])
    load(shelf, each)
    users = [("c" * 64, False)]
    shelf.store.containers.add(ContainerRow("c" * 64, "c", each.id, b"", b""))
    shelf.images.in_use_by = lambda image_id: users if image_id == each.id else []
    with pytest.raises(Conflict, match="must force"):
        shelf.images.remove("a:1")
    assert shelf.images.remove("a:1", force=True) == [{"Untagged": "a:1"}, {"Deleted": each.id}]
    assert shelf.images.list() == []
    with pytest.raises(NotFound):
        shelf.images.resolve(each.id)
    image = shelf.images.get(each.id)
    assert (shelf.images.layers_of(image)[0] / "a").exists()
    shelf.images.restore()
    assert (shelf.images.layers_of(image)[0] / "a").exists()
    users.clear()
    shelf.store.containers.remove("c" * 64)
    shelf.images.container_removed(each.id)
    with pytest.raises(NotFound):
        shelf.images.get(each.id)


def test_a_hidden_image_comes_back_by_load(shelf: Shelf) -> None:
    each = make.image([FILE_A], tags=["a:1"])
    load(shelf, each)
    shelf.images.in_use_by = lambda _: [("c" * 64, False)]
    shelf.images.remove("a:1", force=True)
    load(shelf, each)
    assert shelf.images.resolve("a:1").id == each.id


def test_held_images_are_not_removed(shelf: Shelf) -> None:
    each = make.image([FILE_A], tags=["a:1"])
    load(shelf, each)
    with shelf.images.held("a:1") as image:
        with pytest.raises(Conflict, match="cannot be forced"):
            shelf.images.remove(each.id, force=True)
        assert image.id == each.id
    shelf.images.remove(each.id)


def test_prune(shelf: Shelf) -> None:
    named, unnamed, used = make.image([FILE_A], tags=["a:1"]), make.image([FILE_B]), make.image([FILE_A, FILE_B])
    load(shelf, named, unnamed, used)
    shelf.images.in_use_by = lambda image_id: [("c" * 64, False)] if image_id == used.id else []
    records, freed = shelf.images.prune()
    assert records == [{"Deleted": unnamed.id}, {"Deleted": make.digest(FILE_B)}]
    assert freed == 2
    records, freed = shelf.images.prune({"dangling": ["false"]})
    assert records == [{"Untagged": "a:1"}, {"Deleted": named.id}]
    assert freed == 0


def test_list_newest_first(shelf: Shelf) -> None:
    old = make.image([FILE_A], tags=["old:1"], created="2020-01-01T00:00:00Z")
    new = make.image([FILE_A], tags=["new:1"], created="2024-01-01T00:00:00Z")
    load(shelf, old, new)
    assert [each.tags for each in shelf.images.list()] == [("new:1",), ("old:1",)]
    assert [each.tags for each in shelf.images.list({"before": ["new:1"]})] == [("old:1",)]
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        shelf.images.list({"since": ["nope"]})


@pytest.mark.parametrize("compress", [False, True])
def test_import(shelf: Shelf, compress: bool) -> None:
    said: list[dict[str, object]] = []
    data = make.layer([make.file_entry("etc/x", b"x")], compress=compress)
    wanted = NewImage("team/app", "1", "from a tar", ('CMD ["/x"]', "ENV A=1"))
    image_id = shelf.images.import_(io.BytesIO(data), wanted, said.append)
    assert said == [{"status": image_id}]
    image = shelf.images.resolve("team/app:1")
    assert (image.id, image.defaults["Cmd"], image.defaults["Env"]) == (image_id, ["/x"], ["A=1"])
    assert abs((datetime.now(UTC) - image.created_at).total_seconds()) < 60
    _, steps = shelf.images.history("team/app:1")
    assert [(step.comment, step.size_bytes) for step in steps] == [("from a tar", 1)]
    assert (shelf.images.layers_of(image)[0] / "etc/x").read_bytes() == b"x"
    archive = save(shelf, "team/app:1")
    shelf.images.remove("team/app:1")
    load_bytes(shelf, archive)
    assert shelf.images.resolve("team/app:1").id == image_id


@pytest.mark.parametrize("data", [b"", b"x" * 5000])
def test_import_refuses_what_is_no_tar(shelf: Shelf, data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        shelf.images.import_(io.BytesIO(data), NewImage())
    assert shelf.on_disk() == (0, 0, 0)


def test_busybox_is_the_same_everywhere(shelf: Shelf) -> None:
    archive = make.busybox_archive().read_bytes()
    load_bytes(shelf, archive)
    assert shelf.images.resolve("busybox").id == make.busybox_image().id


def test_commit(shelf: Shelf) -> None:
    parent = make.image([FILE_A], tags=["a:1"], config=EXTENSIONS)
    load(shelf, parent)
    changed = make.layer([make.file_entry(".wh.a"), make.file_entry("new", b"n")])
    description = Description("a note", "me", ('CMD ["/new"]',), created_by="sh")
    image_id = shelf.images.commit(parent.id, lambda write: write(changed), "b", "1", description)
    image, steps = shelf.images.history("b:1")
    assert (image.id, image.defaults["Cmd"], image.defaults["Shell"]) == (image_id, ["/new"], EXTENSIONS["Shell"])
    assert [(step.created_by, step.comment) for step in steps] == [("sh", "a note"), ("layer 0", "")]
    top, base = shelf.images.layers_of(image)
    assert ((top / "new").read_bytes(), (top / "a").is_char_device(), (base / "a").exists()) == (b"n", True, True)
    assert [step.id for step in steps] == [image_id, parent.id]
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        shelf.images.remove(parent.id, force=True)
    assert shelf.images.remove("a:1") == [{"Untagged": "a:1"}]
    assert [each.image.id for each in shelf.images.list()] == [image_id]
    assert len(shelf.images.list(everything=True)) == 2
    assert shelf.images.resolve("b:1").size_bytes == 4
    nothing = shelf.images.commit(image_id, lambda write: write(bytes(1024)), "c", "1", Description())
    assert shelf.images.resolve("c:1").layers == image.layers
    assert [step.size_bytes for step in shelf.images.history("c:1")[1]] == [0, 1, 3]
    assert shelf.images.remove("b:1") == [{"Untagged": "b:1"}]
    removed = [record.get("Deleted") for record in shelf.images.remove("c:1")][1:]
    assert [each for each in removed if each in (nothing, image_id, parent.id)] == [nothing, image_id, parent.id]
    assert shelf.on_disk()[:2] == (0, 0)
