"""The ledger of a captions run: a row a caption, in SQLite on disk, sorted by key without memory growing."""

from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipelines.datasets.base import FailedRecord
from pipelines.ingest.image_identity import ImageIdentities
from pipelines.ingest.split_records import TWO_SPLITS, SplitRecords
from schemas.errors import RecordError
from schemas.tables import CAPTIONS, REPORT

_BATCH = 8192

_SCHEMA = """
CREATE TABLE record (image_id TEXT PRIMARY KEY, file_name TEXT, split TEXT, rank INT, stated TEXT, hashed INT,
    captions INT, other TEXT) WITHOUT ROWID;
CREATE TABLE caption (key BLOB, image_id TEXT, caption_id TEXT, caption TEXT, repaired TEXT, place INT,
    UNIQUE (image_id, caption_id));
CREATE TABLE stored (key BLOB PRIMARY KEY, caption TEXT, split TEXT) WITHOUT ROWID;
CREATE TABLE refused (record TEXT, status TEXT, stage TEXT, reason TEXT, detail TEXT, image_id TEXT);
CREATE TABLE malformed (place TEXT, rank INT, reason TEXT, detail TEXT);
CREATE VIEW lost AS SELECT record, status, stage, reason, detail FROM refused JOIN record USING (image_id)
    UNION ALL SELECT place, 'failed', 'parse', reason, place || ': ' || detail FROM malformed;
"""

SELECTED_CAPTIONS = pa.schema(
    [CAPTIONS.field(name).arrow_field() for name in ("key", "image_id", "caption_id", "split", "caption")]
)
_CHOSEN = "FROM caption JOIN record USING (image_id)"
_STORED = (
    "(SELECT 1 FROM stored s WHERE s.key = caption.key AND s.caption = caption.caption AND s.split = record.split)"
)


class CaptionedImage(NamedTuple):
    """An image of a dataset as it is entered.

    Args:
        image_id: Its ID.
        file_name: Its file's name, as the annotations give it.
        split: Its split.
        rank: Where a limit places it.
        stated: The split that the input states; empty if it states none.
        hashed: Whether a hash of the image ID decides the split.
    """

    image_id: str
    file_name: str
    split: str
    rank: int
    stated: str = ""
    hashed: bool = False


class CaptionDatabase(SplitRecords):
    """What one run knows of its captions.

    Args:
        path: Path. The database, made anew.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)
        self.identities = ImageIdentities(self._db)
        self._places = count()

    def add_images(self, images: Iterable[CaptionedImage]) -> None:
        """Enter images. One for which two splits are stated has none."""
        self._insert(
            """INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, 0, '') ON CONFLICT (image_id) DO UPDATE SET
                other = iif(record.stated = '', '', excluded.stated),
                split = iif(record.stated = '', excluded.split, ''),
                hashed = 0,
                stated = iif(record.stated = '', excluded.stated, record.stated)
            WHERE excluded.stated != '' AND excluded.stated != record.stated""",
            images,
        )

    def add_captions(self, rows: Iterable[tuple[bytes, str, str, str, str]]) -> None:
        """Enter captions of images entered: key, image id, caption id, text, what was mended.

        Ids that come again are a duplicate where the text is the same, and failed where it is another.
        """
        placed = ((*row, place) for row, place in zip(rows, self._places, strict=False))
        while some := list(islice(placed, _BATCH)):
            entered = self._db.executemany("INSERT OR IGNORE INTO caption VALUES (?, ?, ?, ?, ?, ?)", some)
            if entered.rowcount < len(some):
                for _, image_id, caption_id, caption, _, place in some:
                    self._enter_again(image_id, caption_id, caption, place)

    def add_malformed(self, malformed: FailedRecord, rank: int) -> None:
        """Enter what cannot be read as a caption; of no image, it has the rank of its place."""
        row = (malformed.location, rank, malformed.reason, malformed.detail)
        self._db.execute("INSERT INTO malformed VALUES (?, ?, ?, ?)", row)

    def refuse_two_splits(self) -> None:
        """Let the captions fail whose image has two splits."""
        self._db.executescript(
            f"""INSERT INTO refused SELECT image_id || '#' || caption_id, 'failed', 'parse', '{TWO_SPLITS}',
                min(stated, other) || ' and ' || max(stated, other), image_id
                FROM caption JOIN record USING (image_id) WHERE other != '';
            DELETE FROM caption WHERE image_id IN (SELECT image_id FROM record WHERE other != '');"""
        )

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

    def limit(self, images: int | None, captions: int | None) -> None:
        """Keep the images of smallest rank; of what is malformed, where images fall away, what ranks among those."""
        before = self._one("SELECT count(*) FROM record")
        super().limit(images, captions)
        if self._one("SELECT count(*) FROM record") < before:
            self._db.execute("DELETE FROM malformed WHERE rank > (SELECT max(rank) FROM record)")

    def captions(self) -> Iterator[pa.RecordBatch]:
        """The captions chosen, by key, some thousands a batch of schema `SELECTED_CAPTIONS`."""
        rows = self._db.execute(f"SELECT {', '.join(SELECTED_CAPTIONS.names)} {_CHOSEN} ORDER BY key")
        while some := rows.fetchmany(_BATCH):
            columns = zip(zip(*some, strict=True), SELECTED_CAPTIONS, strict=True)
            yield pa.record_batch([pa.array(column, field.type) for column, field in columns], schema=SELECTED_CAPTIONS)

    def count(self) -> int:
        """How many captions are chosen."""
        return self._one(f"SELECT count(*) {_CHOSEN}")

    def counts(self) -> dict[str, int]:
        """Records by status: ok, cached, duplicate, failed."""
        cached = self._one(f"SELECT count(*) {_CHOSEN} WHERE EXISTS {_STORED}")
        lost = dict(self._db.execute("SELECT status, count(*) FROM lost GROUP BY status"))
        return {"ok": self.count() - cached, "cached": cached, **lost}

    def reasons(self) -> dict[str, int]:
        """Failed captions by reason, most frequent first."""
        query = "SELECT reason, count(*) FROM lost WHERE status = 'failed' GROUP BY reason ORDER BY 2 DESC, 1"
        return dict(self._db.execute(query))

    def repaired(self) -> dict[str, int]:
        """Captions chosen that were mended, by what was."""
        query = f"SELECT repaired, count(*) {_CHOSEN} WHERE repaired != '' GROUP BY repaired ORDER BY 2 DESC, 1"
        return dict(self._db.execute(query))

    def write_report(self, path: Path) -> None:
        """What became of every caption, as Parquet."""
        query = f"""SELECT image_id || '#' || caption_id, iif(EXISTS {_STORED}, 'cached', 'ok'), '', '', '' {_CHOSEN}
            UNION ALL SELECT * FROM lost ORDER BY 1, 2"""
        self._write(path, REPORT, query)

    def _enter_again(self, image_id: str, caption_id: str, caption: str, place: int) -> None:
        """Refuse a caption that is not the first of its ids."""
        query = "SELECT caption, place FROM caption WHERE image_id = ? AND caption_id = ?"
        known, first = self._db.execute(query, (image_id, caption_id)).fetchone()
        if first == place:
            return
        if known == caption:
            self._refuse(image_id, caption_id, "duplicate", "", "", "")
        else:
            self._refuse(image_id, caption_id, "failed", "parse", "duplicate id", f"also for another text: {caption}")

    def _refuse(self, image_id: str, caption_id: str, *why: str) -> None:
        self._db.execute("INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)", (f"{image_id}#{caption_id}", *why, image_id))
