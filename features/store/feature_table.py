"""Reads a feature table: the features of images, by the content hash of the image."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.io.atomic_files import ensure_local
from features.io.cache import fetch_files
from features.io.locations import is_remote
from features.runtime.aligned_arrays import empty_aligned
from features.store.data_sources import FeatureSource
from features.store.layout import extractor_path
from features.store.merge import Keys, ShardMerge, as_bytes, as_keys, find_keys
from features.store.random_access import MAX_OPEN, OpenShards, key_bytes
from features.store.shards import read_index, tensor_fields
from features.store.snapshot import TableSnapshot, read_table_config
from features.store.storage_dtypes import StoredColumns, decode
from schemas.errors import MissingKeyError, StoreError
from schemas.manifests import FeatureMetadata, Manifest
from schemas.table_config import FeatureTableConfig, compute_digest
from schemas.tables import FAILURES, KEY_BYTES, Table, features_table
from schemas.terminal.progress import show_progress


class FeatureTable(TableSnapshot[FeatureMetadata]):
    """The features of images, by content hash.

    `get` returns the features of one image, `get_many` the features of several. `lookup` and `read` are the two steps
    of `get_many`, for callers that read the same images repeatedly. `record_batches`, `to_arrow`, `dataset` and
    `data_source` return the whole table, by key.

    Args:
        root: The table's directory.
        table_config: The table config; None to read it.
        manifests: The commits to show; None for the live ones.
    """

    def __init__(
        self,
        root: Path,
        table_config: FeatureTableConfig | None = None,
        manifests: Sequence[Manifest] | None = None,
    ) -> None:
        super().__init__(root, manifests)
        self.table_config = table_config or read_table_config(root, FeatureTableConfig)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the table config."""
        return self.table_config.fingerprint

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.facts.shape

    @property
    def table(self) -> Table:
        """The declaration of the rows."""
        return self.table_config.table(self.shape)

    @property
    def extractor_path(self) -> Path:
        """The extractor that computed the rows, on this machine; StoreError for imported features."""
        network = self.facts.network
        if network is None:
            raise StoreError("the features are imported, so their extractor is unknown", location=str(self.root))
        return ensure_local(extractor_path(self.root.parents[1], network, self.facts.network_format), network)

    @property
    def rows(self) -> int:
        """Number of distinct images in the table."""
        return len(self.positions_by_key[0])

    def key_blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Iterates over the content hashes of each shard, uint8 [rows, 32], without reading a feature."""
        for shard in self.shards:
            assert shard.index is not None
            yield read_index(self.file(shard.index), self.table)["key"]

    @cached_property
    def positions_by_key(self) -> tuple[Keys, NDArray[np.int64]]:
        """The distinct keys in ascending order, and the position of each; at the end −1 for a missing key."""
        blocks = (self._opened.index(number)["key"] for number in range(len(self.shards)))
        keys = as_keys(np.concatenate([np.zeros((0, KEY_BYTES), np.uint8), *blocks]))
        ordered, first = np.unique(keys, return_index=True)
        return ordered, np.append(first, -1).astype(np.int64)

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns the positions of the rows with these content hashes, for `read` and `read_columns` of this object.

        Args:
            keys: uint8 array [N, 32].

        Returns:
            int64 array [N]: row numbers in this snapshot; −1 if the table does not contain the row.
        """
        ordered, positions = self.positions_by_key
        return positions[find_keys(ordered, as_keys(keys))]

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        """Returns the features at positions from `lookup`: [N, *shape] in the storage dtype; int8 becomes float32.

        Raises:
            MissingKeyError: A position is −1.
        """
        return decode(self.read_columns(positions))

    def read_columns(self, positions: NDArray[np.int64]) -> StoredColumns:
        """Returns the columns `value` and, with int8, `scale` at positions from `lookup`, as stored, decompressed.

        Raises:
            MissingKeyError: A position is −1.
        """
        if len(positions) and positions.min() < 0:
            raise MissingKeyError("a position is −1, so `lookup` did not find its key", location=str(self.root))
        numbers = self._shard_numbers(positions)
        return self._read(list(zip(numbers.tolist(), (positions - self._starts[numbers]).tolist(), strict=True)))

    def get(self, key: bytes | str) -> NDArray[np.generic]:
        """Returns the features of one image: an array of `shape` in the storage dtype; int8 becomes float32.

        The look-up is a binary search in the index of one shard per commit, about log2(rows) keys each. The checksum of
        a shard is verified once, when it is first opened.

        Args:
            key: The SHA-256 of the image's bytes, 32 bytes or 64 hexadecimal digits.

        Raises:
            MissingKeyError: The table does not contain the row.
        """
        wanted = key_bytes(key)
        found = self._opened.find(wanted)
        if found is None:
            raise self._missing(wanted)
        features: NDArray[np.generic] = decode(self._read([found]))[0]
        return features

    def get_many(self, keys: NDArray[np.uint8] | Sequence[bytes | str]) -> NDArray[np.generic]:
        """Returns the features of many images: an array [N, *shape], in the order of the keys.

        Args:
            keys: uint8 array [N, 32], or a sequence of keys that `get` accepts.

        Raises:
            MissingKeyError: The table does not contain a row.
        """
        if not isinstance(keys, np.ndarray):
            keys = np.frombuffer(b"".join(map(key_bytes, keys)), np.uint8).reshape(-1, KEY_BYTES)
        positions = self.lookup(keys)
        if (positions < 0).any():
            raise self._missing(keys[positions < 0][0].tobytes())
        return self.read(positions)

    def record_batches(self, rows: int = 64) -> Iterator[pa.RecordBatch]:
        """Iterates over the whole table by key, each key once, `rows` per batch and fewer in the last.

        The columns are those of `to_arrow`. Memory contains one batch and the keys of one key range.
        """
        for keys, positions in self._positions(rows):
            stored = self.read_columns(positions)
            columns = [_to_binary(keys), *(_to_binary(stored[field.name]) for field in tensor_fields(self.table))]
            yield pa.RecordBatch.from_arrays(columns, schema=self._arrow_schema())

    def to_arrow(self) -> pa.Table:
        """Returns the whole table by key, each key once.

        Columns: `key`, 32 bytes; `value`, fixed-size binary with the little-endian values of one image in row-major
        order. The field's metadata contains shape and dtype. With int8, also `scale`, float32 values of the same form.
        As NumPy: `np.frombuffer(t["value"].combine_chunks().buffers()[1], dtype).reshape(-1, *shape)`.
        """
        return pa.Table.from_batches(self.record_batches(), schema=self._arrow_schema())

    def dataset(self, batch_size: int = 32, prefetch: int = 2) -> Any:
        """Returns the whole table by key as a tf.data.Dataset of {"key": tf.string [N], "value": [N, *shape]} batches.

        Args:
            batch_size: Rows per batch; the last batch may have fewer.
            prefetch: Number of batches to read ahead.

        Returns:
            tf.data.Dataset; `value` has the storage dtype, int8 becomes float32.
        """
        import tensorflow as tf

        def batches() -> Iterator[dict[str, Any]]:
            for keys, positions in self._positions(batch_size):
                # NumPy's own strings lose trailing zeros.
                objects = np.array([key.tobytes() for key in keys], np.object_)
                yield {"key": objects, "value": self.read(positions)}

        empty = {field.name: np.zeros((0, *field.shape), field.numpy_dtype) for field in tensor_fields(self.table)}
        signature = {
            "key": tf.TensorSpec((None,), tf.string),
            "value": tf.TensorSpec((None, *self.shape), tf.as_dtype(decode(empty).dtype)),
        }
        return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(prefetch)

    def ensure_local(self, positions: NDArray[np.int64]) -> None:
        """Downloads the shards of these rows to the local cache, several at a time. Does nothing in a local store.

        Without this call, each shard is downloaded when a row of it is first read.
        """
        if not is_remote(self.root):
            return
        shards, received = self.shards, Counter[str]()
        entries = [shards[number].data for number in np.unique(self._shard_numbers(positions)).tolist()]
        wanted = [(self.root / entry.path, entry.sha256) for entry in entries]
        total = sum(entry.bytes for entry in entries)
        with show_progress("downloading", total >> 20, "MiB", lambda: (received["bytes"] >> 20, "")):
            fetch_files(wanted, lambda size: received.update(bytes=size))

    def data_source(self) -> FeatureSource:
        """Returns the whole table by key as a map-style dataset for PyTorch and a data source for Grain.

        Example:
            loader = torch.utils.data.DataLoader(table.data_source(), batch_size=64)
            dataset = grain.MapDataset.source(table.data_source())
        """
        return FeatureSource(self)

    def metadata_digests(self, positions: NDArray[np.int64]) -> list[str]:
        """Returns the SHA-256 of the metadata of each row: extractor, numerics class and toolchain.

        Rows of equal images with equal metadata have equal features. It is the same in every layout of the shards.
        """
        return [self._metadata[number] for number in self._shard_numbers(positions).tolist()]

    def failures(self) -> dict[bytes, tuple[str, str, str]]:
        """Returns the recorded permanent failures: content hash → (stage, reason, detail)."""
        entries = (one.files["failures"] for one in self.manifests if "failures" in one.files)
        rows = (pq.read_table(self.file(entry), schema=FAILURES.arrow_schema()).to_pylist() for entry in entries)
        return {row["key"]: (row["stage"], row["reason"], row["detail"]) for some in rows for row in some}

    def _read(self, rows: list[tuple[int, int]]) -> StoredColumns:
        """Reads the columns of rows, each given as (number of the shard, row within it)."""
        columns = {f: empty_aligned((len(rows), *f.shape), f.numpy_dtype) for f in tensor_fields(self.table)}
        for field, out in columns.items():
            self._opened.read(rows, field, out)
        return {field.name: out for field, out in columns.items()}

    def _missing(self, key: bytes) -> MissingKeyError:
        return MissingKeyError(
            f"no row has the key {key.hex()}",
            location=str(self.root),
            hint="Run `capt prepare features` to extract the missing images.",
        )

    def _positions(self, rows: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Iterates over keys uint8 [N, 32] in ascending order and the positions int64 [N] of their rows."""
        merge = ShardMerge(self.root, self.shards, self.table)
        keys, positions = np.zeros((0, KEY_BYTES), np.uint8), np.zeros(0, np.int64)
        for number in range(merge.ranges):
            merged = merge.range(number)
            keys = np.concatenate([keys, as_bytes(merged.keys)])
            positions = np.concatenate([positions, self._starts[merged.shards] + merged.rows])
            full = len(keys) - len(keys) % rows
            for start in range(0, full, rows):
                yield keys[start : start + rows], positions[start : start + rows]
            keys, positions = keys[full:], positions[full:]
        if len(keys):
            yield keys, positions

    def _arrow_schema(self) -> pa.Schema:
        return features_table(self.shape, self.table_config.dtype).arrow_schema()

    def _shard_numbers(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, positions, side="right") - 1

    @cached_property
    def _opened(self) -> OpenShards:
        return OpenShards(self.root, self.shards, self.table, MAX_OPEN)

    @cached_property
    def _metadata(self) -> list[str]:
        """The digest of the metadata of each shard."""
        digests: dict[str, str] = {}
        for manifest in self.manifests:
            digest = compute_digest(manifest.facts.model_dump(mode="json"))
            for shard in manifest.shards:
                digests.setdefault(shard.data.path, digest)
        return [digests[shard.data.path] for shard in self.shards]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The position of each shard's first row."""
        return np.cumsum([0, *(shard.rows for shard in self.shards)], dtype=np.int64)[: len(self.shards)]


def _to_binary(values: NDArray[np.generic]) -> pa.Array:
    """Returns an array [N, ...] as N fixed-size binary values, without a copy."""
    size = values.nbytes // len(values)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(values), [None, pa.py_buffer(values)])
