"""The ledger of a captions run: a row a caption, in SQLite on disk, sorted by key without memory growing."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.database import Database
from schemas.errors import RecordError
from schemas.tables import REPORT

_SCHEMA = """
CREATE TABLE record (image_id TEXT PRIMARY KEY, split TEXT, rank INT, captions INT) WITHOUT ROWID;
CREATE TABLE caption (key BLOB PRIMARY KEY, image_id TEXT, caption_id TEXT, caption TEXT) WITHOUT ROWID;
CREATE TABLE stored (key BLOB PRIMARY KEY, caption TEXT, split TEXT) WITHOUT ROWID;
CREATE TABLE refused (record TEXT, status TEXT, stage TEXT, reason TEXT, detail TEXT, image_id TEXT);
"""

_CHOSEN = "FROM caption JOIN record USING (image_id)"
_STORED = (
    "(SELECT 1 FROM stored s WHERE s.key = caption.key AND s.caption = caption.caption AND s.split = record.split)"
)


class CaptionLedger(Database):
    """What one run knows of its captions.

    Args:
        path: Path. The database, made anew.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    def add_images(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Enter images: id, split, rank. The first of an id counts."""
        self._insert("INSERT OR IGNORE INTO record VALUES (?, ?, ?, 0)", rows)

    def add_captions(self, rows: Iterable[tuple[bytes, str, str, str]]) -> None:
        """Enter captions of images entered: key, image id, caption id, text. A key that comes again is a duplicate."""
        for key, image_id, caption_id, caption in rows:
            entered = self._db.execute(
                "INSERT OR IGNORE INTO caption VALUES (?, ?, ?, ?)", (key, image_id, caption_id, caption)
            )
            if not entered.rowcount:
                self._refuse(image_id, caption_id, "duplicate", "", "", "")

    def count_captions(self) -> None:
        """Count each image's captions, for limits; a refused one counts, so that limits choose as for features."""
        self._db.executescript(
            """CREATE TEMP TABLE counted AS SELECT image_id, count(*) AS captions FROM
                (SELECT image_id FROM caption UNION ALL SELECT image_id FROM refused) GROUP BY image_id;
            UPDATE record SET captions = c.captions FROM counted c WHERE c.image_id = record.image_id;"""
        )

    def fail(self, image_id: str, caption_id: str, error: RecordError) -> None:
        """Enter a caption that cannot be used."""
        self._refuse(image_id, caption_id, "failed", error.stage, error.reason, error.detail)

    def add_stored(self, table: pa.Table) -> None:
        """Enter the rows that the table holds already."""
        columns = (table[name].to_pylist() for name in ("key", "caption", "split"))
        self._insert("INSERT OR REPLACE INTO stored VALUES (?, ?, ?)", zip(*columns, strict=True))

    def keep_assigned(self, catalog: pa.Table) -> None:
        """Let the splits of the dataset's images stand."""
        rows = zip(catalog["split"].to_pylist(), catalog["image_id"].to_pylist(), strict=True)
        self._insert("UPDATE record SET split = ? WHERE image_id = ?", rows)

    def captions(self) -> Iterator[dict[str, Any]]:
        """The captions chosen, by key: key, image_id, caption_id, split, caption."""
        names = ("key", "image_id", "caption_id", "split", "caption")
        rows = self._db.execute(f"SELECT key, image_id, caption_id, split, caption {_CHOSEN} ORDER BY key")
        return (dict(zip(names, row, strict=True)) for row in rows)

    def count(self) -> int:
        """How many captions are chosen."""
        return self._one(f"SELECT count(*) {_CHOSEN}")

    def counts(self) -> dict[str, int]:
        """Records by status: ok, cached, duplicate, failed."""
        cached = self._one(f"SELECT count(*) {_CHOSEN} WHERE EXISTS {_STORED}")
        refused = dict(
            self._db.execute("SELECT status, count(*) FROM refused JOIN record USING (image_id) GROUP BY status")
        )
        return {"ok": self.count() - cached, "cached": cached, **refused}

    def reasons(self) -> dict[str, int]:
        """Failed captions by reason, most frequent first."""
        query = """SELECT reason, count(*) FROM refused JOIN record USING (image_id) WHERE status = 'failed'
            GROUP BY reason ORDER BY 2 DESC, 1"""
        return dict(self._db.execute(query))

    def write_report(self, path: Path) -> None:
        """What became of every caption, as Parquet."""
        query = f"""SELECT image_id || '#' || caption_id, iif(EXISTS {_STORED}, 'cached', 'ok'), '', '', '' {_CHOSEN}
            UNION ALL SELECT record, status, stage, reason, detail FROM refused JOIN record USING (image_id)
            ORDER BY 1, 2"""
        self._write(path, REPORT, query)

    def _refuse(self, image_id: str, caption_id: str, *why: str) -> None:
        self._db.execute("INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)", (f"{image_id}#{caption_id}", *why, image_id))
