"""Reads the rows of an export in blocks: images of a split that have features, by image ID."""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.io.locations import is_remote
from features.store import CaptionTable, Dataset, FeatureTable
from pipelines.store_export.tables import ExportTables
from schemas.choices import Split
from schemas.records import stack_keys

_BLOCK_BYTES = 32 << 20
_MAX_BLOCK_ROWS = 1024

CAPTION_COUNTS = ("captions", "without_captions", "captions_without_features")


@dataclass(frozen=True)
class Block:
    """Rows of an export.

    Attributes:
        rows: All columns except the features, as `Layout.schema` declares them.
        features: Array [N, *shape] of `Layout.dtype`.
    """

    rows: pa.Table
    features: NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """The columns of an export: shape and dtype of the features of an image, and the schema of the other columns."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    schema: pa.Schema

    @property
    def row_bytes(self) -> int:
        """Size of the features of an image."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def block_rows(self) -> int:
        """Number of rows of a block."""
        return max(1, min(_MAX_BLOCK_ROWS, _BLOCK_BYTES // max(1, self.row_bytes)))


@dataclass(frozen=True)
class SplitRows:
    """Numbers of a split.

    Attributes:
        rows: Images with features.
        without_features: Images without.
        failed: Images without features that failed permanently.
        captions: Captions of the rows.
        without_captions: Rows without captions.
        captions_without_features: Captions of images without features.
        digests: SHA-256 of what determines the exported values, in any layout of the store: `rows` (image IDs and
            content hashes), `features` (their extractors, numerics classes and toolchains), `captions` and `labels`.
    """

    split: Split
    rows: int
    without_features: int
    failed: int
    captions: int
    without_captions: int
    captions_without_features: int
    digests: Mapping[str, str]


class RowReader:
    """Reads the rows of an export.

    Captions and labels lie in databases in temporary files. Memory contains a block, and of each image in the feature
    table 40 bytes.
    """

    def __init__(self, tables: ExportTables) -> None:
        self._dataset, self._features = tables.dataset, tables.features
        self._captions = _CaptionIndex(tables.captions) if tables.captions else None
        self._labels = _LabelIndex(tables.dataset)
        self.layout = Layout(
            self._features.shape,
            _find_dtype(self._features),
            _build_schema(has_captions=self._captions is not None, has_labels=self._labels.has_labels),
        )

    def count(self, split: Split) -> SplitRows:
        """Reads the image IDs of a split, and downloads their features if the store is in a bucket."""
        digests = {name: hashlib.sha256() for name in ("rows", "features", "captions", "labels")}
        failures, counts = self._features.failures(), Counter[str]()
        needed = []
        is_in_bucket = is_remote(self._features.root)
        for batch in self._read_catalog(split):
            keys, positions = stack_keys(batch), self._features.lookup(stack_keys(batch))
            is_present = positions >= 0
            ids = batch["image_id"].filter(pa.array(is_present)).to_pylist()
            absent = batch["image_id"].filter(pa.array(~is_present)).to_pylist()
            for image_id, key in zip(absent, keys[~is_present], strict=True):
                captions = self._captions.find(image_id) if self._captions else []
                failed = key.tobytes() in failures
                counts.update(without_features=1, failed=failed, captions_without_features=len(captions))
            metadata = self._features.metadata_digests(positions[is_present])
            for image_id, key, digest in zip(ids, keys[is_present], metadata, strict=True):
                captions = self._captions.find(image_id) if self._captions else []
                digests["rows"].update(json.dumps(image_id).encode() + key.tobytes())
                digests["features"].update(digest.encode())
                digests["captions"].update(json.dumps(captions).encode())
                digests["labels"].update(json.dumps(self._labels.find(image_id)).encode())
                counts.update(rows=1, captions=len(captions), without_captions=not captions)
            if is_in_bucket:
                needed.append(np.unique(positions[is_present]))
        if needed:
            self._features.ensure_local(np.concatenate(needed))
        return SplitRows(
            split,
            rows=counts["rows"],
            without_features=counts["without_features"],
            failed=counts["failed"],
            captions=counts["captions"],
            without_captions=counts["without_captions"],
            captions_without_features=counts["captions_without_features"],
            digests={name: digest.hexdigest() for name, digest in digests.items()},
        )

    def read(self, split: Split) -> "RowCursor":
        """Returns the rows of a split."""
        return RowCursor(self, self._read_present(split))

    def build_block(self, images: pa.Table) -> Block:
        """Reads the features, captions and labels of images, given as rows of the catalog."""
        keys = stack_keys(images)
        features = self._features.read(self._features.lookup(keys))
        ids = images["image_id"].combine_chunks()
        columns: dict[str, Any] = {"image_id": ids, "sha256": [key.tobytes().hex() for key in keys]}
        if self._captions is not None:
            found = [self._captions.find(image_id) for image_id in ids.to_pylist()]
            columns["captions"] = [[caption for caption, _ in some] for some in found]
            columns["tokens"] = [[tokens for _, tokens in some] for some in found]
        if self._labels.has_labels:
            columns["label"] = [self._labels.find(image_id) for image_id in ids.to_pylist()]
        rows = pa.Table.from_pydict(columns, schema=self.layout.schema)
        return Block(rows, features.astype(self.layout.dtype, copy=False))

    def _read_catalog(self, split: Split) -> Iterator[pa.RecordBatch]:
        for batch in self._dataset.record_batches():
            yield batch.filter(pc.equal(batch["split"], split))

    def _read_present(self, split: Split) -> Iterator[pa.Table]:
        for batch in self._read_catalog(split):
            is_present = self._features.lookup(stack_keys(batch)) >= 0
            yield pa.Table.from_batches([batch.filter(pa.array(is_present))])


class RowCursor:
    """The rows of a split, read once in their order."""

    def __init__(self, reader: RowReader, images: Iterator[pa.Table]) -> None:
        self._reader, self._images = reader, images
        self._waiting: pa.Table | None = None

    def read(self, rows: int) -> Iterator[Block]:
        """Yields the next `rows` rows in blocks of `Layout.block_rows` and fewer in the last."""
        return map(self._reader.build_block, self._take(rows))

    def skip(self, rows: int) -> None:
        """Skips the next `rows` rows without reading their features."""
        for _ in self._take(rows):
            pass

    def _take(self, rows: int) -> Iterator[pa.Table]:
        while rows:
            size = min(rows, self._reader.layout.block_rows)
            while self._waiting is None or len(self._waiting) < size:
                following = next(self._images)
                self._waiting = pa.concat_tables([self._waiting, following]) if self._waiting else following
            yield self._waiting.slice(0, size)
            self._waiting = self._waiting.slice(size)
            rows -= size


class _CaptionIndex:
    """The captions of each image with their token IDs, by caption ID."""

    def __init__(self, table: CaptionTable) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE caption (image_id TEXT, caption_id TEXT, caption TEXT, tokens BLOB)")
        columns = ("image_id", "caption_id", "caption")
        for batch in table.record_batches():
            tokens = [np.array(one, np.int64).tobytes() for one in batch["tokens"].to_pylist()]
            rows = zip(*(batch[name].to_pylist() for name in columns), tokens, strict=True)
            self._database.executemany("INSERT INTO caption VALUES (?, ?, ?, ?)", rows)
        self._database.execute("CREATE INDEX by_image ON caption (image_id, caption_id)")

    def find(self, image_id: str) -> list[tuple[str, list[int]]]:
        rows = self._database.execute(
            "SELECT caption, tokens FROM caption WHERE image_id = ? ORDER BY caption_id", (image_id,)
        )
        return [(caption, np.frombuffer(tokens, np.int64).tolist()) for caption, tokens in rows]


class _LabelIndex:
    """The label of each image, by image ID."""

    def __init__(self, dataset: Dataset) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE label (image_id TEXT PRIMARY KEY, word TEXT) WITHOUT ROWID")
        for batch in dataset.label_batches():
            rows = zip(batch["image_id"].to_pylist(), batch["word"].to_pylist(), strict=True)
            self._database.executemany("INSERT INTO label VALUES (?, ?)", rows)
        self.has_labels = self._database.execute("SELECT 1 FROM label").fetchone() is not None

    def find(self, image_id: str) -> str | None:
        """Returns the label of an image; None for an image without one."""
        row = self._database.execute("SELECT word FROM label WHERE image_id = ?", (image_id,)).fetchone()
        return row[0] if row else None


def _find_dtype(table: FeatureTable) -> np.dtype[Any]:
    """Returns the dtype of exported features: that of the reader, but float32 for bfloat16, which NumPy lacks."""
    if table.table_config.dtype in ("int8", "bfloat16"):
        return np.dtype(np.float32)
    return np.dtype(table.table_config.dtype)


def _build_schema(*, has_captions: bool, has_labels: bool) -> pa.Schema:
    fields = [("image_id", pa.string()), ("sha256", pa.string())]
    if has_captions:
        fields += [("captions", pa.list_(pa.string())), ("tokens", pa.list_(pa.list_(pa.int64())))]
    if has_labels:
        fields.append(("label", pa.string()))
    return pa.schema(fields)
