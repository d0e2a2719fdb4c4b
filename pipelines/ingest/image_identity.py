"""Decides which entries of annotation files are the same image, and gives every image its id.

Within one annotation file an id is one image. The same id in two files is the same image only where it names the same
file. Otherwise all images of the id get an id of their own, `ID@FILE`: a function of the set of entries, whatever the
order of the files. All of it lies in a run's database, so that memory does not grow with the images.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from pipelines.datasets.base import ImageEntry
from schemas.errors import CaptError, RecordError

# Entries remembered, so that an image that is named with each of its captions is entered once.
_REMEMBERED = 1 << 17

_SCHEMA = """
CREATE TABLE entry (image_id TEXT, file_name TEXT, root TEXT, document INT, split TEXT, url TEXT, label TEXT,
    reason TEXT, detail TEXT, PRIMARY KEY (image_id, file_name, root, document, split)) WITHOUT ROWID;
CREATE TABLE repeated (image_id TEXT, file_name TEXT, root TEXT, place TEXT);
CREATE TABLE shared (image_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE doubled (image_id TEXT, document INT, one TEXT, other TEXT, PRIMARY KEY (image_id, document))
    WITHOUT ROWID;
"""
_SETTLE = """
DELETE FROM shared;
DELETE FROM doubled;
INSERT INTO shared SELECT image_id FROM entry GROUP BY image_id
    HAVING min(file_name) != max(file_name) OR min(root) != max(root);
INSERT INTO doubled SELECT image_id, document, min(file_name), max(file_name) FROM entry
    WHERE image_id IN (SELECT image_id FROM shared) GROUP BY image_id, document
    HAVING min(file_name) != max(file_name);
"""
_DISTINCT_ID = """{table}.image_id || iif({table}.image_id IN (SELECT image_id FROM shared),
    '@' || iif({table}.root = '', {table}.file_name, {table}.root), '')"""
_ID = _DISTINCT_ID.format(table="entry")


class IdentifiedImage(NamedTuple):
    """An image that the annotations name, under the id that is its alone.

    Args:
        image_id: str. The id.
        file_name: str. Its file's name, as the annotations give it.
        root: str. The label of the root that its file lies in; empty where the annotations name the file.
        split: str or None. The dataset's own split; an image of two splits comes once with each.
        url: str. Its URL; empty where it has none.
        label: str. The word that it shows; empty where none is told.
        reason, detail: str. Why it is a failed record; empty where it is sound.
    """

    image_id: str
    file_name: str
    root: str
    split: str | None
    url: str
    label: str
    reason: str
    detail: str


class ImageIdentities:
    """The images that annotation files name, and their ids.

    Args:
        db: sqlite3.Connection. A run's database, in which the tables are made.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.executescript(_SCHEMA)
        self._documents: dict[str, int] = {}
        self._names: list[str] = []

    def add(self, entries: Iterable[ImageEntry]) -> None:
        """Insert entries of annotation files; what is named again is one image."""
        met: set[tuple[str, ...]] = set()
        for entry in entries:
            name = (entry.image_id, entry.file_name, entry.root, entry.document, entry.split or "")
            if name in met and not entry.location:
                continue
            if len(met) == _REMEMBERED:
                met.clear()
            met.add(name)
            self._add(entry)

    def has_addresses(self) -> bool:
        """Returns whether any image has a URL."""
        return bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM entry WHERE url != '')").fetchone()[0])

    def settle(self) -> None:
        """Decides which ids several images share.

        Raises:
            CaptError: Two images would get one id.
        """
        self._db.executescript(_SETTLE)
        if not self.shared_ids():
            return
        (again,) = self._db.execute(
            f"""SELECT min(id) FROM (SELECT id FROM (SELECT DISTINCT {_ID} AS id, image_id, file_name, root FROM entry)
            GROUP BY id HAVING count(*) > 1)"""
        ).fetchone()
        if again is not None:
            message = f"two images would have the id {again}"
            raise CaptError(message, location="--annotations", hint="give the images other ids")

    def images(self) -> Iterator[IdentifiedImage]:
        """Yields every image, by its id in the annotations, after `settle`."""
        rows = self._db.execute(
            f"""SELECT {_ID}, file_name, root, document, split, url, label, reason, detail, one, other
            FROM entry LEFT JOIN doubled USING (image_id, document) ORDER BY image_id, file_name, root, document"""
        )
        for name, some in groupby(rows, lambda row: row[:3]):
            yield from self._images_of(name, [row[3:] for row in some])

    def image_of(self, document: str, image_id: str) -> str:
        """The id of the image that a caption belongs to, after `settle`.

        Args:
            document: The caption's annotation file.
            image_id: The id that the caption names in it.

        Returns:
            The image's own id.

        Raises:
            RecordError: The annotation file lists no such image, or the id is two of its images.
        """
        rows = self._db.execute(
            f"SELECT DISTINCT {_ID}, file_name FROM entry WHERE image_id = ? AND document = ? LIMIT 2",
            (image_id, self._documents.get(document, -1)),
        ).fetchall()
        if not rows:
            raise RecordError("parse", "unknown image", "its annotation file lists no such image")
        if len(rows) > 1:
            raise RecordError("parse", "duplicate id", f"{document}: one id is {rows[0][1]} and {rows[1][1]}")
        return str(rows[0][0])

    def repeated(self) -> Iterator[tuple[str, str]]:
        """Yields the entries that list an image again: place, and the image's id."""
        return iter(self._db.execute(f"SELECT place, {_DISTINCT_ID.format(table='repeated')} FROM repeated"))

    def shared_ids(self) -> int:
        """Returns how many ids stand for several images."""
        return int(self._db.execute("SELECT count(*) FROM shared").fetchone()[0])

    def _add(self, entry: ImageEntry) -> None:
        name = (entry.image_id, entry.file_name, entry.root)
        failure = (
            (entry.failure.reason, f"{entry.failure.location}: {entry.failure.detail}") if entry.failure else ("", "")
        )
        inserted = self._db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*name, self._number(entry.document), entry.split or "", entry.url, entry.label, *failure),
        )
        if not inserted.rowcount and entry.location:
            self._db.execute("INSERT INTO repeated VALUES (?, ?, ?, ?)", (*name, entry.location))

    def _number(self, document: str) -> int:
        if document not in self._documents:
            self._documents[document] = len(self._names)
            self._names.append(document)
        return self._documents[document]

    def _images_of(self, name: tuple[str, str, str], rows: list[tuple[Any, ...]]) -> Iterator[IdentifiedImage]:
        """One image, once with each of its splits, from its rows.

        Args:
            name: Id, file name and root.
            rows: Annotation file, split, URL, label, reason and detail, and the two files of an id that comes twice.
        """
        rows.sort(key=lambda row: self._names[row[0]])
        sound = [row for row in rows if row[-1] is None]
        if not sound:
            document, *_, one, other = rows[0]
            detail = f"{self._names[document]}: one id is {one} and {other}"
            yield IdentifiedImage(*name, None, "", "", "duplicate id", detail)
        for split in sorted({row[1] for row in sound}):
            _, _, url, label, reason, detail, *_ = next(row for row in sound if row[1] == split)
            yield IdentifiedImage(*name, split or None, url, label, reason, detail)
