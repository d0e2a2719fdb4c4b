"""Decides which entries of annotation files are the same image, and assigns every image its ID.

An ID identifies one image per annotation file. The same ID in two files is the same image only if both name the same
file. Otherwise each image with this ID gets a separate ID, `ID@FILE`, independent of the order of the files.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from pipelines.datasets.base import ImageEntry
from schemas.errors import CaptError, RecordError

# Number of recent entries that are not inserted again, because formats name an image with each of its captions.
_RECENT = 1 << 17

_SCHEMA = """
CREATE TABLE entry (image_id TEXT, file_name TEXT, root TEXT, document INT, split TEXT, url TEXT, label TEXT,
    reason TEXT, detail TEXT, group_id TEXT, expected_hash TEXT,
    PRIMARY KEY (image_id, file_name, root, document, split, group_id, expected_hash)) WITHOUT ROWID;
CREATE TABLE repeated (image_id TEXT, file_name TEXT, root TEXT, location TEXT);
CREATE TABLE shared (image_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE conflict (image_id TEXT, document INT, one TEXT, other TEXT, PRIMARY KEY (image_id, document))
    WITHOUT ROWID;
"""
# Single statements, because a script would commit the current transaction.
_RESOLVE = (
    "DELETE FROM shared",
    "DELETE FROM conflict",
    """INSERT INTO shared SELECT image_id FROM entry GROUP BY image_id
        HAVING min(file_name) != max(file_name) OR min(root) != max(root)""",
    """INSERT INTO conflict SELECT image_id, document, min(file_name), max(file_name) FROM entry
        WHERE image_id IN (SELECT image_id FROM shared) GROUP BY image_id, document
        HAVING min(file_name) != max(file_name)""",
)
_UNIQUE_ID = """{table}.image_id || iif({table}.image_id IN (SELECT image_id FROM shared),
    '@' || iif({table}.root = '', {table}.file_name, {table}.root), '')"""
_ID = _UNIQUE_ID.format(table="entry")


class IdentifiedImage(NamedTuple):
    """An image of the annotations with its unique ID. The other fields are those of `ImageEntry`.

    `split` is the published one; an image of two splits appears once with each. `reason` is the reason of its failure.
    """

    image_id: str
    file_name: str
    root: str
    split: str | None
    url: str
    label: str
    reason: str
    detail: str
    group: str
    expected_hash: str = ""


class ImageIdentities:
    """The images in annotation files and their IDs, in tables that are created in the database of a job."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.executescript(_SCHEMA)
        self._numbers: dict[str, int] = {}
        self._is_resolved = True

    def insert(self, entries: Iterable[ImageEntry]) -> None:
        """Inserts entries of annotation files. Repeated entries are one image."""
        recent: set[tuple[str, ...]] = set()
        self._is_resolved = False
        for entry in entries:
            name = (
                *(entry.image_id, entry.file_name, entry.root, entry.document),
                *(entry.split or "", entry.group, entry.expected_hash),
            )
            if name in recent and not entry.location:
                continue
            if len(recent) == _RECENT:
                recent.clear()
            recent.add(name)
            self._insert(entry)

    def list_images(self) -> Iterator[IdentifiedImage]:
        """Yields every image, by its ID in the annotations. CaptError if two images would get the same ID."""
        self._resolve()
        rows = self._db.execute(
            f"""SELECT {_ID}, file_name, root, document, split, url, label, reason, detail, group_id, expected_hash,
            one, other FROM entry LEFT JOIN conflict USING (image_id, document)
            ORDER BY image_id, file_name, root, document"""
        )
        documents = list(self._numbers)
        for name, some in groupby(rows, lambda row: row[:3]):
            yield from _merge(name, sorted((row[3:] for row in some), key=lambda row: documents[row[0]]), documents)

    def look_up(self, document: str, image_id: str) -> str:
        """Returns the unique ID of the image that a caption in `document` names by `image_id`.

        RecordError if the annotation file has no such image, or the ID belongs to two of its images.
        """
        self._resolve()
        rows = self._db.execute(
            f"SELECT DISTINCT {_ID}, file_name FROM entry WHERE image_id = ? AND document = ? LIMIT 2",
            (image_id, self._numbers.get(document, -1)),
        ).fetchall()
        if not rows:
            raise RecordError("parse", "unknown image", "its annotation file lists no such image")
        if len(rows) > 1:
            raise RecordError("parse", "duplicate id", f"{document}: the ID of {rows[0][1]} and {rows[1][1]}")
        return str(rows[0][0])

    def list_repeated(self) -> Iterator[tuple[str, str]]:
        """Yields location and unique ID of the entries that list an image again."""
        self._resolve()
        return iter(self._db.execute(f"SELECT location, {_UNIQUE_ID.format(table='repeated')} FROM repeated"))

    def count_shared_ids(self) -> int:
        """Returns the number of IDs in the annotations that several images share."""
        self._resolve()
        return int(self._db.execute("SELECT count(*) FROM shared").fetchone()[0])

    def _insert(self, entry: ImageEntry) -> None:
        name = (entry.image_id, entry.file_name, entry.root)
        failed = entry.failure
        failure = (failed.reason, f"{failed.location}: {failed.detail}") if failed else ("", "")
        number = self._numbers.setdefault(entry.document, len(self._numbers))
        inserted = self._db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*name, number, entry.split or "", entry.url, entry.label, *failure, entry.group, entry.expected_hash),
        )
        if not inserted.rowcount and entry.location:
            self._db.execute("INSERT INTO repeated VALUES (?, ?, ?, ?)", (*name, entry.location))

    def _resolve(self) -> None:
        if self._is_resolved:
            return
        for statement in _RESOLVE:
            self._db.execute(statement)
        if self._db.execute("SELECT EXISTS (SELECT 1 FROM shared)").fetchone()[0]:
            self._check_unique()
        self._is_resolved = True

    def _check_unique(self) -> None:
        (duplicate,) = self._db.execute(
            f"""SELECT min(id) FROM (SELECT id FROM (SELECT DISTINCT {_ID} AS id, image_id, file_name, root FROM entry)
            GROUP BY id HAVING count(*) > 1)"""
        ).fetchone()
        if duplicate is not None:
            message = f"two images would have the ID {duplicate}"
            raise CaptError(message, location="--annotations", hint="Give the images other IDs.")


def _merge(name: tuple[str, str, str], rows: list[tuple[Any, ...]], documents: list[str]) -> Iterator[IdentifiedImage]:
    """Yields the image of a name (ID, file name and root) once per split. A row begins with its document's number."""
    usable = [row for row in rows if row[-1] is None]
    if not usable:
        document, *_, one, other = rows[0]
        detail = f"{documents[document]}: the ID of {one} and {other}"
        yield IdentifiedImage(*name, None, "", "", "duplicate id", detail, "")
    groups, hashes = (sorted({row[column] for row in usable if row[column]}) for column in (6, 7))
    for split in sorted({row[1] for row in usable}):
        _, _, url, label, reason, detail, *_ = next(row for row in usable if row[1] == split)
        for found, kind in ((groups, "groups"), (hashes, "hashes")):
            if len(found) > 1 and not reason:
                reason, detail = f"two {kind}", " and ".join(found[:2])
        group, expected_hash = (found[0] if found else "" for found in (groups, hashes))
        yield IdentifiedImage(*name, split or None, url, label, reason, detail, group, expected_hash)
