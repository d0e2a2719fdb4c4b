"""Implements `capt store export`."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from features.io.atomic_files import atomic_write
from features.store import open_store
from features.store.leases import hold_snapshot
from features.text.vocabulary import VOCABULARY_FILE, write_vocabulary
from pipelines.beam.disk_errors import report_full_disk
from pipelines.store_export.formats import FORMATS
from pipelines.store_export.output_directory import ExportDirectory, hold_directory
from pipelines.store_export.rows import RowReader, SplitRows
from pipelines.store_export.tables import ExportTables, select_tables
from schemas.choices import Split
from schemas.errors import CaptError
from schemas.options.store import StoreExport
from schemas.terminal.console import Printer
from schemas.terminal.progress import show_progress

_VERSION = 1


def export_store(options: StoreExport) -> dict[str, Any]:
    """Writes the rows of a dataset to files of a format.

    Returns:
        `store`, `dataset`, `feature_table`, `caption_table` (null without captions), `format`, `output`, `shape` and
        `dtype` of the features of an image; `images` (exported images by split), `without_features` (images that are
        left out) and `failed` (those of them that failed permanently); `captions` and `without_captions` (exported
        images that have none), null without captions; `files` and `bytes` of the whole export, `written` (files of this
        run) and `seconds`.

    Raises:
        StoreError: The store, dataset or a table does not exist, or several match.
        UsageError: An option is invalid, or the output directory has other contents.
        CaptError: No image has features, or the disk is full.
    """
    started = time.monotonic()
    store = open_store(options.store)
    with (
        hold_snapshot(store.path, lambda: select_tables(store, options)) as tables,
        report_full_disk(options.output),
    ):
        export = _Export(options, tables)
        settings = export.describe()
        with hold_directory(options.output, store.path, settings) as directory:
            export.write(directory)
            return {
                "store": str(store.path),
                "dataset": tables.dataset.name,
                "feature_table": tables.features.fingerprint,
                "caption_table": tables.captions.fingerprint if tables.captions else None,
                "format": options.format,
                "output": options.output,
                **export.summarize(),
                "files": len(directory.files),
                "bytes": sum(entry.bytes for entry in directory.files),
                "written": directory.written,
                "seconds": round(time.monotonic() - started, 3),
            }


def print_exported(result: Mapping[str, Any]) -> None:
    printer = Printer()
    images = result["images"]
    title = f"images of {result['dataset']} in {result['output']}"
    printer.table(title, (), (*images, "without features"), [(*images.values(), result["without_features"])])
    shape = "×".join(map(str, result["shape"]))
    printer.line(f"features: {result['dtype']} {shape}")
    if result["captions"] is not None:
        printer.line(f"captions: {result['captions']:,}; images without captions: {result['without_captions']:,}")
    if result["without_features"]:
        failed = f", {result['failed']:,} of them because they failed" if result["failed"] else ""
        printer.line(f"Images without features are left out: {result['without_features']:,}{failed}.", "yellow")
    printer.line(f"files: {result['files']:,} ({result['written']:,} by this run), {result['bytes']:,} bytes")


class _Export:
    """The files of an export, and what they contain."""

    def __init__(self, options: StoreExport, tables: ExportTables) -> None:
        self._options, self._tables = options, tables
        self._format = FORMATS[options.format]
        self._reader = RowReader(tables)
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
            "version": _VERSION,
            "format": self._options.format,
            "dataset": self._tables.dataset.name,
            "split": self._options.split,
            "shard_size": self._options.shard_size,
            "feature_table": self._tables.features.fingerprint,
            "caption_table": captions.fingerprint if captions else None,
            "captions": [shard.data.sha256 for shard in captions.shards] if captions else [],
            "labels": self._tables.dataset.digest if "label" in self._reader.layout.schema.names else None,
            "rows": {one.split: one.digest for one in self._splits},
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
            "without_features": sum(one.without_features for one in self._splits),
            "failed": sum(one.failed for one in self._splits),
            "captions": sum(one.captions for one in self._splits) if self._tables.captions else None,
            "without_captions": sum(one.without_captions for one in self._splits) if self._tables.captions else None,
        }

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
                paths = {suffix: stack.enter_context(atomic_write(directory.root / names[suffix])) for suffix in names}
                self._format.write(paths, self._reader.layout, rows, self._count(cursor.read(rows)))
            directory.add(list(names.values()))

    def _count(self, blocks: Iterator[Any]) -> Iterator[Any]:
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
