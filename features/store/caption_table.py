"""Reads a caption table: captions, their token IDs, the vocabulary and the saved transform."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.store.corruption import check_file
from features.store.data_sources import RowSource
from features.store.dataset import Dataset
from features.store.random_access import key_bytes
from features.store.snapshot import TableSnapshot, read_table_config
from features.store.streaming import find_row, row_batches, row_dataset
from features.text.vocabulary import read_vocabulary
from schemas.errors import MissingKeyError, StoreError
from schemas.manifests import CaptionMetadata, FileEntry
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig
from schemas.tables import CAPTIONS

_TABLE_BATCH = 1 << 16


class CaptionTable(TableSnapshot[CaptionMetadata]):
    """The captions of a dataset with their token IDs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.table_config = read_table_config(root, CaptionTableConfig)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the table config."""
        return self.table_config.fingerprint

    @property
    def transform_path(self) -> Path:
        """The directory of the saved transform graph, after the checksums of its files were verified."""
        return transform_directory(self.root, self.manifests[-1].files)

    def vocabulary(self) -> list[str]:
        """Returns the tokens by token ID; IDs 0 to 3 are the special tokens."""
        return read_vocabulary(self.file(self.manifests[-1].files["vocabulary"]))

    def captions(self) -> pa.Table:
        """Returns the rows of `schemas.tables.CAPTIONS` by key. `record_batches` needs less memory."""
        return pa.Table.from_batches(self.record_batches(_TABLE_BATCH), schema=CAPTIONS.arrow_schema())

    def record_batches(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterates over the rows of `captions`, `rows` per batch and fewer in the last."""
        paths = (self.file(shard.data) for shard in self.shards)
        return row_batches(paths, CAPTIONS, self.table_config.format, rows)

    def dataset(self, batch_size: int = 1024, prefetch: int = 2) -> Any:
        """Returns the rows of `captions` as a tf.data.Dataset of dicts by column.

        Columns are tf.string [N]; `tokens` is a tf.RaggedTensor of int64 [N, (length)].
        """
        return row_dataset(lambda: self.record_batches(batch_size), CAPTIONS, prefetch)

    def data_source(self) -> RowSource:
        """Returns the rows of `captions` as a map-style dataset for PyTorch and a data source for Grain."""
        return RowSource(self, CAPTIONS)

    def get(self, key: bytes | str) -> dict[str, Any]:
        """Returns the row of one caption as a dict by column. It reads one shard.

        Args:
            key: The caption's key, 32 bytes or 64 hexadecimal digits.

        Raises:
            MissingKeyError: The table does not contain the caption.
        """
        wanted = key_bytes(key)
        for shard in self.shards:
            if shard.first_key <= wanted.hex() <= shard.last_key:
                row = find_row(self.file(shard.data), CAPTIONS, self.table_config.format, wanted)
                if row:
                    return row
        raise MissingKeyError(f"no caption has the key {wanted.hex()}", location=str(self.root))


def transform_directory(root: Path, files: Mapping[str, FileEntry]) -> Path:
    """Returns the directory of the transform graph among a commit's files by role, and verifies their checksums."""
    paths = {role: check_file(root, entry) for role, entry in files.items() if role.startswith("transform/")}
    role, path = next(iter(paths.items()))
    return path.parents[role.count("/") - 1]


def check_file_names(table: CaptionTable, captions: pa.Table, dataset: Dataset, catalog: pa.Table) -> None:
    """Checks that each image ID has the same image file in the rows of a caption table and of a dataset's catalog.

    Raises:
        StoreError: An image has one file name in the captions' annotations and another in those of the dataset.
    """
    caption_files, image_files = table.file_names(), dataset.file_names()
    if not (len(caption_files) or len(image_files)):
        return
    shared = pc.unique(captions["image_id"])
    shared = shared.filter(pc.is_in(shared, value_set=catalog["image_id"].combine_chunks()))
    differing = list(_differing(shared, _find_names(shared, caption_files), _find_names(shared, image_files)))
    if not differing:
        return
    image_id, caption_file, image_file = differing[0]
    raise StoreError(
        f"the captions of {len(differing)} images belong to other images of the dataset {dataset.name}: image "
        f"{image_id} is {image_file} in the dataset and {caption_file} in the caption table",
        location=f"caption table {table.fingerprint[:SHORT_FINGERPRINT]}",
        hint="Run `capt prepare features` and `capt prepare captions` with the same --annotations.",
    )


def _find_names(image_ids: Any, names: pa.Table) -> Any:
    """Returns the file name of each image ID; an ID without a row equals its file name."""
    row = pc.index_in(image_ids, names["image_id"].combine_chunks())
    return pc.coalesce(pc.take(names["file_name"].combine_chunks(), row), image_ids)


def _differing(image_ids: Any, one: Any, other: Any) -> Iterator[tuple[str, str, str]]:
    """Iterates over IDs with two file names. `val2014/a.jpg` and `a.jpg` are the same file."""
    unlike = pc.not_equal(one, other)
    columns = (column.filter(unlike).to_pylist() for column in (image_ids, one, other))
    for image_id, first, second in zip(*columns, strict=True):
        shorter, longer = sorted((first, second), key=len)
        if not longer.endswith(f"/{shorter}"):
            yield image_id, first, second
