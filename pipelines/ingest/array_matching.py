"""Finds the array of each image by name.

The names of all arrays are of one kind, the one that matches the most images: image IDs, file names, or file names
without suffix; with or without folders. Two kinds that match as many images must give them the same arrays. Whatever
matches twice fails alone.
"""

import logging
import posixpath
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from features.inputs import FileReference
from pipelines.ingest.array_index import ArrayIndex
from pipelines.ingest.whole_array import NAMES_HINT, OPTION
from schemas.errors import UsageError

_log = logging.getLogger("capt.prepare")

# Column of an array, expression of an image, and name in messages. `fold` is a function of `NameMatcher`.
_KINDS = (
    ("name", "fold(image_id)", "image IDs"),
    ("name", "fold(file_name)", "file names"),
    ("name", "stem(fold(file_name))", "file names without suffix"),
    ("base", "fold(image_id)", "image IDs in folders"),
    ("base", "base(fold(file_name))", "file names without folders"),
    ("base", "stem(base(fold(file_name)))", "file names without folders and suffix"),
)
_FITS = """
CREATE TEMP TABLE fit AS SELECT r.image_id, r.key, a.number FROM record r JOIN arrays.array a ON a.{column} = {value}
    WHERE r.status IS NULL;
CREATE INDEX temp.fit_image ON fit (image_id);
CREATE INDEX temp.fit_array ON fit (number);
"""
# Images with an array that get only other arrays by names of another kind.
_CONTRADICTED = """
WITH other AS (SELECT r.image_id, a.number FROM record r JOIN arrays.array a ON a.{column} = {value}
    WHERE r.status IS NULL AND r.image_id IN (SELECT image_id FROM fit))
SELECT count(*) FROM (SELECT image_id FROM other LEFT JOIN fit USING (image_id, number)
    GROUP BY image_id HAVING count(fit.number) = 0)
"""
_UNMATCHED = "number NOT IN (SELECT number FROM fit)"


class ArrayMatcher:
    """The arrays of a job, matched to the images of its database, whose table `record` has the images.

    Args:
        db: The database of the job.
        index: The arrays. Its file must exist as long as the matcher is used.
    """

    def __init__(self, db: sqlite3.Connection, index: ArrayIndex) -> None:
        self._db, self._index = db, index
        db.create_function("base", 1, lambda name: name.rsplit("/", 1)[-1], deterministic=True)
        db.create_function("stem", 1, lambda name: posixpath.splitext(name)[0], deterministic=True)
        db.execute("ATTACH ? AS arrays", (str(index.path),))

    def match(self) -> int:
        """Finds the arrays of the images without a status. Returns the number of arrays that belong to no image.

        Raises:
            UsageError: No array has the name of an image, or two kinds of names fit equally well with different arrays.
        """
        matched = {kind: self._count_matched(*kind[:2]) for kind in _KINDS}
        best = max(_KINDS, key=matched.__getitem__)
        self._db.executescript(_FITS.format(column=best[0], value=best[1]))
        self._check_unique(best[2], [kind for kind in _KINDS if kind != best and matched[kind] == matched[best]])
        example = self._db.execute("SELECT image_id, file_name FROM record WHERE status IS NULL LIMIT 1").fetchone()
        if example and not self._count("SELECT count(*) FROM fit"):
            raise self._no_match(*example)
        unknown, name = self._db.execute(f"SELECT count(*), min(name) FROM arrays.array WHERE {_UNMATCHED}").fetchone()
        if unknown:
            total = self._count("SELECT count(*) FROM arrays.array")
            message = "%s: %d of %d arrays have names that no image of this run has, such as %r."
            _log.warning(message, OPTION, unknown, total, name)
        return int(unknown)

    def list_missing(self) -> Iterator[tuple[str, str]]:
        """Yields image ID and detail of the images without an array."""
        rows = self._db.execute(
            "SELECT image_id FROM record WHERE status IS NULL AND image_id NOT IN (SELECT image_id FROM fit)"
        ).fetchall()
        return ((image_id, "no array has the name of this image") for (image_id,) in rows)

    def list_ambiguous(self) -> Iterator[tuple[str, str]]:
        """Yields image ID and detail of the images with several arrays, and of those that share one array."""
        several = "SELECT image_id, min(number), max(number) FROM fit GROUP BY image_id HAVING count(*) > 1"
        for image_id, *numbers in self._db.execute(several).fetchall():
            first, second = (self._label(number) for number in numbers)
            yield image_id, f"{first} and {second}"
        shared = """SELECT fit.image_id, number, one, other FROM fit JOIN (SELECT number, min(image_id) AS one,
            max(image_id) AS other FROM fit GROUP BY number HAVING count(DISTINCT key) > 1) USING (number)
            WHERE image_id NOT IN (SELECT image_id FROM fit GROUP BY image_id HAVING count(*) > 1)"""
        for image_id, number, one, other in self._db.execute(shared).fetchall():
            yield image_id, f"{self._label(number)} belongs to {one} and {other}"

    def list_planned(self) -> Iterator[dict[str, Any]]:
        """Yields content hash, location, member, row and SHA-256 of the arrays to import, by content hash."""
        names = ("key", "location", "member", "row", "sha256")
        rows = self._db.execute(
            """SELECT r.key, a.location, a.member, a.row, a.sha256 FROM record r JOIN fit USING (image_id)
            JOIN arrays.array a USING (number) WHERE r.status = 'planned' ORDER BY r.key"""
        )
        return (dict(zip(names, row, strict=True)) for row in rows)

    def _check_unique(self, chosen: str, others: Sequence[tuple[str, str, str]]) -> None:
        """Raises UsageError if another kind of names gives an image another array."""
        for column, value, other in others:
            if self._count(_CONTRADICTED.format(column=column, value=value)):
                message = f"the names fit {chosen} and {other}, with different arrays"
                hint = "Name the arrays after the files, with their suffix."
                raise UsageError(message, location=OPTION, hint=hint)

    def _count_matched(self, column: str, value: str) -> int:
        matched = f"EXISTS (SELECT 1 FROM arrays.array a WHERE a.{column} = {value})"
        return self._count(f"SELECT count(*) FROM record WHERE status IS NULL AND {matched}")

    def _count(self, query: str) -> int:
        (number,) = self._db.execute(query).fetchone()
        return int(number)

    def _label(self, number: int) -> str:
        if self._index.whole:
            return f"row {self._count(f'SELECT row FROM arrays.array WHERE number = {number}')}"
        query = "SELECT location, member FROM arrays.array WHERE number = ?"
        return FileReference(*self._db.execute(query, (number,)).fetchone()).label

    def _no_match(self, image_id: str, file_name: str) -> UsageError:
        message = f"no array has the name of an image; an array is named {self._index.example!r}, and an image"
        hint = f"Name each array after the ID or the file of its image. {NAMES_HINT}"
        return UsageError(f"{message} {image_id!r} ({file_name!r})", location=OPTION, hint=hint)
