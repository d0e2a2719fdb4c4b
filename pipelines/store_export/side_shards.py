"""Writes side shards: for each WebDataset shard of a dataset, a tar with the features of its samples.

shard → files in order → samples of neighboring files → image's SHA-256 → features | why there are none

A side shard has the name of its shard, and one file per sample, with the keys and in the order of the shard: a reader
can go through both in step. `KEY.features.npy` is an array, `KEY.features.missing` the reason in words.
"""

import hashlib
import json
import re
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple, get_args

import numpy as np

from features.inputs.archives import escape_bytes, listed_name
from features.io.atomic_files import atomic_write, hold_local_copy
from features.io.tar_writer import TarWriter, open_tar_writer
from features.io.uris import is_uri, parse_uri
from pipelines.datasets.shard_files import Shard, find_shards
from pipelines.datasets.webdataset import open_tar, split_name
from pipelines.store_export.output_directory import ExportDirectory, is_name_within
from pipelines.store_export.rows import CAPTION_COUNTS, RowReader
from pipelines.store_export.tables import ExportTables
from pipelines.store_export.webdataset_files import encode_npy
from schemas.choices import Split
from schemas.errors import CaptError, RecordError, UsageError
from schemas.options.store import StoreExport
from schemas.records import join_keys
from schemas.terminal.progress import show_progress

_FEATURES, _MISSING = ".features.npy", ".features.missing"
_OTHER_IMAGE, _FAILED, _NO_FEATURES = "other image", "failed", "no features"
_MAX_IMAGE_BYTES = 256 << 20

# As in webdataset.tariterators, so that a reader finds the same samples. `x/._b.png` has the key `x/`.
_KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_META = re.compile(r"__[^/]*__($|/)")


class _Sample(NamedTuple):
    """A sample of a shard: its key, and the content hash of its image, or why that is not an image of the dataset."""

    key: str
    sha256: bytes
    reason: str


class SideShardExport:
    """The side shards of a dataset."""

    def __init__(self, options: StoreExport, tables: ExportTables) -> None:
        self._options, self._tables = options, tables
        self._shards = find_shards(options.aligned_with, [".tar"], expand=True)
        self._check_output()
        self._reader = RowReader(tables)
        self._splits = [self._reader.count(split) for split in get_args(Split)]
        self._images = _ImageIndex(tables)
        self._failures = tables.features.failures()
        self._counts: Counter[str] = Counter()

    def describe(self) -> dict[str, Any]:
        """Returns the settings that determine every byte of the files."""
        return {
            "dataset": self._tables.dataset.name,
            "shards": [shard.label for shard in self._shards],
            "feature_table": self._tables.features.fingerprint,
            "images": self._images.digest,
            "digests": {one.split: one.digests for one in self._splits},
        }

    def write(self, directory: ExportDirectory) -> None:
        """Writes the side shards that the directory lacks.

        Raises:
            CaptError: A shard cannot be read, or none of the samples has features.
        """
        with show_progress("exporting", None, "samples", lambda: (self._counts.total(), "")):
            for shard in self._shards:
                if not self._is_finished(directory, shard):
                    self._write_file(directory, shard)
                self._count(directory, shard)
        if not self._counts[""]:
            message = f"no sample of the shards is an image of {self._tables.dataset.name} with features"
            raise CaptError(message, location=", ".join(self._options.aligned_with), hint="Check --dataset.")

    def summarize(self) -> dict[str, Any]:
        layout = self._reader.layout
        return {
            "shape": list(layout.shape),
            "dtype": layout.dtype.name,
            "images": {"all": self._counts[""]},
            "without_features": self._counts.total() - self._counts[""],
            "failed": self._counts[_FAILED],
            **dict.fromkeys(CAPTION_COUNTS),
            "other_images": self._counts[_OTHER_IMAGE],
        }

    def _check_output(self) -> None:
        """Checks that no side shard replaces a shard, or becomes a shard of the next run."""
        output = _resolve(self._options.output)
        for given in self._options.aligned_with:
            if output.is_relative_to(_resolve(given)):
                message = "the directory of the side shards is in the directory of the shards"
                raise UsageError(message, location=self._options.output, hint="Choose another directory.")
        sources = {_resolve(shard.location) for shard in self._shards}
        for shard in self._shards:
            if not is_name_within(shard.label):
                message = f"no side shard can have the name of the shard: {shard.label}"
                hint = "Rename it: letters, digits, spaces and . _ - are allowed."
                raise UsageError(message, location=shard.location, hint=hint)
            if _resolve(f"{self._options.output.rstrip('/')}/{shard.label}") in sources:
                message = f"the side shard {shard.label} would replace a shard"
                raise UsageError(message, location=self._options.output, hint="Choose another directory.")

    def _is_finished(self, directory: ExportDirectory, shard: Shard) -> bool:
        """Returns whether an earlier run wrote the side shard of the same samples; reads the shard."""
        if not directory.is_finished([shard.label]):
            return False
        source = hashlib.sha256()
        for _ in _hash_samples(self._read_samples(shard), source):
            pass
        return directory.sources.get(shard.label) == source.hexdigest()

    def _write_file(self, directory: ExportDirectory, shard: Shard) -> None:
        source = hashlib.sha256()
        with atomic_write(directory.locate(shard.label)) as temporary, open_tar_writer(temporary) as archive:
            self._write_samples(_hash_samples(self._read_samples(shard), source), archive)
        directory.add([shard.label], source.hexdigest())

    def _write_samples(self, remaining: Iterator[_Sample], archive: TarWriter) -> None:
        features = self._tables.features
        while samples := list(islice(remaining, self._reader.layout.block_rows)):
            positions = features.lookup(join_keys([one.sha256 for one in samples]))
            positions[[bool(one.reason) for one in samples]] = -1
            arrays = iter(features.read(positions[positions >= 0]).astype(self._reader.layout.dtype, copy=False))
            for sample, position in zip(samples, positions.tolist(), strict=True):
                if position >= 0:
                    archive.add_bytes(sample.key + _FEATURES, encode_npy(np.asarray(next(arrays))))
                    continue
                reason = sample.reason or (_FAILED if sample.sha256 in self._failures else _NO_FEATURES)
                archive.add_bytes(sample.key + _MISSING, reason.encode())

    def _read_samples(self, shard: Shard) -> Iterator[_Sample]:
        """Yields the samples of a shard as WebDataset groups them: neighboring files with one key."""
        files = open_tar(shard.location).read_plain_files(self._images.is_image, _MAX_IMAGE_BYTES)
        named = ((key, name, data) for name, data in files if (key := find_key(name)) is not None)
        try:
            for key, some in groupby(named, lambda one: one[0]):
                _check_key(key, shard)
                yield self._read_sample(key, [(name, data) for _, name, data in some])
        except RecordError as error:
            raise CaptError(f"the shard cannot be read: {error}", location=shard.location) from error

    def _read_sample(self, key: str, files: list[tuple[str, bytes | RecordError | None]]) -> _Sample:
        for name, data in files:
            expected = self._images.find(name)
            if expected is not None and isinstance(data, bytes) and hashlib.sha256(data).digest() == expected:
                return _Sample(key, expected, "")
        return _Sample(key, bytes(32), _OTHER_IMAGE)

    def _count(self, directory: ExportDirectory, shard: Shard) -> None:
        """Counts the samples of a finished side shard, by the reason why they have no features."""
        with hold_local_copy(directory.root / shard.label) as path, tarfile.open(path) as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all.
                file = archive.extractfile(member) if member.name.endswith(_MISSING) else None
                self._counts[file.read().decode() if file else ""] += 1


class _ImageIndex:
    """The content hash and the field of each image of a dataset, by image ID, in a database on disk.

    Attributes:
        digest: SHA-256 of the rows, and of whether each image failed.
    """

    def __init__(self, tables: ExportTables) -> None:
        digest, failures = hashlib.sha256(), tables.features.failures()
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE image (image_id TEXT PRIMARY KEY, key BLOB, field TEXT) WITHOUT ROWID")
        for batch in tables.dataset.record_batches():
            names = (split_name(member.rpartition("@")[0]) for member in batch["member"].to_pylist())
            fields = [name.field if name else "" for name in names]
            rows = list(zip(batch["image_id"].to_pylist(), batch["key"].to_pylist(), fields, strict=True))
            self._database.executemany("INSERT INTO image VALUES (?, ?, ?)", rows)
            for image_id, key, field in rows:
                digest.update(json.dumps([image_id, key.hex(), field, key in failures]).encode())
        self.digest = digest.hexdigest()

    def is_image(self, name: str) -> bool:
        """Returns whether a file of a shard may be an image of the dataset, by its name."""
        return self.find(name) is not None

    def find(self, name: str) -> bytes | None:
        """Returns the content hash of the image that had this name in its shard; None if it is no image."""
        listed = listed_name(escape_bytes(name))
        sample = split_name(listed) if listed else None
        if sample is None:
            return None
        query = "SELECT key FROM image WHERE image_id = ? AND field = ?"
        row = self._database.execute(query, sample).fetchone()
        return row[0] if row else None


def _hash_samples(samples: Iterator[_Sample], digest: "hashlib._Hash") -> Iterator[_Sample]:
    """Yields samples, after it has added each to the digest."""
    for sample in samples:
        digest.update(json.dumps([sample.key, sample.sha256.hex(), sample.reason]).encode())
        yield sample


def _resolve(location: str) -> PurePath:
    """Returns a path that equals that of the same file or object, whatever links or credentials it is named with."""
    if is_uri(location):
        return PurePosixPath(*parse_uri(location)[:3])
    return Path(location).resolve()


def find_key(name: str) -> str | None:
    """Returns the key that WebDataset gives to a file; None if the file belongs to no sample."""
    match = None if _META.match(name) else _KEY.match(name)
    return match[1] if match else None


def _check_key(key: str, shard: Shard) -> None:
    shown = escape_bytes(key)
    if shown != key:
        message = f"the key {shown} is not UTF-8, so a side shard cannot have it"
        raise CaptError(message, location=shard.location, hint="Rename the file.")
    if key.startswith("/") or ".." in key.split("/"):
        message = f"the key {shown} leads out of the directory where the shard is unpacked"
        raise CaptError(message, location=shard.location, hint="Rename the file.")
