"""What `holdfast build` sends: everything but what `.dockerignore` names."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from holdfast.cli.build_context import Context
from holdfast.cli.ignore import Ignored
from holdfast.cli.session import Refused


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        (["a"], ["a", "a/b"], ["b/a", "ab"]),
        (["/a/"], ["a", "a/b"], ["b"]),
        (["*.md", "!README.md"], ["x.md"], ["README.md", "d/x.md"]),
        (["**/x"], ["x", "a/x", "a/b/x", "a/x/c"], ["a/xx"]),
        (["a/**"], ["a/b", "a/b/c"], ["b"]),
        (["*", "!src", "src/t?st"], ["a", "src/test"], ["src", "src/main"]),
        (["# a", "", "[ab]c", "\\*"], ["ac", "bc", "*"], ["cc", "a", "# a"]),
        (["a/../b"], ["b"], ["a"]),
        (["."], ["."], []),
    ],
)
def test_patterns(lines: list[str], ignored: list[str], kept: list[str]) -> None:
    patterns = Ignored(lines)
    assert [path for path in ignored if path not in patterns] == []
    assert [path for path in kept if path in patterns] == []


def names(context: Context) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.pieces()))) as archive:
        return {
            entry.name: (archive.extractfile(entry) or io.BytesIO()).read() if entry.isreg() else b""
            for entry in archive
        }


def test_a_folder(tmp_path: Path) -> None:
    for name, text in {
        "Dockerfile": "FROM x",
        "a/kept": "k" * 70_000,
        "a/left": "l",
        ".dockerignore": "*\n!a\na/left",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "a" / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "left")
    context = Context(str(tmp_path), "")
    assert (context.dockerfile, names(context)) == (
        "Dockerfile",
        {".dockerignore": b"*\n!a\na/left", "Dockerfile": b"FROM x", "a": b"", "a/kept": b"k" * 70_000, "a/link": b""},
    )


def test_a_dockerfile_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").write_text("FROM y")
    context = Context(str(tmp_path / "folder"), str(tmp_path / "other"))
    assert names(context) == {context.dockerfile: b"FROM y"}
    for folder, dockerfile in (("nope", ""), ("folder", ""), ("folder", str(tmp_path / "nope"))):
        with pytest.raises(Refused, match="unable to prepare context"):
            Context(str(tmp_path / folder), dockerfile)
