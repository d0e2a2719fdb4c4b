"""The store: a directory of datasets, feature tables and text tables, each a log of atomic commits.

    STORE/capt-store.json             what this directory is, and the version of its format
    STORE/features/<fingerprint>/     recipe.json, log/, manifests/, <commit>/features-….tfrecord
    STORE/text/<fingerprint>/         recipe.json, log/, manifests/, <commit>/captions-….parquet, transform/, vocabulary
    STORE/datasets/<name>/            log/, manifests/, <commit>/catalog.parquet, reports/
    STORE/networks/<sha256>.pb        frozen extractors
    STORE/work/                       plans of running jobs; of no use once they are done
    STORE/pins/                       leases of running jobs on what they read or write

Opening a table takes a snapshot: later commits do not change what an open table shows.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.files import put_if_absent, sha256_of, write
from features.quantize import decode
from features.store.log import CommitLog
from features.store.shards import read_index, read_rows, tensor_fields
from features.vocabulary import read_vocabulary
from schemas.errors import DamagedError, StoreError, UsageError
from schemas.manifests import DatasetFacts, FeatureFacts, FileEntry, Manifest, Shard, TextFacts
from schemas.recipes import SHORT_FINGERPRINT, FeatureRecipe, TextRecipe, canonical_json
from schemas.records import to_arrow
from schemas.tables import CAPTIONS, CATALOG, FAILURES, KEY_BYTES, Table

MARKER = "capt-store.json"
STORE_VERSION = 1
RECIPE = "recipe.json"
_MARKER = {"format": "capt-store", "version": STORE_VERSION}
MARKER_BYTES = canonical_json(_MARKER)
Fitting = TypeVar("Fitting", "FeatureTable", "TextTable")
Opened = TypeVar("Opened", bound="_Committed")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def open_store(path: str | Path) -> "Store":
    """The store in a directory; StoreError where there is none, or one that this version cannot read."""
    root = _local(path)
    if not root.is_dir():
        raise StoreError("no store is here", where=str(root), mend="make one with `capt prepare features --store …`")
    _check_marker(root)
    return Store(root)


def create_store(path: str | Path) -> "Store":
    """The store in a directory, made where the directory is new or empty."""
    root = _local(path)
    if root.exists() and not root.is_dir():
        raise StoreError("a store is a directory, and this is a file", where=str(root))
    if not root.exists() or not any(root.iterdir()):
        put_if_absent(root / MARKER, MARKER_BYTES)
    return open_store(root)


class Store:
    """A store; open one with `open_store`, make one with `create_store`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def datasets(self) -> list["Dataset"]:
        """All datasets with a live commit, by name."""
        return _present(Dataset(root) for root in _tables(self.path / "datasets"))

    def dataset(self, name: str) -> "Dataset":
        """The dataset called `name`; StoreError naming the ones there are."""
        found = {dataset.name: dataset for dataset in self.datasets()}
        if name not in found:
            raise StoreError(
                f"there is no dataset {name!r}", where=str(self.path), mend=f"it has: {', '.join(found) or 'none'}"
            )
        return found[name]

    def feature_tables(self) -> list["FeatureTable"]:
        """All feature tables with a live commit, by fingerprint."""
        return _present(FeatureTable(self, root) for root in _tables(self.path / "features"))

    def features(self, prefix: str) -> "FeatureTable":
        """The feature table whose fingerprint begins with `prefix`."""
        return _pick(self.feature_tables(), prefix, "feature table", self.path)

    def text_tables(self) -> list["TextTable"]:
        """All text tables with a live commit, by fingerprint."""
        return _present(TextTable(root) for root in _tables(self.path / "text"))

    def text(self, prefix: str) -> "TextTable":
        """The text table whose fingerprint begins with `prefix`."""
        return _pick(self.text_tables(), prefix, "text table", self.path)

    def feature_root(self, recipe: FeatureRecipe) -> Path:
        """The directory of the recipe's table, made and marked with the recipe where it is new."""
        return _claim(self.path / "features", recipe)

    def text_root(self, recipe: TextRecipe) -> Path:
        """The directory of the recipe's table, made and marked with the recipe where it is new."""
        return _claim(self.path / "text", recipe)

    def dataset_root(self, name: str) -> Path:
        """The directory of a dataset; UsageError where the name could not be a directory's."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name a dataset", mend="use letters, digits, dot, dash and underscore, 100 at most"
            )
        return self.path / "datasets" / name

    def network_path(self, sha256: str) -> Path:
        """Where the frozen network of that digest lies."""
        return self.path / "networks" / f"{sha256}.pb"


class _Committed:
    """A table as its live manifests say."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifests = CommitLog(root).live()

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

    def file(self, entry: FileEntry) -> Path:
        """A named file, checked against its checksum."""
        path = self.root / entry.path
        try:
            got = sha256_of(path)
        except FileNotFoundError:
            raise DamagedError(
                "a committed file is missing", where=str(path), mend="run the same prepare command again"
            ) from None
        if got != entry.sha256:
            raise DamagedError(f"damaged: expected SHA-256 {entry.sha256}, got {got}", where=str(path))
        return path


class Dataset(_Committed):
    """The join of a dataset: which image id has which content, in which split."""

    @property
    def name(self) -> str:
        """The dataset's identity in the store."""
        return self.root.name

    @property
    def facts(self) -> DatasetFacts:
        """What the latest commit says of the dataset as a whole."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, DatasetFacts)
        return facts

    @property
    def manifest(self) -> Manifest:
        """The commit that holds: a dataset is what its latest commit says."""
        return self.manifests[-1]

    def catalog(self) -> pa.Table:
        """The rows of `schemas.tables.CATALOG`, by image id."""
        return pq.read_table(self.file(self.manifest.files["catalog"]), schema=CATALOG.arrow_schema())


class TextTable(_Committed):
    """The captions of a dataset and their tokens."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.recipe = TextRecipe.model_validate_json((root / RECIPE).read_bytes())

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.recipe.fingerprint

    @property
    def facts(self) -> TextFacts:
        """Counts of the latest commit."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, TextFacts)
        return facts

    @property
    def transform_path(self) -> Path:
        """The directory of the saved transform graph, every file checked."""
        files = {role: entry for role, entry in self.manifests[-1].files.items() if role.startswith("transform/")}
        paths = [self.file(entry) for entry in files.values()]
        role, path = next(iter(files)), paths[0]
        return path.parents[role.count("/") - 1]

    def vocabulary(self) -> list[str]:
        """The words by id; 0 to 3 are the special ones."""
        return read_vocabulary(self.file(self.manifests[-1].files["vocabulary"]))

    def captions(self) -> pa.Table:
        """The rows of `schemas.tables.CAPTIONS`, by key."""
        rows = (row for shard in self.shards for row in read_rows(self.file(shard.data), CAPTIONS, self.recipe.format))
        return to_arrow(CAPTIONS, rows)


class FeatureTable(_Committed):
    """Features by content key, read at random through the shards' indexes."""

    def __init__(self, store: Store, root: Path) -> None:
        super().__init__(root)
        self.recipe = FeatureRecipe.model_validate_json((root / RECIPE).read_bytes())
        self._store = store
        self._open: dict[int, int] = {}
        self._lock = Lock()

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.recipe.fingerprint

    @property
    def facts(self) -> FeatureFacts:
        """What the latest commit was made with."""
        facts = self.manifests[-1].facts
        assert isinstance(facts, FeatureFacts)
        return facts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.facts.shape

    @property
    def table(self) -> Table:
        """The declaration of the rows."""
        return self.recipe.table(self.shape)

    @property
    def network_path(self) -> Path:
        """The frozen network that the rows came from."""
        return self._store.network_path(self.facts.network)

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
        """The features at positions that `lookup` gave: [N, *shape], as stored; int8 comes back as float32."""
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        within = positions - self._starts[numbers]
        columns: dict[str, NDArray[np.generic]] = {}
        for field in tensor_fields(self.table):
            out = np.empty((len(positions), *field.shape), field.numpy_dtype)
            raw = out.view(np.uint8).reshape(len(positions), -1)
            for i, (number, row) in enumerate(zip(numbers.tolist(), within.tolist(), strict=True)):
                os.preadv(self._descriptor(number), [raw[i]], int(self._indexes[number][field.name][row]))
            columns[field.name] = out
        return decode(columns)

    def failures(self) -> dict[bytes, tuple[str, str, str]]:
        """Remembered permanent failures: key → (stage, reason, detail)."""
        entries = [m.files["failures"] for m in self.manifests if "failures" in m.files]
        tables = [pq.read_table(self.file(entry), schema=FAILURES.arrow_schema()) for entry in entries]
        return {
            row["key"]: (row["stage"], row["reason"], row["detail"]) for table in tables for row in table.to_pylist()
        }

    @cached_property
    def _indexes(self) -> list[NDArray[Any]]:
        return [self._index(shard) for shard in self.shards]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        rows = [shard.rows for shard in self.shards]
        return np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(np.int64) if rows else np.zeros(0, np.int64)

    @cached_property
    def _sorted(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        if not self.shards:
            return np.zeros(0, "S32"), np.zeros(0, np.int64)
        keys = _as_strings(np.concatenate([index["key"] for index in self._indexes]))
        ordered, first = np.unique(keys, return_index=True)
        return ordered, first.astype(np.int64)

    def _index(self, shard: Shard) -> NDArray[Any]:
        assert shard.index is not None
        return read_index(self.file(shard.index), self.table)

    def _descriptor(self, number: int) -> int:
        """The shard's open file; its checksum is checked when it is first opened."""
        if number not in self._open:
            with self._lock:
                if number not in self._open:
                    self._open[number] = os.open(self.file(self.shards[number].data), os.O_RDONLY)
        return self._open[number]

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)


def _as_strings(keys: NDArray[np.uint8]) -> NDArray[Any]:
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


def _present(tables: Iterable[Opened]) -> list[Opened]:
    return [table for table in tables if table.manifests]


def _tables(parent: Path) -> list[Path]:
    return sorted(log.parent for log in parent.glob("*/log") if any(log.glob("*.json")))


def _claim(parent: Path, recipe: FeatureRecipe | TextRecipe) -> Path:
    root = parent / recipe.fingerprint[:SHORT_FINGERPRINT]
    if not (root / RECIPE).exists():
        write(root / RECIPE, canonical_json(recipe.model_dump(mode="json")))
    return root


def _pick(tables: list[Fitting], prefix: str, noun: str, where: Path) -> Fitting:
    fitting = [table for table in tables if table.fingerprint.startswith(prefix)]
    if len(fitting) != 1:
        names = ", ".join(table.fingerprint[:SHORT_FINGERPRINT] for table in tables) or "none"
        found = "several" if fitting else "no"
        raise StoreError(f"{found} {noun} has a fingerprint like {prefix!r}", where=str(where), mend=f"it has: {names}")
    return fitting[0]


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise UsageError("a store is a local directory", where=str(path), mend="give a path")
    return Path(path).absolute()


def _check_marker(root: Path) -> None:
    try:
        marker: Mapping[str, Any] = json.loads((root / MARKER).read_bytes())
        ours, version = marker["format"] == _MARKER["format"], int(marker["version"])
    except (OSError, ValueError, KeyError, TypeError):
        ours, version = False, 0
    if not ours:
        raise StoreError(
            "this directory is not a capt store", where=str(root), mend="name another --store, or an empty directory"
        )
    if version > STORE_VERSION:
        raise StoreError(
            f"the store has format version {version}, this capt reads up to {STORE_VERSION}",
            where=str(root),
            mend="use a newer capt",
        )
