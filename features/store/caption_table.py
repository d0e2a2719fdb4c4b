"""Reads a caption table: captions, their token IDs, the vocabulary and the saved transform."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.store.corruption import check_file
from features.store.dataset import Dataset
from features.store.random_access import key_bytes
from features.store.shards import read_rows
from features.store.snapshot import TableSnapshot, read_table_config
from features.store.streaming import find_row, read_parquet, row_batches, row_dataset
from features.text.vocabulary import read_vocabulary
from schemas.errors import MissingKeyError, StoreError
from schemas.manifests import CaptionMetadata, FileEntry
from schemas.records import to_arrow
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig
from schemas.tables import CAPTIONS


class CaptionTable(TableSnapshot):
    """The captions of a dataset with their token IDs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.table_config = read_table_config(root, CaptionTableConfig)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the table config."""
        return self.table_config.fingerprint

    @property
    def facts(self) -> CaptionMetadata:
        """The metadata of the latest commit."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, CaptionMetadata)
        return facts

    @property
    def transform_path(self) -> Path:
        """The directory of the saved transform graph, after the checksums of its files were verified."""
        return transform_directory(self.root, self.manifests[-1].files)

    def vocabulary(self) -> list[str]:
        """Returns the tokens by token ID; IDs 0 to 3 are the special tokens."""
        return read_vocabulary(self.file(self.manifests[-1].files["vocabulary"]))

    def captions(self) -> pa.Table:
        """Returns the rows of `schemas.tables.CAPTIONS` by key. `record_batches` needs less memory."""
        paths = [self.file(shard.data) for shard in self.shards]
        if self.table_config.format == "parquet":
            return read_parquet(paths, CAPTIONS)
        return to_arrow(
            CAPTIONS, (row for path in paths for row in read_rows(path, CAPTIONS, self.table_config.format))
        )

    def record_batches(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterates over the rows of `captions`, `rows` per batch and fewer in the last."""
        paths = (self.file(shard.data) for shard in self.shards)
        return row_batches(paths, CAPTIONS, self.table_config.format, rows)

    def dataset(self, batch_size: int = 1024, prefetch: int = 2) -> Any:
        """Returns the rows of `captions` as a tf.data.Dataset of dicts by column.

        Columns are tf.string [N]; `tokens` is a tf.RaggedTensor of int64 [N, (length)].
        """
        return row_dataset(lambda: self.record_batches(batch_size), CAPTIONS, prefetch)

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
    """Returns the directory of a commit's transform graph, after the checksums of its files were verified.

    Args:
        root: The caption table's directory.
        files: The files of the commit, by role.
    """
    paths = {role: check_file(root, entry) for role, entry in files.items() if role.startswith("transform/")}
    role, path = next(iter(paths.items()))
    return path.parents[role.count("/") - 1]


def check_file_names(table: CaptionTable, captions: pa.Table, dataset: Dataset, catalog: pa.Table) -> None:
    """Checks that each image ID has the same image file in a caption table and in a dataset.

    Args:
        table: The caption table.
        captions: Rows of the caption table.
        dataset: The dataset.
        catalog: Catalog of the dataset.

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
        longer, shorter = (first, second) if len(first) > len(second) else (second, first)
        if not longer.endswith(f"/{shorter}"):
            yield image_id, first, second
