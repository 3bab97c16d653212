"""Trees of files as values, to compare what is in a volume byte by byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path

Files = tuple[tuple[str, int, bytes], ...]
"""Path, mode and content (or the target of a symlink) of everything in a folder, sorted."""


def write_files(root: Path, files: Files) -> None:
    """Make a tree."""
    root.mkdir(parents=True, exist_ok=True)
    for name, mode, content in files:
        path = root / name
        if stat.S_ISLNK(mode):
            path.symlink_to(os.fsdecode(content))
            continue
        if stat.S_ISDIR(mode):
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(stat.S_IMODE(mode))


def read_files(root: Path) -> Files:
    """Read a tree, whole."""
    files = []
    for folder, directories, names in os.walk(root, onerror=_fail):
        for name in [*directories, *names]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.fsencode(path.readlink())
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
            files.append((str(path.relative_to(root)), mode, content))
    return tuple(sorted(files))


def _fail(error: OSError) -> None:
    raise AssertionError(f"cannot read a volume: {error}")
