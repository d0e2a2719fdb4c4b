"""Stores the records of one job in SQLite on disk, so that memory does not grow with their number."""

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from features.store import Dataset
from pipelines.datasets.limits import Limits
from pipelines.ingest.image_identity import ImageIdentities
from schemas.errors import StoreError
from schemas.tables import ASSIGNED_SPLITS, FILE_NAMES, REPORT, Table

_log = logging.getLogger("capt.prepare")

JOB_DATABASE = "ledger.sqlite"

# The failure reason of an image for which the input states more than one split.
TWO_SPLITS = "two splits"

_CACHE_KIB = 32_768
_BATCH = 10_000
_CATALOG_BATCH = 1 << 16

_ASSIGNED = """CREATE TABLE assigned (image_id TEXT PRIMARY KEY, split TEXT, catalogued INT, key BLOB) WITHOUT ROWID;"""
# Filled only if captions are sampled.
_CAPTION_RANKS = """CREATE TABLE caption_rank (rank INT, image_id TEXT, caption_id TEXT,
    PRIMARY KEY (rank, image_id, caption_id)) WITHOUT ROWID;"""
_NEW = "split != '' AND NOT EXISTS (SELECT 1 FROM assigned a WHERE a.image_id = record.image_id)"
# Images whose ID is neither their file name nor the end of its path.
_NAMED = """FROM record WHERE file_name NOT IN ('', image_id)
    AND substr(file_name, -1 - length(image_id)) != '/' || image_id"""


class InputRecord(NamedTuple):
    """An image of a dataset, as inserted. A missing text is empty.

    Args:
        image_id: Unique ID.
        split: The assigned split.
        rank: Order in which limits select images, smallest first.
        stated: The split that the input states.
        reason: Reason of the failure, if the image has failed; `detail` is its problem.
        expected_hash: As in `ImageEntry`.
    """

    image_id: str
    file_name: str
    split: str
    rank: int
    root: str = ""
    url: str = ""
    label: str = ""
    stated: str = ""
    has_hashed_split: bool = False
    reason: str = ""
    detail: str = ""
    expected_hash: str = ""


class JobDatabase:
    """The records of one job, with the split of each image. `path` must not exist.

    The schema of a subclass defines the table `record` with one row per image (an `InputRecord` and its number of
    `captions`), and the views `outcome` (columns of `schemas.tables.REPORT`) and `failed` (column `reason`).
    """

    # The images that the catalog of the next commit contains.
    _CATALOGUED = "SELECT image_id FROM assigned WHERE catalogued"

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB};")
        self._db.executescript(schema + _ASSIGNED + _CAPTION_RANKS)
        self._empty_bytes = self._measure()
        self.identities = ImageIdentities(self._db)
        self._assigned_by: tuple[str, bool] | None = None

    @property
    def bytes(self) -> int:
        """Bytes on disk that the rows occupy."""
        return self._measure() - self._empty_bytes

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes the block one transaction; a nested block is part of the outer one."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        yield
        self._db.execute("COMMIT")

    def insert_caption_ranks(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Inserts rank, image ID and caption ID of each caption that can be sampled."""
        self._insert("INSERT OR IGNORE INTO caption_rank VALUES (?, ?, ?)", rows)

    def limit(self, limits: Limits) -> None:
        """Keeps the images of smallest rank, each limit being applied to the images that the one before it keeps."""
        self._limit_images(limits)
        if limits.sampled_captions is not None:
            self._sample_captions(limits.sampled_captions)

    def _limit_images(self, limits: Limits) -> None:
        if limits.images is not None:
            kept = "SELECT image_id FROM record ORDER BY rank, image_id LIMIT ?"
            self._db.execute(f"DELETE FROM record WHERE image_id NOT IN ({kept})", (limits.images,))
        for split, images in limits.images_by_split.items():
            kept = "SELECT image_id FROM record WHERE split = ?1 ORDER BY rank, image_id LIMIT ?2"
            self._db.execute(f"DELETE FROM record WHERE split = ?1 AND image_id NOT IN ({kept})", (split, images))
        if limits.captions is not None:
            sums = "SELECT image_id, sum(coalesce(captions, 0)) OVER (ORDER BY rank, image_id) AS total FROM record"
            beyond = f"SELECT image_id FROM ({sums}) WHERE total > ?"
            self._db.execute(f"DELETE FROM record WHERE image_id IN ({beyond})", (limits.captions,))

    def _sample_captions(self, count: int) -> bool:
        """Keeps the captions of smallest rank in `caption_rank`, and the images that have one of them.

        Returns whether there were more than `count` captions.
        """
        self._db.execute("DELETE FROM caption_rank WHERE image_id NOT IN (SELECT image_id FROM record)")
        columns = "rank, image_id, caption_id"
        beyond = f"SELECT {columns} FROM caption_rank ORDER BY {columns} LIMIT 1 OFFSET ?"
        first = self._db.execute(beyond, (count,)).fetchone()
        if first:
            self._db.execute(f"DELETE FROM caption_rank WHERE ({columns}) >= (?, ?, ?)", first)
        self._db.execute("DELETE FROM record WHERE image_id NOT IN (SELECT image_id FROM caption_rank)")
        return first is not None

    # === Splits ===

    def keep_assigned(self, dataset: Dataset) -> bool:
        """Replaces splits by those that a commit of the dataset has assigned, once per commit.

        Returns whether the assigned splits could be read.
        """
        if not dataset.manifests:
            return True
        digest = dataset.manifest.digest
        if self._assigned_by is None or self._assigned_by[0] != digest:
            self._assigned_by = digest, self._read_assigned(dataset)
        return self._assigned_by[1]

    def insert_assigned(self, rows: Iterable[pa.RecordBatch], has_images: bool) -> None:
        """Inserts `image_id` and `split` that a commit has assigned, and `key` if the rows are those of its catalog."""
        columns = ("image_id", "split", *(("key",) if has_images else ()))
        assigned = (row for batch in rows for row in zip(*(batch[name].to_pylist() for name in columns), strict=True))
        values = "?, ?, TRUE, ?" if has_images else "?, ?, FALSE, NULL"
        self._insert(f"INSERT OR REPLACE INTO assigned VALUES ({values})", assigned)

    def apply_assigned(self) -> None:
        self._db.execute(
            """UPDATE record SET split = a.split FROM assigned a
            WHERE a.image_id = record.image_id AND a.split != record.split"""
        )

    def count_unassigned(self) -> int:
        """Returns the number of images whose split is not in a commit of the dataset yet."""
        return self._count(f"SELECT count(*) FROM record WHERE {_NEW}")

    def count_split_origins(self) -> dict[str, int]:
        """Returns the numbers of images with a new `hashed` split, and with a `kept` one that the input contradicts."""
        hashed = self._count(f"SELECT count(*) FROM record WHERE has_hashed_split AND {_NEW}")
        kept = "record JOIN assigned a USING (image_id) WHERE stated != '' AND stated != a.split"
        return {"hashed": hashed, "kept": self._count(f"SELECT count(*) FROM {kept}")}

    def count_absent(self) -> int:
        """Returns the number of images that have a split and are not in the catalog of the next commit."""
        return self._count(f"SELECT count(*) FROM ({self._select_absent()})")

    def write_splits(self, path: Path) -> None:
        """Writes the splits of the images that are not in the catalog of the next commit, by image ID."""
        self._write(path, ASSIGNED_SPLITS, f"{self._select_absent()} ORDER BY image_id")

    def _read_assigned(self, dataset: Dataset) -> bool:
        is_readable = True
        with self.transaction():
            self._db.execute("DELETE FROM assigned")
            for read, has_images in ((dataset.record_batches, True), (dataset.absent_splits, False)):
                try:
                    rows = read(_CATALOG_BATCH)
                except StoreError as error:
                    _log.warning("%s Continuing without the splits in this file.", error)
                    is_readable = False
                else:
                    self.insert_assigned(rows, has_images)
            self.apply_assigned()
        return is_readable

    def _select_absent(self) -> str:
        return f"""SELECT image_id, split FROM (SELECT image_id, split FROM assigned
            UNION ALL SELECT image_id, split FROM record WHERE {_NEW}) WHERE image_id NOT IN ({self._CATALOGUED})"""

    # === Results ===

    def count_by_status(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT status, count(*) FROM outcome GROUP BY status"))

    def count_by_reason(self) -> dict[str, int]:
        """Returns the number of failed records by reason, most frequent first."""
        return dict(self._db.execute("SELECT reason, count(*) FROM failed GROUP BY reason ORDER BY 2 DESC, 1"))

    def write_report(self, path: Path) -> None:
        """Writes the status of every record as Parquet."""
        self._write(path, REPORT, "SELECT * FROM outcome ORDER BY 1, 2")

    def count_file_names(self) -> int:
        """Returns the number of images whose ID does not contain their file name."""
        return self._count(f"SELECT count(*) {_NAMED}")

    def write_file_names(self, path: Path) -> None:
        """Writes the file names of these images as Parquet, by image ID."""
        self._write(path, FILE_NAMES, f"SELECT image_id, file_name {_NAMED} ORDER BY image_id")

    # === For subclasses ===

    def _insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self.transaction():
            self._db.executemany(statement, rows)

    def _count(self, query: str) -> int:
        (value,) = self._db.execute(query).fetchone()
        return int(value)

    def _write(self, path: Path, table: Table, query: str) -> None:
        schema, rows = table.arrow_schema(), self._db.execute(query)
        with pq.ParquetWriter(path, schema) as writer:
            while some := rows.fetchmany(_BATCH):
                writer.write_batch(build_batch(some, schema))

    def _measure(self) -> int:
        return self._count("PRAGMA page_count") * self._count("PRAGMA page_size")


def build_batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(zip(*rows, strict=True), schema, strict=True)
    return pa.record_batch([pa.array(column, field.type) for column, field in columns], schema=schema)
