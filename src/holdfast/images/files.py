"""Where images lie on disk.

    images/                   0700: set-user-ID files in layers are nobody's to run (CVE-2021-41091)
      blobs/sha256/HEX        configs, manifests and layer tars, the bytes exactly as they came
      layers/HEX/diff         an unpacked layer; HEX is its chain id, so a layer is unpacked once per stack below it
      tmp/                    work in progress; swept at start

Everything is made in `tmp` and renamed into place once it is complete and on disk, and only then recorded. So a blob
or layer that no row refers to is left over from a crash, and a row never lacks its files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from holdfast.kernel.path import owned_fd, remove_tree, syncfs


class ImageFiles:
    """The directories of images below the state root."""

    def __init__(self, state_root: Path) -> None:
        self.root = state_root / "images"
        self.blobs = self.root / "blobs" / "sha256"
        self.layers = self.root / "layers"
        self.tmp = self.root / "tmp"

    def make(self) -> None:
        """Make the directories that are missing. Raises OSError."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.blobs, self.layers, self.tmp):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        """The file of a blob; `digest` must have been checked."""
        return self.blobs / _hex(digest)

    def layer(self, chain_id: str) -> Path:
        """The directory with a layer's files."""
        return self.layers / _hex(chain_id) / "diff"

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory of one's own for the length of the block, on the file system of the rest."""
        path = Path(tempfile.mkdtemp(dir=self.tmp))
        try:
            yield path
        finally:
            remove_entry(self.tmp, path.name)

    def place_blob(self, source: Path, digest: str) -> None:
        """Rename a finished blob into place; the same content may be there already. Raises OSError."""
        os.rename(source, self.blob(digest))

    def place_layer(self, source: Path, chain_id: str) -> None:
        """Rename a directory that holds a finished `diff` into place, over what a crash may have left.

        The caller knows that no row refers to this layer. Raises OSError.
        """
        with contextlib.suppress(FileNotFoundError):
            remove_entry(self.tmp, self.discard_layer(chain_id).name)
        os.rename(source, self.layers / _hex(chain_id))

    def discard_layer(self, chain_id: str) -> Path:
        """Take a layer out of its place in one step; gives the entry of `tmp` to remove. FileNotFoundError: none."""
        target = Path(tempfile.mkdtemp(dir=self.tmp))
        try:
            os.rename(self.layers / _hex(chain_id), target)
        except FileNotFoundError:
            target.rmdir()
            raise
        return target

    def discard_blob(self, digest: str) -> None:
        """Remove a blob that nothing refers to; one that is gone is no error."""
        self.blob(digest).unlink(missing_ok=True)

    def flush(self) -> None:
        """Put everything written so far on disk. Raises OSError. One call however many files: syncfs(2)."""
        with owned_fd(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            syncfs(fd)

    def sweep(self, blobs: set[str], layers: set[str]) -> int:
        """Remove unfinished work, and blobs and layers not in these sets of digests; gives how many. Raises OSError."""
        wanted = {_hex(digest) for digest in blobs}
        stacks = {_hex(chain_id) for chain_id in layers}
        strays = [(self.tmp, name) for name in os.listdir(self.tmp)]
        strays += [(self.blobs, name) for name in os.listdir(self.blobs) if name not in wanted]
        strays += [(self.layers, name) for name in os.listdir(self.layers) if name not in stacks]
        for directory, name in strays:
            remove_entry(directory, name)
        return len(strays)


def remove_entry(directory: Path, name: str) -> None:
    """Remove one entry of `directory` with all below it; one that is gone is no error. Raises OSError."""
    with (
        owned_fd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd,
        contextlib.suppress(FileNotFoundError),
    ):
        remove_tree(fd, name)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
