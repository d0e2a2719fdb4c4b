"""Reads the manifests and the table config of one table as a fixed snapshot: later commits do not change it."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import pyarrow as pa
from pydantic import ValidationError

from features.store.commit_log import CommitLog
from features.store.corruption import check_file
from features.store.layout import RECIPE
from features.store.streaming import read_parquet
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import CaptionMetadata, DatasetMetadata, FeatureMetadata, FileEntry, Manifest, Shard
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig
from schemas.tables import FILE_NAMES, Table

Config = TypeVar("Config", FeatureTableConfig, CaptionTableConfig)
Facts = TypeVar("Facts", FeatureMetadata, CaptionMetadata, DatasetMetadata)


class TableSnapshot(Generic[Facts]):
    """A table at one moment.

    Args:
        root: The table's directory.
        manifests: The commits to show, oldest first; None for the live ones.

    Raises:
        CorruptFileError: The log or a manifest cannot be read.
    """

    def __init__(self, root: Path, manifests: Sequence[Manifest] | None = None) -> None:
        self.root = root
        self.manifests = CommitLog(root).live() if manifests is None else list(manifests)

    @property
    def facts(self) -> Facts:
        """The metadata of the latest commit."""
        return cast(Facts, self.manifests[-1].facts)

    @property
    def shards(self) -> list[Shard]:
        """The live shards, oldest commit first. A shard that two commits reference counts once."""
        return list({shard.data.path: shard for manifest in self.manifests for shard in manifest.shards}.values())

    @property
    def bytes(self) -> int:
        """Size of all files that the manifests reference."""
        return sum({entry.path: entry.bytes for one in self.manifests for entry in one.entries()}.values())

    def file_names(self) -> pa.Table:
        """Returns the rows of `schemas.tables.FILE_NAMES`: the image file names in the annotations, by image ID."""
        return read_parquet(self._paths(FILE_NAMES), FILE_NAMES)

    def file(self, entry: FileEntry) -> Path:
        """Returns the path of a referenced file on this machine, after its checksum was verified."""
        return check_file(self.root, entry)

    def __getstate__(self) -> dict[str, Any]:
        # Open files and indexes stay in this process. A copy opens its own.
        kind = type(self)
        return {
            name: one for name, one in vars(self).items() if not isinstance(getattr(kind, name, None), cached_property)
        }

    def _paths(self, table: Table) -> list[Path]:
        """Returns the file with the rows of `table` in the latest commit, if there is one."""
        entry = self.manifests[-1].files.get(table.name)
        return [self.file(entry)] if entry else []


def read_table_config(root: Path, config_type: type[Config]) -> Config:
    """Reads the config of a table.

    Raises:
        CorruptFileError: The config is missing, or its fingerprint is not the directory's name.
        StoreError: The config has fields that this version of capt does not support.
    """
    path, hint = root / RECIPE, "Run the same prepare command again."
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptFileError("the table config is missing", location=str(path), hint=hint) from None
    got = hashlib.sha256(data).hexdigest()
    if got[:SHORT_FINGERPRINT] != root.name:
        message = f"the table config is corrupt: expected SHA-256 {root.name}…, got {got}"
        raise CorruptFileError(message, location=str(path), hint=hint)
    try:
        return config_type.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"unknown table config: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StoreError(message, location=str(path), hint="Use a newer version of capt.") from None
