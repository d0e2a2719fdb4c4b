"""Stores one row per input caption of a job, and selects the captions that go into the table, sorted by key."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import pyarrow as pa

from features.io.atomic_files import hash_file
from features.text.caption_keys import CaptionsDigest, compute_caption_digest
from features.text.lines import FailedRecord
from pipelines.datasets.limits import Limits
from pipelines.ingest.job_database import TWO_SPLITS, InputRecord, JobDatabase, build_batch
from schemas.errors import RecordError
from schemas.tables import CAPTIONS

_BATCH = 8192

_SELECTED = "FROM caption JOIN record USING (image_id)"
_STORED = (
    "(SELECT 1 FROM stored s WHERE s.key = caption.key AND s.caption = caption.caption AND s.split = record.split)"
)
_SCHEMA = f"""
CREATE TABLE record (image_id TEXT PRIMARY KEY, file_name TEXT, split TEXT, rank INT, stated TEXT, has_hashed_split INT,
    captions INT, other TEXT, image_reason TEXT, image_detail TEXT) WITHOUT ROWID;
CREATE TABLE caption (key BLOB, image_id TEXT, caption_id TEXT, caption TEXT, repaired TEXT, position INT,
    UNIQUE (image_id, caption_id));
CREATE TABLE stored (key BLOB PRIMARY KEY, caption TEXT, split TEXT) WITHOUT ROWID;
CREATE TABLE rejected (record TEXT, status TEXT, stage TEXT, reason TEXT, detail TEXT, image_id TEXT, caption_id TEXT);
CREATE TABLE unreadable (location TEXT, rank INT, reason TEXT, detail TEXT);
CREATE VIEW unusable AS SELECT record, status, stage, reason, detail FROM rejected JOIN record USING (image_id)
    UNION ALL SELECT location, 'failed', 'parse', reason, location || ': ' || detail FROM unreadable;
CREATE VIEW failed AS SELECT reason FROM unusable WHERE status = 'failed';
CREATE VIEW outcome AS
    SELECT image_id || '#' || caption_id AS record, iif(EXISTS {_STORED}, 'cached', 'ok') AS status, '', '', ''
    {_SELECTED}
    UNION ALL SELECT * FROM unusable;
"""

SELECTED_CAPTIONS = pa.schema(
    [CAPTIONS.field(name).arrow_field() for name in ("key", "image_id", "caption_id", "split", "caption")]
)


@dataclass(frozen=True)
class SelectedCaptions:
    """The captions of a job, sorted by key, in Arrow's streaming format with the schema `SELECTED_CAPTIONS`.

    `names` is a file of `schemas.tables.FILE_NAMES`; None if every image ID contains the file name. `inputs` is the
    SHA-256 of all captions in order, with their splits, and of `names`; `train` is the digest of the train split.
    """

    path: Path
    names: Path | None
    rows: int
    inputs: str
    train: CaptionsDigest

    def read_batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the captions, some thousands per batch, mapped into memory."""
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader


class CaptionDatabase(JobDatabase):
    """The input captions of one job."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)
        self._positions = count()

    def insert_images(self, images: Iterable[InputRecord]) -> None:
        """Inserts images. An image for which two splits are stated has no split, and its captions fail."""
        self._insert(
            """INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, 0, '', ?, ?) ON CONFLICT (image_id) DO UPDATE SET
                other = iif(record.stated = '', '', excluded.stated),
                split = iif(record.stated = '', excluded.split, ''),
                has_hashed_split = 0,
                stated = iif(record.stated = '', excluded.stated, record.stated)
            WHERE excluded.stated != '' AND excluded.stated != record.stated""",
            (
                (
                    *(one.image_id, one.file_name, one.split, one.rank, one.stated, one.has_hashed_split),
                    *(one.reason, one.detail),
                )
                for one in images
            ),
        )

    def insert_captions(self, rows: Iterable[tuple[bytes, str, str, str, str]]) -> None:
        """Inserts captions of inserted images: key, image ID, caption ID, text, repair.

        A repeated caption ID is a duplicate if the text is the same, otherwise a failure. Rejected captions count for
        the limits, too, so that both `prepare` commands select the same images.
        """
        numbered = ((*row, position) for row, position in zip(rows, self._positions, strict=False))
        while some := list(islice(numbered, _BATCH)):
            inserted = self._db.executemany("INSERT OR IGNORE INTO caption VALUES (?, ?, ?, ?, ?, ?)", some)
            if inserted.rowcount < len(some):
                for _, image_id, caption_id, caption, _, position in some:
                    self._reject_repeated(image_id, caption_id, caption, position)

    def insert_unreadable(self, record: FailedRecord, rank: int) -> None:
        row = (record.location, rank, record.reason, record.detail)
        self._db.execute("INSERT INTO unreadable VALUES (?, ?, ?, ?)", row)

    def insert_failure(self, image_id: str, caption_id: str, error: RecordError) -> None:
        self._reject(image_id, caption_id, "failed", error.stage, error.reason, error.detail)

    def reject_failed_images(self) -> None:
        """Fails the captions of images that have failed or two splits, then counts the captions per image."""
        self._db.executescript(
            f"""INSERT INTO rejected SELECT image_id || '#' || caption_id, 'failed', 'parse', '{TWO_SPLITS}',
                min(stated, other) || ' and ' || max(stated, other), image_id, caption_id
                FROM caption JOIN record USING (image_id) WHERE other != '';
            INSERT INTO rejected SELECT image_id || '#' || caption_id, 'failed', 'parse', image_reason, image_detail,
                image_id, caption_id FROM caption JOIN record USING (image_id) WHERE image_reason != '' AND other = '';
            DELETE FROM caption WHERE image_id IN (SELECT image_id FROM record WHERE other != '' OR image_reason != '');
            CREATE TEMP TABLE counted AS SELECT image_id, count(*) AS captions FROM
                (SELECT image_id FROM caption UNION ALL SELECT image_id FROM rejected) GROUP BY image_id;
            UPDATE record SET captions = c.captions FROM counted c WHERE c.image_id = record.image_id;"""
        )

    def list_caption_ids(self) -> Iterator[tuple[str, str]]:
        """Yields image ID and caption ID of the captions, also of rejected ones."""
        query = "SELECT image_id, caption_id FROM caption UNION SELECT image_id, caption_id FROM rejected"
        return iter(self._db.execute(query))

    def classify(self, stored: pa.Table) -> None:
        """Sets the status `cached` of the captions that the table already contains."""
        columns = (stored[name].to_pylist() for name in ("key", "caption", "split"))
        self._insert("INSERT OR REPLACE INTO stored VALUES (?, ?, ?)", zip(*columns, strict=True))

    def select_captions(self, path: Path) -> SelectedCaptions:
        """Writes the usable captions to a new file."""
        inputs, train, rows = hashlib.sha256(), CaptionsDigest(), 0
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SELECTED_CAPTIONS) as writer:
            selected = self._db.execute(f"SELECT {', '.join(SELECTED_CAPTIONS.names)} {_SELECTED} ORDER BY key")
            while some := selected.fetchmany(_BATCH):
                batch = build_batch(some, SELECTED_CAPTIONS)
                writer.write_batch(batch)
                keys, splits, captions = (batch[name].to_pylist() for name in ("key", "split", "caption"))
                digests = list(map(compute_caption_digest, keys, captions))
                inputs.update(b"".join(d + split.encode() for d, split in zip(digests, splits, strict=True)))
                train.add(b"".join(d for d, split in zip(digests, splits, strict=True) if split == "train"))
                rows += batch.num_rows
        names = path.with_name("names.parquet") if self.count_file_names() else None
        if names:
            self.write_file_names(names)
            inputs.update(bytes.fromhex(hash_file(names)))
        return SelectedCaptions(path, names, rows, inputs.hexdigest(), train)

    def count(self) -> int:
        return self._count(f"SELECT count(*) {_SELECTED}")

    def count_removed(self) -> int:
        """Returns the number of stored captions that this run does not have, or that failed."""
        return self._count(f"SELECT count(*) - (SELECT count(*) {_SELECTED} JOIN stored USING (key)) FROM stored")

    def count_repaired(self) -> dict[str, int]:
        query = f"SELECT repaired, count(*) {_SELECTED} WHERE repaired != '' GROUP BY repaired ORDER BY 2 DESC, 1"
        return dict(self._db.execute(query))

    def _limit_images(self, limits: Limits) -> None:
        """Keeps also the unreadable records that rank among the kept images."""
        before = self._count("SELECT count(*) FROM record")
        super()._limit_images(limits)
        if self._count("SELECT count(*) FROM record") < before:
            self._db.execute("DELETE FROM unreadable WHERE rank > (SELECT max(rank) FROM record)")

    def _sample_captions(self, count: int) -> bool:
        """Keeps also the unreadable records that rank among the sampled captions."""
        is_limited = super()._sample_captions(count)
        if is_limited:
            self._db.execute("DELETE FROM unreadable WHERE rank > (SELECT max(rank) FROM caption_rank)")
        self._db.executescript(
            """CREATE TEMP TABLE sampled (image_id TEXT, caption_id TEXT, PRIMARY KEY (image_id, caption_id))
                WITHOUT ROWID;
            INSERT OR IGNORE INTO sampled SELECT image_id, caption_id FROM caption_rank;"""
        )
        for table in ("caption", "rejected"):
            self._db.execute(
                f"""DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM sampled s
                WHERE s.image_id = {table}.image_id AND s.caption_id = {table}.caption_id)"""
            )
        return is_limited

    def _reject_repeated(self, image_id: str, caption_id: str, caption: str, position: int) -> None:
        query = "SELECT caption, position FROM caption WHERE image_id = ? AND caption_id = ?"
        known, first = self._db.execute(query, (image_id, caption_id)).fetchone()
        if first != position and known == caption:
            self._reject(image_id, caption_id, "duplicate", "", "", "")
        elif first != position:
            self._reject(image_id, caption_id, "failed", "parse", "duplicate id", f"also with another text: {caption}")

    def _reject(self, image_id: str, caption_id: str, *status: str) -> None:
        row = (f"{image_id}#{caption_id}", *status, image_id, caption_id)
        self._db.execute("INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)", row)
