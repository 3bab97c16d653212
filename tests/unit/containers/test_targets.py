"""Mount targets behind dangling links, and links that would lead out of the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.containers.targets import make_target
from holdfast.errors import System


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "out" / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "file").touch()
    (root / "there").mkdir()
    for name, target in {
        "to-there": "/there", "lost": "/srv/data", "relative": "srv/data", "up": "../../../../srv/data",
        "chain": "lost", "etc/inside": "../var/../srv/./data", "round": "circle", "circle": "round", "top": "/..",
        "through-file": "/etc/file/below",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    return root


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root.parent.parent)) for path in root.parent.parent.rglob("*")}


@pytest.mark.parametrize(
    ("destination", "made"),
    [
        ("/lost", ["srv", "srv/data"]),
        ("/relative", ["srv", "srv/data"]),
        ("/up", ["srv", "srv/data"]),
        ("/chain", ["srv", "srv/data"]),
        ("/etc/inside", ["srv", "srv/data"]),
        ("/chain/deeper/still", ["srv", "srv/data", "srv/data/deeper", "srv/data/deeper/still"]),
        ("/to-there/new", ["there/new"]),
    ],
)
def test_what_a_link_names_is_made_in_the_root(rootfs: Path, destination: str, made: list[str]) -> None:
    before = everything(rootfs)
    make_target(rootfs, destination, directory=True)
    assert everything(rootfs) - before == {f"out/root/{name}" for name in made}
    assert all((rootfs / name).is_dir() for name in made)
    make_target(rootfs, destination, directory=True)


def test_files(rootfs: Path) -> None:
    make_target(rootfs, "/chain", directory=False)
    assert (rootfs / "srv" / "data").is_file()


@pytest.mark.parametrize("destination", ["/there", "/to-there", "/etc/file", "/new/deep", "/round", "/round/x", "/top"])
def test_the_rest_is_left_to_the_runtime(rootfs: Path, destination: str) -> None:
    before = everything(rootfs)
    make_target(rootfs, destination, directory=True)
    assert everything(rootfs) == before


def test_a_file_in_the_way(rootfs: Path) -> None:
    with pytest.raises(System, match=r"^cannot make mount point /through-file: .*Not a directory$"):
        make_target(rootfs, "/through-file", directory=True)
