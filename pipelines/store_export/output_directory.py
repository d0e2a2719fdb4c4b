"""Keeps the directory of an export: its settings, and the finished files with their SHA-256.

`export.json` is written before the first file, every few seconds, and at the end, so an interrupted export can resume.
A file that is not in it, or that differs from its SHA-256, is written again.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from features.io.atomic_files import describe_file, make_directory, working_path, write
from features.io.file_trees import FileChecker, files_below
from features.io.locations import parse_location
from features.io.locks import hold_lock
from features.io.object_path import ObjectPath
from features.io.temporary_names import is_temporary
from schemas.errors import UsageError
from schemas.frozen import Frozen
from schemas.manifests import FileEntry, is_relative_path
from schemas.table_config import canonical_json

RECORD = "export.json"
_LOCK = ".export.lock"
_RECORD_SECONDS = 5.0
_HINT = "Choose a directory that is empty or does not exist yet."


class ExportRecord(Frozen):
    """The content of `export.json`.

    Args:
        sources: By the path of a side shard, the SHA-256 of the samples of its shard.
    """

    settings: dict[str, Any]
    files: dict[str, FileEntry] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)


class ExportDirectory:
    """The directory of an export that this process writes."""

    def __init__(self, root: Path, record: ExportRecord) -> None:
        self.root = root
        self.sources = dict(record.sources)
        self._settings, self._files = record.settings, dict(record.files)
        self._checker = FileChecker(root)
        self._written: set[str] = set()
        self._recorded_at = time.monotonic()

    @property
    def files(self) -> list[FileEntry]:
        """The finished files, by path."""
        return [self._files[path] for path in sorted(self._files)]

    @property
    def written(self) -> int:
        """Number of files that this process has written."""
        return len(self._written)

    def locate(self, name: str) -> Path:
        """Returns the path of a file that is to be written; UsageError for a name that is none within the directory."""
        if not is_name_within(name):
            message = f"no file of an export can have this name: {name}"
            raise UsageError(message, location=str(self.root), hint="Rename the file.")
        return self.root / name

    def is_finished(self, names: Sequence[str]) -> bool:
        """Returns whether these files are as an earlier run wrote them; reads them."""
        entries = [self._files.get(name) for name in names]
        return all(entry is not None and self._checker.is_intact(entry, check_hash=True) for entry in entries)

    def add(self, names: Sequence[str], source: str | None = None) -> None:
        """Adds files that have been written, and if they belong to a shard, the SHA-256 of its samples."""
        for name in names:
            self._files[name] = describe_file(self.root / name, self.root)
            if source is not None:
                self.sources[name] = source
        self._written.update(names)
        # Each record has all files. One per file would take time that grows with the square of their number.
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            self.write_record()

    def write_record(self) -> None:
        """Writes `export.json`."""
        _write_record(self.root, ExportRecord(settings=self._settings, files=self._files, sources=self.sources))
        self._recorded_at = time.monotonic()


@contextlib.contextmanager
def hold_directory(location: str, store: Path, settings: dict[str, Any]) -> Iterator[ExportDirectory]:
    """Yields the directory of an export with these settings, created if it is missing. No other run writes to it.

    Raises:
        UsageError: The directory is in the store, or has another export or other files.
        LockedError: Another run on this machine writes to the directory.
    """
    root = parse_location(location)
    _check_place(root, store)
    with hold_lock(working_path(root) / _LOCK, "exporting"):
        record = _read_record(root)
        if record is None:
            record = ExportRecord(settings=settings)
            _write_record(root, record)
        elif record.settings != settings:
            changed = sorted(name for name in settings if record.settings.get(name) != settings[name])
            message = f"the directory has another export; these differ: {', '.join(changed)}"
            hint = "Run the command as before on the unchanged store, or choose another directory."
            raise UsageError(message, location=str(root), hint=hint)
        if not isinstance(root, ObjectPath):
            for path in filter(is_temporary, list(files_below(root))):
                path.unlink()
        directory = ExportDirectory(root, record)
        try:
            yield directory
        finally:
            if directory.written:
                directory.write_record()


def is_name_within(name: str) -> bool:
    """Returns whether an exported file may have this name, a path within the directory."""
    is_own = name in (RECORD, _LOCK) or any(is_temporary(Path(part)) for part in name.split("/"))
    return is_relative_path(name) and not is_own


def _check_place(root: Path, store: Path) -> None:
    if isinstance(root, ObjectPath) or isinstance(store, ObjectPath):
        inner, outer = root, store
    else:
        inner, outer = root.resolve(), store.resolve()
    if inner.is_relative_to(outer):
        raise UsageError("the directory is in the store", location=str(root), hint="Choose another directory.")
    if root.is_file():
        raise UsageError("this is a file, not a directory", location=str(root), hint=_HINT)
    _read_record(root)  # so that other files are found before this run creates one
    if isinstance(root, ObjectPath):
        return
    try:
        make_directory(root)
    except OSError as error:
        message = f"the directory cannot be created: {error.strerror}"
        raise UsageError(message, location=str(root)) from error


def _read_record(root: Path) -> ExportRecord | None:
    """Returns the record of an earlier run; None for an empty directory, and UsageError for one with other files."""
    path = root / RECORD
    try:
        return ExportRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        others = root.iterdir() if root.is_dir() else ()
        if any(one.name != _LOCK and not is_temporary(one) for one in others):
            raise UsageError("the directory has other files", location=str(root), hint=_HINT) from None
        return None
    except ValidationError:
        raise UsageError("the file is not that of an earlier export", location=str(path), hint=_HINT) from None


def _write_record(root: Path, record: ExportRecord) -> None:
    write(root / RECORD, canonical_json(record.model_dump(mode="json")))
