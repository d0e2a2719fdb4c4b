"""Writes the rows of a dataset, each split to its own files."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from features.io.atomic_files import atomic_write
from features.text.vocabulary import VOCABULARY_FILE, write_vocabulary
from pipelines.store_export.formats import FORMATS
from pipelines.store_export.output_directory import ExportDirectory
from pipelines.store_export.rows import CAPTION_COUNTS, Block, RowReader, SplitRows
from pipelines.store_export.tables import ExportTables
from schemas.choices import Split
from schemas.errors import CaptError
from schemas.options.store import StoreExport
from schemas.terminal.progress import show_progress


class DatasetExport:
    """The files of an export, and what they contain."""

    def __init__(self, options: StoreExport, tables: ExportTables) -> None:
        self._options, self._tables = options, tables
        self._format = FORMATS[options.format]
        self._reader = RowReader(tables)
        self._format.check(self._reader.layout)
        splits: Sequence[Split] = [options.split] if options.split else get_args(Split)
        self._splits = [self._reader.count(split) for split in splits]
        if not any(one.rows for one in self._splits):
            chosen = f"of the split {options.split} " if options.split else ""
            message = f"no image {chosen}of {tables.dataset.name} has features in the table"
            raise CaptError(message, location=options.store, hint="Choose another --split or --feature-table.")
        self._counts: Counter[str] = Counter()

    def describe(self) -> dict[str, Any]:
        """Returns the settings that determine every byte of the files."""
        captions = self._tables.captions
        return {
            "dataset": self._tables.dataset.name,
            "split": self._options.split,
            "shard_size": self._options.shard_size,
            "feature_table": self._tables.features.fingerprint,
            "caption_table": captions.fingerprint if captions else None,
            "vocabulary": captions.manifests[-1].files["vocabulary"].sha256 if captions else None,
            "columns": self._reader.layout.schema.names,
            "digests": {one.split: one.digests for one in self._splits},
        }

    def write(self, directory: ExportDirectory) -> None:
        """Writes the files that the directory lacks."""
        if self._tables.captions:
            self._write_vocabulary(directory)
        total = sum(one.rows for one in self._splits)
        with show_progress("exporting", total, "images", lambda: (self._counts["images"], "")):
            for one in self._splits:
                self._write_split(directory, one)

    def summarize(self) -> dict[str, Any]:
        layout = self._reader.layout
        return {
            "shape": list(layout.shape),
            "dtype": layout.dtype.name,
            "images": {one.split: one.rows for one in self._splits if one.rows},
            "without_features": self._sum("without_features"),
            "failed": self._sum("failed"),
            **{name: self._sum(name) if self._tables.captions else None for name in CAPTION_COUNTS},
            "other_images": None,
        }

    def _sum(self, name: str) -> int:
        return sum(getattr(one, name) for one in self._splits)

    def _write_split(self, directory: ExportDirectory, split: SplitRows) -> None:
        if not split.rows:
            return
        size = self._options.shard_size or self._format.choose_shard_size(self._reader.layout, split.rows)
        count, cursor = -(-split.rows // size), self._reader.read(split.split)
        for number in range(count):
            rows = min(size, split.rows - number * size)
            stem = f"{split.split}-{number:05d}-of-{count:05d}"
            names = {suffix: str(Path(self._format.directory, stem + suffix)) for suffix in self._format.suffixes}
            if directory.is_finished(list(names.values())):
                cursor.skip(rows)
                self._counts["images"] += rows
                continue
            with contextlib.ExitStack() as stack:
                paths = {suffix: stack.enter_context(atomic_write(directory.locate(names[suffix]))) for suffix in names}
                self._format.write(paths, self._reader.layout, rows, self._count(cursor.read(rows)))
            directory.add(list(names.values()))

    def _count(self, blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            yield block
            self._counts["images"] += len(block.rows)

    def _write_vocabulary(self, directory: ExportDirectory) -> None:
        captions = self._tables.captions
        assert captions is not None
        if directory.is_finished([VOCABULARY_FILE]):
            return
        write_vocabulary(directory.root / VOCABULARY_FILE, captions.vocabulary())
        directory.add([VOCABULARY_FILE])
