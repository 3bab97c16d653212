"""The image that people get where no registry answers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "busybox-image.py"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path("/bin/busybox").exists():
        pytest.skip("this machine has no busybox-static; make unit installs nothing")
    path = tmp_path_factory.mktemp("busybox") / "image.tar"
    subprocess.run([sys.executable, SCRIPT, path], check=True, timeout=60)
    return path


def test_the_archive_is_what_its_manifest_says(archive: Path) -> None:
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        (entry,) = json.loads(read("manifest.json"))
        config = read(entry["Config"])
        (layer,) = (read(name) for name in entry["Layers"])
    assert entry["RepoTags"] == ["busybox:latest"]
    assert entry["Config"] == hashlib.sha256(config).hexdigest() + ".json"
    assert json.loads(config)["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]


def test_the_same_program_gives_the_same_image(archive: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, tmp_path / "again.tar"], check=True, timeout=60)
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
