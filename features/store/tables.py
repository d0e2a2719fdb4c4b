"""The store: a directory, or a place in a bucket, of datasets, feature tables and text tables, each a log of commits.

    STORE/capt-store.json             what this directory is, and the version of its format
    STORE/features/<fingerprint>/     recipe.json, log/, manifests/, <commit>/features-….tfrecord
    STORE/text/<fingerprint>/         recipe.json, log/, manifests/, <commit>/captions-….parquet, transform/, vocabulary
    STORE/datasets/<name>/            log/, manifests/, <commit>/catalog.parquet, labels.parquet, reports/
    STORE/models/<name>/              log/, manifests/, runs/<run>/, see `workflows.model_registry`
    STORE/networks/<sha256>.pb        frozen extractors
    STORE/work/                       plans of running jobs; of no use once they are done
    STORE/pins/                       leases of running jobs on what they read or write

Opening a table takes a snapshot: later commits do not change what an open table shows.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from features.io.atomic_files import TEMP_PREFIX, ensure_local, put_if_absent, write
from features.io.cache import local_cache
from features.io.locations import ObjectPath, parse_location
from features.runtime.aligned_arrays import empty_aligned
from features.store.commit_log import CommitLog
from features.store.random_access import OpenShards, checked, key_bytes
from features.store.shards import read_index, read_rows, tensor_fields
from features.store.storage_dtypes import Stored, decode
from features.store.streaming import (
    feature_batches,
    feature_dataset,
    feature_schema,
    find_row,
    read_parquet,
    row_batches,
    row_dataset,
)
from features.text.vocabulary import read_vocabulary
from schemas.errors import CorruptFileError, MissingKeyError, StoreError, UsageError
from schemas.manifests import CaptionMetadata, DatasetMetadata, FeatureMetadata, FileEntry, Manifest, Shard
from schemas.records import to_arrow
from schemas.strict_json import parse_json
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig, canonical_json, digest_of
from schemas.tables import ASSIGNED_SPLITS, CAPTIONS, CATALOG, FAILURES, FILE_NAMES, KEY_BYTES, LABELS, Table
from schemas.terminal.progress import watching

MARKER = "capt-store.json"
STORE_VERSION = 1
RECIPE = "recipe.json"
_MARKER = {"format": "capt-store", "version": STORE_VERSION}
MARKER_BYTES = canonical_json(_MARKER)
Fitting = TypeVar("Fitting", "FeatureTable", "CaptionTable")
Opened = TypeVar("Opened", bound="_Committed")
AnyRecipe = TypeVar("AnyRecipe", FeatureTableConfig, CaptionTableConfig)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def open_store(path: str | Path) -> "Store":
    """The store in a directory or at an address; StoreError where there is none, or one this version cannot read."""
    root = parse_location(path)
    if not root.is_dir():
        raise StoreError("no store is here", location=str(root), hint="make one with `capt prepare features --store …`")
    _check_marker(root)
    return Store(root)


def create_store(path: str | Path) -> "Store":
    """The store in a directory or at an address, made where there is nothing yet."""
    root = parse_location(path)
    if root.exists() and not root.is_dir():
        raise StoreError("a store is a directory, and this is a file", location=str(root))
    # Another run may be making the store at this moment.
    if not root.exists() or all(path.name.startswith(TEMP_PREFIX) for path in root.iterdir()):
        put_if_absent(root / MARKER, MARKER_BYTES)
    return open_store(root)


class Store:
    """A store; open one with `open_store`, make one with `create_store`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def datasets(self) -> list["Dataset"]:
        """All datasets with images, by name."""
        return [one for one in map(Dataset, _tables(self.path / "datasets")) if one.is_catalogued]

    def dataset(self, name: str) -> "Dataset":
        """The dataset called `name`; StoreError naming the ones there are."""
        found = {dataset.name: dataset for dataset in self.datasets()}
        if name not in found:
            raise StoreError(
                f"there is no dataset {name!r}", location=str(self.path), hint=f"it has: {', '.join(found) or 'none'}"
            )
        return found[name]

    def feature_tables(self) -> list["FeatureTable"]:
        """All feature tables with a live commit, by fingerprint."""
        return _present(FeatureTable(self, root) for root in _tables(self.path / "features"))

    def features(self, prefix: str) -> "FeatureTable":
        """The feature table whose fingerprint begins with `prefix`."""
        return _pick(self.feature_tables(), prefix, "feature table", self.path)

    def text_tables(self) -> list["CaptionTable"]:
        """All text tables with a live commit, by fingerprint."""
        return _present(CaptionTable(root) for root in _tables(self.path / "text"))

    def text(self, prefix: str) -> "CaptionTable":
        """The text table whose fingerprint begins with `prefix`."""
        return _pick(self.text_tables(), prefix, "text table", self.path)

    def has_features(self, table_config: FeatureTableConfig) -> bool:
        """Whether the recipe's table has a commit."""
        return CommitLog(self.path / "features" / table_config.fingerprint[:SHORT_FINGERPRINT]).last() > 0

    def has_text(self, table_config: CaptionTableConfig) -> bool:
        """Whether the recipe's table has a commit."""
        return CommitLog(self.path / "text" / table_config.fingerprint[:SHORT_FINGERPRINT]).last() > 0

    def feature_root(self, table_config: FeatureTableConfig) -> Path:
        """The directory of the recipe's table, made and marked with the recipe where it is new."""
        return _claim(self.path / "features", table_config)

    def text_root(self, table_config: CaptionTableConfig) -> Path:
        """The directory of the recipe's table, made and marked with the recipe where it is new."""
        return _claim(self.path / "text", table_config)

    def dataset_root(self, name: str) -> Path:
        """The directory of a dataset; UsageError where the name could not be a directory's."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a dataset", hint="use letters, digits, dot, dash and underscore, 100 at most"
            )
        return self.path / "datasets" / name

    def network_path(self, sha256: str) -> Path:
        """Where the frozen network of that digest lies."""
        return self.path / "networks" / f"{sha256}.pb"


class _Committed:
    """A table as its live manifests say, or those of its manifests that are given."""

    def __init__(self, root: Path, manifests: Sequence[Manifest] | None = None) -> None:
        self.root = root
        self.manifests = CommitLog(root).live() if manifests is None else list(manifests)

    @property
    def shards(self) -> list[Shard]:
        """The live shards, oldest commit first; a shard that two commits name counts once."""
        named = {shard.data.path: shard for manifest in self.manifests for shard in manifest.shards}
        return list(named.values())

    @property
    def bytes(self) -> int:
        """Size of everything that the live manifests name."""
        entries = {entry.path: entry.bytes for manifest in self.manifests for entry in manifest.entries()}
        return sum(entries.values())

    def file_names(self) -> pa.Table:
        """The rows of `schemas.tables.FILE_NAMES`: the files that annotations name for images, by image id."""
        entry = self.manifests[-1].files.get(FILE_NAMES.name)
        return read_parquet([self.file(entry)] if entry else [], FILE_NAMES)

    def file(self, entry: FileEntry) -> Path:
        """A named file, checked against its checksum."""
        return checked(self.root, entry)


class Dataset(_Committed):
    """The join of a dataset: which image id has which content, in which split."""

    @property
    def name(self) -> str:
        """The dataset's identity in the store."""
        return self.root.name

    @property
    def facts(self) -> DatasetMetadata:
        """What the latest commit says of the dataset as a whole."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, DatasetMetadata)
        return facts

    @property
    def manifest(self) -> Manifest:
        """The commit that holds: a dataset is what its latest commit says."""
        return self.manifests[-1]

    @property
    def digest(self) -> str:
        """SHA-256 of the dataset's images and labels. It ignores the splits of absent images."""
        files = self.manifest.files
        return digest_of({role: files[role].sha256 for role in (CATALOG.name, LABELS.name) if role in files})

    @property
    def is_catalogued(self) -> bool:
        """Whether the dataset has images. Before `prepare features` it may have captions and splits alone."""
        return bool(self.manifests) and CATALOG.name in self.manifest.files

    def catalog(self) -> pa.Table:
        """The rows of `schemas.tables.CATALOG`, by image id, as Arrow; `record_batches` takes less memory."""
        return read_parquet([self._catalog_path], CATALOG)

    def labels(self) -> pa.Table:
        """The rows of `schemas.tables.LABELS`, by image id, as Arrow; none where the dataset has no labels."""
        entry = self.manifest.files.get("labels")
        return read_parquet([self.file(entry)], LABELS) if entry else LABELS.arrow_schema().empty_table()

    def record_batches(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """The rows of `catalog`, so many a batch and fewer in the last."""
        return self._batches(CATALOG, rows)

    def absent_splits(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """The rows of `schemas.tables.ASSIGNED_SPLITS`: the splits of images that the catalog does not contain."""
        return self._batches(ASSIGNED_SPLITS, rows)

    def dataset(self, batch_size: int = 1024, prefetch: int = 2) -> Any:
        """The rows of `catalog` as a tf.data.Dataset of batches, dicts by column: tf.string, `bytes` tf.int64."""
        return row_dataset(lambda: self.record_batches(batch_size), CATALOG, prefetch)

    def get(self, image_id: str) -> dict[str, Any]:
        """The row of one image, a dict by column: `get("139")["key"]` is what `FeatureTable.get` takes.

        Raises:
            MissingKeyError: the dataset has no such image.
        """
        found = pq.read_table(
            self._catalog_path,
            schema=CATALOG.arrow_schema(),
            partitioning=None,
            filters=[("image_id", "==", image_id)],
        ).to_pylist()
        if not found:
            raise MissingKeyError(f"the dataset {self.name} has no image {image_id!r}", location=str(self.root))
        row: dict[str, Any] = found[0]
        return row

    def _batches(self, table: Table, rows: int) -> Iterator[pa.RecordBatch]:
        entry = self.manifest.files.get(table.name)
        return row_batches([self.file(entry)] if entry else [], table, "parquet", rows)

    @property
    def _catalog_path(self) -> Path:
        return self.file(self.manifest.files["catalog"])


class CaptionTable(_Committed):
    """The captions of a dataset and their tokens."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.table_config = _read_recipe(root, CaptionTableConfig)

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.table_config.fingerprint

    @property
    def facts(self) -> CaptionMetadata:
        """Counts of the latest commit."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, CaptionMetadata)
        return facts

    @property
    def transform_path(self) -> Path:
        """The directory of the saved transform graph, every file checked."""
        return transform_directory(self.root, self.manifests[-1].files)

    def vocabulary(self) -> list[str]:
        """The words by id; 0 to 3 are the special ones."""
        return read_vocabulary(self.file(self.manifests[-1].files["vocabulary"]))

    def captions(self) -> pa.Table:
        """The rows of `schemas.tables.CAPTIONS`, by key, as Arrow; `record_batches` takes less memory."""
        paths = [self.file(shard.data) for shard in self.shards]
        if self.table_config.format == "parquet":
            return read_parquet(paths, CAPTIONS)
        return to_arrow(
            CAPTIONS, (row for path in paths for row in read_rows(path, CAPTIONS, self.table_config.format))
        )

    def record_batches(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """The rows of `captions`, so many a batch and fewer in the last."""
        paths = (self.file(shard.data) for shard in self.shards)
        return row_batches(paths, CAPTIONS, self.table_config.format, rows)

    def dataset(self, batch_size: int = 1024, prefetch: int = 2) -> Any:
        """The rows of `captions` as a tf.data.Dataset of batches, dicts by column.

        Columns are tf.string [N], and `tokens` is a tf.RaggedTensor of int64 [N, (length)].
        """
        return row_dataset(lambda: self.record_batches(batch_size), CAPTIONS, prefetch)

    def get(self, key: bytes | str) -> dict[str, Any]:
        """The row of one caption, a dict by column, read from the one shard that its key belongs to.

        Args:
            key: bytes or str. The caption's key, 32 bytes or 64 hexadecimal digits.

        Raises:
            MissingKeyError: the table has no such caption.
        """
        wanted = key_bytes(key)
        for shard in self.shards:
            if shard.first_key <= wanted.hex() <= shard.last_key:
                row = find_row(self.file(shard.data), CAPTIONS, self.table_config.format, wanted)
                if row:
                    return row
        raise MissingKeyError(f"no caption has the key {wanted.hex()}", location=str(self.root))


class FeatureTable(_Committed):
    """Features by content key.

    `get` is one image's features, `get_many` those of many; `lookup` and `read` are its two halves, for who reads the
    same images again and again. `record_batches`, `to_arrow` and `dataset` are the whole table, by key.

    Args:
        store: Store. The store.
        root: Path. The table's directory.
        table_config: FeatureTableConfig or None. What a row means; None reads it.
        manifests: sequence of Manifest, or None. The commits to show; None takes the live ones.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        table_config: FeatureTableConfig | None = None,
        manifests: Sequence[Manifest] | None = None,
    ) -> None:
        super().__init__(root, manifests)
        self.table_config = table_config or _read_recipe(root, FeatureTableConfig)
        self._store = store

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.table_config.fingerprint

    @property
    def facts(self) -> FeatureMetadata:
        """What the latest commit was made with."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, FeatureMetadata)
        return facts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.facts.shape

    @property
    def table(self) -> Table:
        """The declaration of the rows."""
        return self.table_config.table(self.shape)

    @property
    def network_path(self) -> Path:
        """The frozen network that the rows came from."""
        return ensure_local(self._store.network_path(self.facts.network), self.facts.network)

    @property
    def rows(self) -> int:
        """Distinct images in the table."""
        return len(self._sorted[0])

    def key_blocks(self) -> Iterator[NDArray[np.uint8]]:
        """The content keys of each shard, uint8 [rows, 32], without reading a feature."""
        for shard in self.shards:
            yield self._index(shard)["key"]

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Positions of the rows with these content keys.

        Args:
            keys: uint8 array [N, 32].

        Returns:
            int64 array [N]; −1 where the table has no such row.
        """
        ordered, positions = self._sorted
        wanted = _as_strings(keys)
        if not len(ordered):
            return np.full(len(wanted), -1, np.int64)
        place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        return np.where(ordered[place] == wanted, positions[place], -1)

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        """The features at positions that `lookup` gave: [N, *shape], as stored; int8 comes back as float32.

        Raises:
            MissingKeyError: a position is −1, which `lookup` gives for a key that the table lacks.
        """
        return decode(self.stored(positions))

    def stored(self, positions: NDArray[np.int64]) -> Stored:
        """The columns `value` and, with int8, `scale` at positions that `lookup` gave, as stored, decompressed."""
        if len(positions) and positions.min() < 0:
            raise MissingKeyError("a position is −1, so `lookup` did not find its key", location=str(self.root))
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        within = positions - self._starts[numbers]
        return self._stored(list(zip(numbers.tolist(), within.tolist(), strict=True)))

    def get(self, key: bytes | str) -> NDArray[np.generic]:
        """The features of one image: an array of `shape`, as stored; int8 comes back as float32.

        Costs one look-up in the index of a shard (of one shard a commit, where the table has several): a binary search
        that reads about log2(rows) keys, and one row. A shard's first use checks its checksum, once.

        Args:
            key: bytes or str. The SHA-256 of the image's bytes, 32 bytes or 64 hexadecimal digits.

        Raises:
            MissingKeyError: the table has no such row.
        """
        wanted = key_bytes(key)
        found = self._opened.find(wanted)
        if found is None:
            raise self._missing(wanted)
        features: NDArray[np.generic] = decode(self._stored([found]))[0]
        return features

    def get_many(self, keys: NDArray[np.uint8] | Sequence[bytes | str]) -> NDArray[np.generic]:
        """The features of many images: an array [N, *shape], in the order of their keys.

        Args:
            keys: uint8 array [N, 32], or sequence of what `get` takes.

        Raises:
            MissingKeyError: the table lacks a row; the message names the first.
        """
        wanted = keys if isinstance(keys, np.ndarray) else _as_keys(keys)
        positions = self.lookup(wanted)
        if (positions < 0).any():
            raise self._missing(wanted[positions < 0][0].tobytes())
        return self.read(positions)

    def record_batches(self, rows: int = 64) -> Iterator[pa.RecordBatch]:
        """The whole table by key, each key once, so many rows a batch and fewer in the last.

        The columns are those of `to_arrow`. Memory holds one batch, and the keys of one range of the table.
        """
        return feature_batches(self, rows)

    def to_arrow(self) -> pa.Table:
        """The whole table by key, each key once.

        Columns: `key`, 32 bytes; `value`, fixed-size binary, the little-endian values of one image, row-major, whose
        shape and dtype are in the field's metadata; with int8 `scale`, float32 values the same way. As NumPy:
        `np.frombuffer(t["value"].combine_chunks().buffers()[1], dtype).reshape(-1, *shape)`.
        """
        return pa.Table.from_batches(self.record_batches(), schema=feature_schema(self))

    def dataset(self, batch_size: int = 32, prefetch: int = 2) -> Any:
        """The whole table by key as a tf.data.Dataset of batches {"key": tf.string [N], "value": float [N, *shape]}.

        Args:
            batch_size: int. Rows a batch; the last may have fewer.
            prefetch: int. Batches read ahead.

        Returns:
            tf.data.Dataset; `value` has the storage dtype, int8 comes back as float32.
        """
        return feature_dataset(self, batch_size, prefetch)

    def bring(self, positions: NDArray[np.int64]) -> None:
        """Have the shards at hand that hold these rows, where the store is at an address: several come at a time.

        Without it each comes when a row of it is read first.
        """
        if not isinstance(self.root, ObjectPath):
            return
        numbers = np.unique(np.searchsorted(self._starts, positions, side="right") - 1)
        shards, brought = self.shards, Counter[str]()
        entries = [shards[number].data for number in numbers.tolist()]
        total = sum(entry.bytes for entry in entries)
        with watching("mirroring", total >> 20, "MiB", lambda: (brought["bytes"] >> 20, "")):
            wanted = [(self.root / entry.path, entry.sha256) for entry in entries]
            local_cache().fetch_all(wanted, lambda size: brought.update(bytes=size))

    def failures(self) -> dict[bytes, tuple[str, str, str]]:
        """Remembered permanent failures: key → (stage, reason, detail)."""
        entries = [m.files["failures"] for m in self.manifests if "failures" in m.files]
        tables = [pq.read_table(self.file(entry), schema=FAILURES.arrow_schema()) for entry in entries]
        return {
            row["key"]: (row["stage"], row["reason"], row["detail"]) for table in tables for row in table.to_pylist()
        }

    def _stored(self, rows: list[tuple[int, int]]) -> Stored:
        """The columns of rows, each a shard's number and the row's within it."""
        columns = {f: empty_aligned((len(rows), *f.shape), f.numpy_dtype) for f in tensor_fields(self.table)}
        for field, out in columns.items():
            self._opened.read(rows, field, out)
        return {field.name: out for field, out in columns.items()}

    def _missing(self, key: bytes) -> MissingKeyError:
        return MissingKeyError(
            f"no row has the key {key.hex()}",
            location=str(self.root),
            hint="`capt prepare features` extracts the images of a dataset that the table lacks",
        )

    @cached_property
    def _opened(self) -> OpenShards:
        return OpenShards(self.root, self.shards, self.table)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        rows = [shard.rows for shard in self.shards]
        return np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(np.int64) if rows else np.zeros(0, np.int64)

    @cached_property
    def _sorted(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        if not self.shards:
            return np.zeros(0, "S32"), np.zeros(0, np.int64)
        keys = _as_strings(np.concatenate([self._opened.index(number)["key"] for number in range(len(self.shards))]))
        ordered, first = np.unique(keys, return_index=True)
        return ordered, first.astype(np.int64)

    def _index(self, shard: Shard) -> NDArray[Any]:
        assert shard.index is not None
        return read_index(self.file(shard.index), self.table)


def transform_directory(root: Path, files: Mapping[str, FileEntry]) -> Path:
    """The directory of the transform graph that the `files` of a commit name, every one of it checked.

    Args:
        root: Path. The text table's directory.
        files: mapping. The files of a commit, by role.
    """
    paths = {role: checked(root, entry) for role, entry in files.items() if role.startswith("transform/")}
    role, path = next(iter(paths.items()))
    return path.parents[role.count("/") - 1]


def _as_strings(keys: NDArray[np.uint8]) -> NDArray[Any]:
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


def _as_keys(keys: Sequence[bytes | str]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(map(key_bytes, keys)), np.uint8).reshape(-1, KEY_BYTES)


def _present(tables: Iterable[Opened]) -> list[Opened]:
    return [table for table in tables if table.manifests]


def _tables(parent: Path) -> list[Path]:
    return sorted(log.parent for log in parent.glob("*/log") if any(log.glob("*.json")))


def _claim(parent: Path, table_config: FeatureTableConfig | CaptionTableConfig) -> Path:
    root, data = parent / table_config.fingerprint[:SHORT_FINGERPRINT], table_config.canonical
    if not (root / RECIPE).exists() or (root / RECIPE).read_bytes() != data:
        write(root / RECIPE, data)
    return root


def _read_recipe(root: Path, kind: type[AnyRecipe]) -> AnyRecipe:
    """The recipe of the table in a directory; CorruptFileError where it is missing, or not the one the directory is
    for.
    """
    path, hint = root / RECIPE, "run the same prepare command again"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptFileError("the table's recipe is missing", location=str(path), hint=hint) from None
    got = hashlib.sha256(data).hexdigest()
    if got[:SHORT_FINGERPRINT] != root.name:
        raise CorruptFileError(
            f"the recipe is damaged: expected SHA-256 {root.name}…, got {got}", location=str(path), hint=hint
        )
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"the recipe is not one that this capt knows: {place}: {first['msg']}",
            location=str(path),
            hint="use a newer capt",
        ) from None


def _pick(tables: list[Fitting], prefix: str, noun: str, location: Path) -> Fitting:
    fitting = [table for table in tables if table.fingerprint.startswith(prefix)]
    if len(fitting) != 1:
        names = ", ".join(table.fingerprint[:SHORT_FINGERPRINT] for table in tables) or "none"
        found = "several" if fitting else "no"
        raise StoreError(
            f"{found} {noun} has a fingerprint like {prefix!r}", location=str(location), hint=f"it has: {names}"
        )
    return fitting[0]


def _check_marker(root: Path) -> None:
    try:
        marker: Mapping[str, Any] = parse_json((root / MARKER).read_bytes())
        ours, version = marker["format"] == _MARKER["format"], int(marker["version"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        ours, version = False, 0
    if not ours and any(_tables(root / kind) for kind in ("features", "text", "datasets")):
        raise CorruptFileError(
            "what marks this directory as a store is damaged or missing",
            location=str(root / MARKER),
            hint=f"write {MARKER_BYTES.decode()} into it",
        )
    if not ours:
        raise StoreError(
            "this directory is not a capt store", location=str(root), hint="name another --store, or an empty directory"
        )
    if version > STORE_VERSION:
        raise StoreError(
            f"the store has format version {version}, this capt reads up to {STORE_VERSION}",
            location=str(root),
            hint="use a newer capt",
        )
