"""The engine killed at every step of loading and removing an image: afterwards all of it is there, or nothing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.images.conftest import Shelf
from tests.support import images as make

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = make.image(
    [make.layer([make.file_entry("a", b"a")]), make.layer([make.file_entry("b", b"b")], compress=True)], tags=["a:1"]
)
VICTIM = """
import sys
from pathlib import Path
from tests.integration.images.conftest import Shelf
shelf = Shelf(Path(sys.argv[1]))
if sys.argv[2] == "load":
    with open(sys.argv[3], "rb") as archive:
        shelf.images.load(archive)
else:
    shelf.images.remove("a:1")
"""


def run_until_killed(state_root: Path, work: str, archive: Path, faults: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, state_root, work, archive],
        env={**os.environ, "HOLDFAST_FAULTS": faults, "PYTHONPATH": f"{PROJECT}/src:{PROJECT}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "point",
    [
        "image-layer-extracted",
        "image-layer-extracted@2",
        "image-layer-unpacked",
        "image-layer-unpacked@2",
        "image-flushed-not-placed",
        "image-placed-not-recorded",
        "image-recorded",
    ],
)
def test_killed_while_loading(tmp_path: Path, point: str) -> None:
    state_root = tmp_path / "state"
    state_root.mkdir()
    archive = tmp_path / "archive"
    archive.write_bytes(make.docker_archive([IMAGE]))
    run_until_killed(state_root, "load", archive, point)
    shelf = Shelf(state_root)
    recorded = point == "image-recorded"
    assert shelf.on_disk() == ((3, 2, 0) if recorded else (0, 0, 0))
    assert shelf.images.count() == int(recorded)
    shelf.images.load(io.BytesIO(archive.read_bytes()))
    assert shelf.images.resolve("a:1").id == IMAGE.id
    assert shelf.on_disk() == (3, 2, 0)
    shelf.store.close()


def test_killed_while_removing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.images.load(io.BytesIO(make.docker_archive([IMAGE])))
    shelf.store.close()
    run_until_killed(tmp_path, "remove", tmp_path, "image-forgotten-not-removed")
    shelf = Shelf(tmp_path)
    assert (shelf.images.count(), shelf.on_disk()) == (0, (0, 0, 0))
    shelf.store.close()
