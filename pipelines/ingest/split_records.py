"""Tracks the split of each image of a run: stated by the input, hashed, or assigned by an earlier commit."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.store import Dataset
from pipelines.ingest.database import Database, iterate_rows
from schemas.errors import StoreError
from schemas.tables import ASSIGNED_SPLITS

_log = logging.getLogger("capt.prepare")

_ASSIGNED = """CREATE TABLE assigned (image_id TEXT PRIMARY KEY, split TEXT, catalogued INT, key BLOB) WITHOUT ROWID;"""
_BATCH = 1 << 16
_NEW = "split != '' AND NOT EXISTS (SELECT 1 FROM assigned a WHERE a.image_id = record.image_id)"

# Why an image fails for which the input states more than one split.
TWO_SPLITS = "two splits"


class SplitRecords(Database):
    """A database of one run whose table `record` also has the columns `split`, `stated` and `hashed`.

    `split` is the split that counts; empty if there is none. `stated` is the split that the input states; empty if it
    states none. `hashed` says whether a hash of the image ID decided.

    Args:
        path: The file. It is created anew.
        schema: The tables.
    """

    # The images that the catalog of the next commit contains.
    _CATALOGUED = "SELECT image_id FROM assigned WHERE catalogued"

    def __init__(self, path: Path, schema: str) -> None:
        super().__init__(path, schema + _ASSIGNED)
        self._read: tuple[str, bool] | None = None

    def keep_assigned(self, dataset: Dataset) -> bool:
        """Let the splits stand that a commit of the dataset has assigned. A second call with the same commit is free.

        Args:
            dataset: The dataset. It may have no commit.

        Returns:
            Whether the splits could be read.
        """
        if not dataset.manifests:
            return True
        digest = dataset.manifest.digest
        if self._read is None or self._read[0] != digest:
            self._read = digest, self._read_assigned(dataset)
        return self._read[1]

    def add_assigned(self, rows: Iterable[pa.RecordBatch], has_images: bool) -> None:
        """Insert splits that a commit has assigned.

        Args:
            rows: The columns `image_id` and `split`, and `key` of the catalog.
            has_images: Whether they are those of the catalog.
        """
        columns = ("image_id", "split", "key") if has_images else ("image_id", "split")
        assigned = ((image_id, split, has_images, *key) for image_id, split, *key in iterate_rows(rows, *columns))
        keys = "?" if has_images else "NULL"
        self._insert(f"INSERT OR REPLACE INTO assigned VALUES (?, ?, ?, {keys})", assigned)

    def apply_assigned(self) -> None:
        """Replace the splits of the run's images by those that were assigned."""
        self._db.execute(
            """UPDATE record SET split = a.split FROM assigned a
            WHERE a.image_id = record.image_id AND a.split != record.split"""
        )

    def _read_assigned(self, dataset: Dataset) -> bool:
        is_sound = True
        with self.transaction():
            self._db.execute("DELETE FROM assigned")
            for read, has_images in ((dataset.record_batches, True), (dataset.absent_splits, False)):
                try:
                    rows = read(_BATCH)
                except StoreError as error:
                    _log.warning("%s: continuing without the splits in this file", error)
                    is_sound = False
                else:
                    self.add_assigned(rows, has_images)
            self.apply_assigned()
        return is_sound

    def count_unassigned(self) -> int:
        """Returns how many images have a split that no commit of the dataset has assigned yet."""
        return self._one(f"SELECT count(*) FROM record WHERE {_NEW}")

    def split_figures(self) -> dict[str, int]:
        """Returns how the images got their splits.

        Returns:
            `hashed`: new images whose split is a hash of their ID. `kept`: images that keep the split that was assigned
            earlier although the input states another.
        """
        kept = """SELECT count(*) FROM record JOIN assigned a USING (image_id)
            WHERE stated != '' AND stated != a.split"""
        return {
            "hashed": self._one(f"SELECT count(*) FROM record WHERE hashed AND {_NEW}"),
            "kept": self._one(kept),
        }

    def count_absent(self) -> int:
        """Returns how many images have a split and are not in the catalog of the next commit."""
        return self._one(f"SELECT count(*) FROM ({self._absent()})")

    def write_splits(self, path: Path) -> None:
        """Write the splits of the images that are not in the catalog of the next commit as Parquet, by image ID."""
        self._write(path, ASSIGNED_SPLITS, f"{self._absent()} ORDER BY image_id")

    def _absent(self) -> str:
        return f"""SELECT image_id, split FROM (SELECT image_id, split FROM assigned
            UNION ALL SELECT image_id, split FROM record WHERE {_NEW}) WHERE image_id NOT IN ({self._CATALOGUED})"""


def log_splits(figures: dict[str, Any], dataset: str) -> None:
    """Log for people how the images got their splits.

    Args:
        figures: What `SplitRecords.split_figures` returned.
        dataset: The dataset's name.
    """
    hashed, kept = figures["hashed"], figures["kept"]
    if hashed:
        _log.info("%s: images without a stated split: %d. A hash of the image ID decides.", dataset, hashed)
    if kept:
        message = "images that keep their earlier split although the input states another"
        _log.warning(
            "%s: %s: %d. To assign the splits anew, drop the dataset and prepare it again.", dataset, message, kept
        )
