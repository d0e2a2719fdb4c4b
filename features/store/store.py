"""Opens a store and finds its datasets, feature tables and caption tables."""

import re
from pathlib import Path
from typing import TypeVar

from features.io.atomic_files import put_if_absent, write
from features.io.locations import parse_location
from features.io.temporary_names import is_temporary
from features.store.caption_table import CaptionTable
from features.store.commit_log import CommitLog
from features.store.dataset import Dataset
from features.store.feature_table import FeatureTable
from features.store.layout import DATASETS, FEATURES, RECIPE, TEXT, extractor_path, table_root
from schemas.choices import ExtractorFormat
from schemas.errors import CorruptFileError, StoreError, UsageError
from schemas.strict_json import parse_json
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig, canonical_json

MARKER = "capt-store.json"
STORE_VERSION = 1
MARKER_BYTES = canonical_json({"format": "capt-store", "version": STORE_VERSION})

_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

Found = TypeVar("Found", FeatureTable, CaptionTable)


def open_store(path: str | Path) -> "Store":
    """Opens the store in a directory or at a URI.

    Raises:
        StoreError: The store does not exist, or has a newer format version.
        CorruptFileError: The file that marks the directory as a store is corrupt.
    """
    root = parse_location(path)
    if not root.is_dir():
        hint = "Check the path, or create a store with `capt prepare features`."
        raise StoreError("the store does not exist", location=str(root), hint=hint)
    _check_marker(root)
    return Store(root)


def create_store(path: str | Path) -> "Store":
    """Opens the store in a directory or at a URI, and creates it if the path does not exist.

    Raises:
        StoreError: The path is a file, a directory that is not a store, or a store with a newer format version.
    """
    root = parse_location(path)
    if root.exists() and not root.is_dir():
        raise StoreError("not a directory", location=str(root), hint="Choose a directory for the store.")
    # Another process may be creating the store at the same time.
    if not root.exists() or all(is_temporary(path) for path in root.iterdir()):
        put_if_absent(root / MARKER, MARKER_BYTES)
    return open_store(root)


class Store:
    """The datasets and tables of a store. Use `open_store` or `create_store` to open one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def datasets(self) -> list[Dataset]:
        """Returns all datasets that have images, by name."""
        return [dataset for dataset in map(Dataset, _table_roots(self.path / DATASETS)) if dataset.has_images]

    def dataset(self, name: str) -> Dataset:
        """Returns the dataset with this name.

        Raises:
            StoreError: The dataset does not exist.
        """
        found = {dataset.name: dataset for dataset in self.datasets()}
        if name not in found:
            hint = f"Use one of {', '.join(found)}." if found else "Add one with `capt prepare features`."
            raise StoreError(f"the store has no dataset {name!r}", location=str(self.path), hint=hint)
        return found[name]

    def feature_tables(self) -> list[FeatureTable]:
        """Returns all feature tables that have a live commit, by fingerprint."""
        return [table for table in map(FeatureTable, _table_roots(self.path / FEATURES)) if table.manifests]

    def feature_table(self, prefix: str) -> FeatureTable:
        """Returns the feature table whose fingerprint begins with `prefix`.

        Raises:
            StoreError: No table or several tables match.
        """
        return _find_table(self.feature_tables(), prefix, "feature table", self.path)

    def caption_tables(self) -> list[CaptionTable]:
        """Returns all caption tables that have a live commit, by fingerprint."""
        return [table for table in map(CaptionTable, _table_roots(self.path / TEXT)) if table.manifests]

    def caption_table(self, prefix: str) -> CaptionTable:
        """Returns the caption table whose fingerprint begins with `prefix`.

        Raises:
            StoreError: No table or several tables match.
        """
        return _find_table(self.caption_tables(), prefix, "caption table", self.path)

    def has_feature_table(self, table_config: FeatureTableConfig) -> bool:
        """Returns whether the table of this config has a commit."""
        return CommitLog(table_root(self.path, table_config)).last() > 0

    def has_caption_table(self, table_config: CaptionTableConfig) -> bool:
        """Returns whether the table of this config has a commit."""
        return CommitLog(table_root(self.path, table_config)).last() > 0

    def feature_table_root(self, table_config: FeatureTableConfig) -> Path:
        """Returns the directory of the table of this config, and writes the config into it if it is missing."""
        return _write_table_config(self.path, table_config)

    def caption_table_root(self, table_config: CaptionTableConfig) -> Path:
        """Returns the directory of the table of this config, and writes the config into it if it is missing."""
        return _write_table_config(self.path, table_config)

    def dataset_root(self, name: str) -> Path:
        """Returns the directory of a dataset.

        Raises:
            UsageError: The name is invalid.
        """
        return self.path / DATASETS / check_dataset_name(name)

    def extractor_path(self, sha256: str, extractor_format: ExtractorFormat = "pb") -> Path:
        """Returns the path of an extractor, by the SHA-256 of its file."""
        return extractor_path(self.path, sha256, extractor_format)


def check_dataset_name(name: str) -> str:
    """Returns the name of a dataset; UsageError if it is invalid."""
    if not _DATASET_NAME.fullmatch(name):
        hint = "Use letters, digits, dots, dashes and underscores, at most 100 in total."
        raise UsageError(f"invalid dataset name {name!r}", hint=hint)
    return name


def _table_roots(parent: Path) -> list[Path]:
    return sorted(log.parent for log in parent.glob("*/log") if any(log.glob("*.json")))


def _write_table_config(store: Path, table_config: FeatureTableConfig | CaptionTableConfig) -> Path:
    root, data = table_root(store, table_config), table_config.canonical
    if not (root / RECIPE).exists() or (root / RECIPE).read_bytes() != data:
        write(root / RECIPE, data)
    return root


def _find_table(tables: list[Found], prefix: str, noun: str, location: Path) -> Found:
    found = [table for table in tables if table.fingerprint.startswith(prefix)]
    if len(found) != 1:
        names = ", ".join(table.fingerprint[:SHORT_FINGERPRINT] for table in tables)
        message = f"{'several' if found else 'no'} {noun} fingerprints begin with {prefix!r}"
        hint = f"The {noun}s of the store are {names}." if tables else f"The store has no {noun}s."
        raise StoreError(message, location=str(location), hint=hint)
    return found[0]


def _check_marker(root: Path) -> None:
    try:
        marker = parse_json((root / MARKER).read_bytes())
        is_store, version = marker["format"] == "capt-store", int(marker["version"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        is_store, version = False, 0
    if not is_store and any(_table_roots(root / kind) for kind in (FEATURES, TEXT, DATASETS)):
        message = "the file that marks the directory as a store is corrupt or missing"
        hint = f"Write {MARKER_BYTES.decode()} into this file."
        raise CorruptFileError(message, location=str(root / MARKER), hint=hint)
    if not is_store:
        hint = "Choose another directory, or an empty one to create a store."
        raise StoreError("this directory is not a capt store", location=str(root), hint=hint)
    if version > STORE_VERSION:
        message = f"the store has format version {version}; this version of capt supports up to {STORE_VERSION}"
        raise StoreError(message, location=str(root), hint="Use a newer version of capt.")
