"""Rows of images, of their layers and of the names that lead to them.

A layer belongs to every image that lists it in `image_layer_uses`; it is kept while there is one. An image that was
removed by force under a container is `hidden`: no name leads to it, and it goes when the last container does.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.store.database import Database

IMAGE_TABLES = """
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    created_at REAL NOT NULL,
    tagged_at REAL,
    hidden INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layers (
    chain_id TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    blob_digest TEXT NOT NULL,
    blob_size_bytes INTEGER NOT NULL,
    media_type TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layer_uses (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    chain_id TEXT NOT NULL REFERENCES image_layers (chain_id),
    PRIMARY KEY (image_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX images_hidden ON images (hidden) WHERE hidden = 1;
CREATE INDEX image_layer_uses_by_chain ON image_layer_uses (chain_id);
CREATE TABLE image_tags (
    reference TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX image_tags_by_image ON image_tags (image_id);
CREATE TABLE image_digests (
    reference TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    manifest_digest TEXT NOT NULL -- of the manifest that is kept; empty: none is
) STRICT, WITHOUT ROWID;
CREATE INDEX image_digests_by_image ON image_digests (image_id);
"""

IMAGE_PARENTS = "ALTER TABLE images ADD COLUMN parent_id TEXT;\n"

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """An unpacked layer and the blob it came from.

    `chain_id` names the layer together with all below it, `diff_id` is the digest of its uncompressed tar,
    `size_bytes` the size of its files; the blob is as it came, compressed or not.
    """

    chain_id: str
    diff_id: str
    size_bytes: int
    blob_digest: str
    blob_size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image. `config` is the exact text whose digest is `id`; `layers` are chain ids, lowest first.

    `tags` and `digests` are references in normal form, sorted. Times are in seconds since the Unix epoch;
    `tagged_at` is None for an image that was never named here. `parent_id` is the image that it was made from here,
    which may be gone by now; "" for one that came from elsewhere.
    """

    id: str
    config: bytes
    created_at: float
    tagged_at: float | None
    hidden: bool
    layers: tuple[str, ...]
    size_bytes: int
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    parent_id: str = ""


@dataclass(frozen=True, slots=True)
class Unused:
    """What nothing refers to any more once a removal is recorded: chain ids of layers, digests of blobs."""

    layers: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()


class ImageTable:
    """The SQL of images. Every write is on disk when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        image_id: str,
        config: bytes,
        created_at: float,
        layers: Sequence[LayerRecord],
        *,
        tags: Mapping[str, float | None],
        digests: Mapping[str, str],
        parent_id: str = "",
    ) -> dict[str, str]:
        """Record an image, its layers (lowest first) and its names in one transaction.

        `tags` maps references to the time a user gave them, None if they came with the image, `digests` references by
        digest to the manifest's own digest. What is recorded already stays, a hidden image comes back, a tag of another
        image moves here. Gives the tags that moved, with the image each belonged to.
        """

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            connection.execute(
                "INSERT INTO images (id, config, created_at, parent_id) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET hidden = 0",
                (image_id, config, created_at, parent_id or None),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO image_layers VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        layer.chain_id,
                        layer.diff_id,
                        layer.size_bytes,
                        layer.blob_digest,
                        layer.blob_size_bytes,
                        layer.media_type,
                    )
                    for layer in layers
                ],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO image_layer_uses VALUES (?, ?, ?)",
                [(image_id, position, layer.chain_id) for position, layer in enumerate(layers)],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO image_digests VALUES (?, ?, ?)",
                [(reference, image_id, manifest) for reference, manifest in digests.items()],
            )
            moved = {}
            for reference, at in tags.items():
                previous = _tag(connection, reference, image_id, at)
                if previous is not None and previous != image_id:
                    moved[reference] = previous
            return moved

        return self._database.write(work)

    def tag(self, reference: str, image_id: str, tagged_at: float) -> str | None:
        """Give an image a name; gives the id of the image that had it before, None if none had."""
        return self._database.write(lambda connection: _tag(connection, reference, image_id, tagged_at))

    def add_digest(self, reference: str, image_id: str) -> None:
        """Remember that a registry has an image under this digest; its manifest there is not kept here."""
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO image_digests VALUES (?, ?, '')", (reference, image_id)
            )
        )

    def untag(self, references: Sequence[str]) -> None:
        """Forget names, tags and digests alike; one that is not there is no error."""

        def work(connection: sqlite3.Connection) -> None:
            rows = [(reference,) for reference in references]
            connection.executemany("DELETE FROM image_tags WHERE reference = ?", rows)
            connection.executemany("DELETE FROM image_digests WHERE reference = ?", rows)

        self._database.write(work)

    def remove(self, image_id: str, *, keep_hidden: bool) -> Unused:
        """Forget an image and its names; gives what nothing needs any more, its rows gone too.

        With `keep_hidden`, or if a container is recorded with it, the image itself stays, hidden, with its layers.
        """

        def work(connection: sqlite3.Connection) -> Unused:
            used = connection.execute("SELECT 1 FROM containers WHERE image_id = ? LIMIT 1", (image_id,)).fetchone()
            if keep_hidden or used is not None:
                connection.execute("UPDATE images SET hidden = 1 WHERE id = ?", (image_id,))
                connection.execute("DELETE FROM image_tags WHERE image_id = ?", (image_id,))
                connection.execute("DELETE FROM image_digests WHERE image_id = ?", (image_id,))
                return Unused()
            return _remove(connection, [image_id])

        return self._database.write(work)

    def remove_hidden(self, *, keep: Iterable[str]) -> Unused:
        """Forget the hidden images that no recorded container and no id in `keep` needs; gives what is left over."""
        kept = frozenset(keep)

        def work(connection: sqlite3.Connection) -> Unused:
            rows = connection.execute(
                "SELECT id FROM images WHERE hidden = 1 AND id NOT IN (SELECT image_id FROM containers)"
            ).fetchall()
            return _remove(connection, [row[0] for row in rows if row[0] not in kept])

        return self._database.write(work)

    def hidden(self) -> set[str]:
        """Give the ids of the hidden images; there are few at any time."""
        rows = self._database.read(
            lambda connection: connection.execute("SELECT id FROM images WHERE hidden = 1").fetchall()
        )
        return {row[0] for row in rows}

    def get(self, image_id: str) -> ImageRecord | None:
        """Give the image with this complete id, hidden or not."""
        found = self._database.read(lambda connection: _records(connection, "WHERE id = ?", (image_id,)))
        return found[0] if found else None

    def all(self) -> list[ImageRecord]:
        """Give every image that is not hidden, newest first."""
        return self._database.read(
            lambda connection: _records(connection, "WHERE hidden = 0 ORDER BY created_at DESC, id", ())
        )

    def count(self) -> int:
        """How many images there are, hidden ones left out."""
        row = self._one("SELECT count(*) FROM images WHERE hidden = 0", ())
        assert row is not None
        return int(row[0])

    def find_tag(self, reference: str) -> str | None:
        """Give the id of the image with this tag, in normal form."""
        row = self._one("SELECT image_id FROM image_tags WHERE reference = ?", (reference,))
        return None if row is None else str(row[0])

    def find_digest(self, reference: str) -> str | None:
        """Give the id of the image with this reference by digest, in normal form."""
        row = self._one("SELECT image_id FROM image_digests WHERE reference = ?", (reference,))
        return None if row is None else str(row[0])

    def manifest_of(self, image_id: str) -> str | None:
        """Give the digest of a manifest that this image came with, if it came with one."""
        row = self._one(
            "SELECT manifest_digest FROM image_digests WHERE image_id = ? AND manifest_digest != ''"
            " ORDER BY reference LIMIT 1",
            (image_id,),
        )
        return None if row is None else str(row[0])

    def children_of(self, image_id: str) -> list[str]:
        """Give the ids of the images, not hidden, that were made from this one here."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id FROM images WHERE parent_id = ? AND hidden = 0 ORDER BY id", (image_id,)
            ).fetchall()
        )
        return [row[0] for row in rows]

    def find_prefix(self, digits: str) -> list[str]:
        """Give up to two ids, not hidden, that begin with these hexadecimal digits."""
        low = f"sha256:{digits}"
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id FROM images WHERE id >= ? AND id < ? AND hidden = 0 LIMIT 2", (low, low + "g")
            ).fetchall()
        )
        return [row[0] for row in rows]

    def layers_of(self, image_id: str) -> list[LayerRecord]:
        """Give the layers of an image, lowest first."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT l.chain_id, diff_id, size_bytes, blob_digest, blob_size_bytes, media_type"
                " FROM image_layer_uses u JOIN image_layers l ON l.chain_id = u.chain_id"
                " WHERE u.image_id = ? ORDER BY position",
                (image_id,),
            ).fetchall()
        )
        return [LayerRecord(*row) for row in rows]

    def layer(self, chain_id: str) -> LayerRecord | None:
        """Give a layer by its chain id."""
        row = self._one(
            "SELECT chain_id, diff_id, size_bytes, blob_digest, blob_size_bytes, media_type"
            " FROM image_layers WHERE chain_id = ?",
            (chain_id,),
        )
        return None if row is None else LayerRecord(*row)

    def layer_sizes(self) -> dict[str, tuple[int, int]]:
        """Map each chain id to the size of its files in bytes and the number of images, hidden too, that use it."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT l.chain_id, l.size_bytes, count(u.image_id)"
                " FROM image_layers l LEFT JOIN image_layer_uses u ON u.chain_id = l.chain_id GROUP BY l.chain_id"
            ).fetchall()
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def blobs(self) -> set[str]:
        """Give the digests of every blob that something refers to."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id FROM images UNION SELECT blob_digest FROM image_layers"
                " UNION SELECT manifest_digest FROM image_digests WHERE manifest_digest != ''"
            ).fetchall()
        )
        return {row[0] for row in rows}

    def _one(self, statement: str, arguments: tuple[str, ...]) -> Row | None:
        row: Row | None = self._database.read(
            lambda connection: connection.execute(statement, arguments).fetchone()
        )
        return row


def _tag(connection: sqlite3.Connection, reference: str, image_id: str, tagged_at: float | None) -> str | None:
    row = connection.execute("SELECT image_id FROM image_tags WHERE reference = ?", (reference,)).fetchone()
    connection.execute("INSERT OR REPLACE INTO image_tags VALUES (?, ?)", (reference, image_id))
    if tagged_at is not None:
        connection.execute("UPDATE images SET tagged_at = ? WHERE id = ?", (tagged_at, image_id))
    return None if row is None else str(row[0])


def _remove(connection: sqlite3.Connection, image_ids: Sequence[str]) -> Unused:
    """Delete images, the layers that no other image uses, and name the blobs that nothing refers to afterwards."""
    blobs: list[str] = list(image_ids)
    for image_id in image_ids:
        blobs += [
            row[0]
            for row in connection.execute(
                "SELECT manifest_digest FROM image_digests WHERE image_id = ? AND manifest_digest != ''", (image_id,)
            )
        ]
        connection.execute("DELETE FROM images WHERE id = ?", (image_id,))
        connection.execute("UPDATE images SET parent_id = NULL WHERE parent_id = ?", (image_id,))
    unused = connection.execute(
        "DELETE FROM image_layers WHERE chain_id NOT IN (SELECT chain_id FROM image_layer_uses)"
        " RETURNING chain_id, blob_digest"
    ).fetchall()
    blobs += [row[1] for row in unused]
    needed = (
        "SELECT 1 FROM images WHERE id = ?1 UNION ALL SELECT 1 FROM image_layers WHERE blob_digest = ?1"
        " UNION ALL SELECT 1 FROM image_digests WHERE manifest_digest = ?1"
    )
    free = tuple(digest for digest in sorted(set(blobs)) if connection.execute(needed, (digest,)).fetchone() is None)
    return Unused(tuple(row[0] for row in unused), free)


def _records(connection: sqlite3.Connection, where: str, arguments: tuple[str, ...]) -> list[ImageRecord]:
    """Read images with what belongs to them; `where` is one of this module's own clauses."""
    rows = connection.execute(
        f"SELECT id, config, created_at, tagged_at, hidden, parent_id FROM images {where}", arguments
    ).fetchall()
    only = "" if len(rows) != 1 else "WHERE image_id = ?"
    key = (rows[0][0],) if len(rows) == 1 else ()
    layers: defaultdict[str, list[str]] = defaultdict(list)
    sizes: defaultdict[str, int] = defaultdict(int)
    for image_id, chain_id, size in connection.execute(
        "SELECT image_id, l.chain_id, size_bytes FROM image_layer_uses u"
        f" JOIN image_layers l ON l.chain_id = u.chain_id {only} ORDER BY image_id, position",
        key,
    ):
        layers[image_id].append(chain_id)
        sizes[image_id] += size
    names: dict[str, defaultdict[str, list[str]]] = {}
    for table in ("image_tags", "image_digests"):
        names[table] = defaultdict(list)
        for image_id, reference in connection.execute(
            f"SELECT image_id, reference FROM {table} {only} ORDER BY reference", key
        ):
            names[table][image_id].append(reference)
    return [
        ImageRecord(
            id=row[0],
            config=row[1],
            created_at=row[2],
            tagged_at=row[3],
            hidden=bool(row[4]),
            layers=tuple(layers[row[0]]),
            size_bytes=sizes[row[0]],
            tags=tuple(names["image_tags"][row[0]]),
            digests=tuple(names["image_digests"][row[0]]),
            parent_id=row[5] or "",
        )
        for row in rows
    ]
