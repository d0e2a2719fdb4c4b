"""Implements `capt store export`."""

import time
from collections.abc import Mapping
from typing import Any

from features.store import open_store
from features.store.leases import hold_snapshot
from pipelines.beam.disk_errors import report_full_disk
from pipelines.store_export.dataset_export import DatasetExport
from pipelines.store_export.output_directory import hold_directory
from pipelines.store_export.side_shards import SideShardExport
from pipelines.store_export.tables import select_tables
from schemas.errors import UsageError
from schemas.options.store import StoreExport
from schemas.terminal.console import Printer

_VERSION = 1
# Side shards contain all splits, no captions, and as many samples as the shards that they belong to.
_NOT_ALIGNED = ("split", "caption_table", "without_captions", "shard_size")


def export_store(options: StoreExport) -> dict[str, Any]:
    """Writes the rows of a dataset to files of a format.

    Returns:
        `store`, `dataset`, `feature_table`, `caption_table` (null without captions), `format`, `output`, `shape` and
        `dtype` of the features of an image; `images` (exported images by split; those of side shards as `all`),
        `without_features` (images that are left out, or samples of side shards), `failed` (those of them that failed
        permanently) and `other_images` (samples of side shards whose image is not that of the dataset; null without
        them); `captions`, `without_captions` (exported images that have none) and `captions_without_features` (captions
        of images that are left out), null if captions are not exported; `files` and `bytes` of the whole export,
        `written` (files of this run) and `seconds`.

    Raises:
        StoreError: The store, dataset or a table does not exist, or several match.
        UsageError: An option is invalid, or the output directory has other contents.
        CaptError: No image has features, or the disk is full.
    """
    started = time.monotonic()
    _check_options(options)
    store = open_store(options.store)
    with (
        hold_snapshot(store.path, lambda: select_tables(store, options)) as tables,
        report_full_disk(options.output),
    ):
        export = (SideShardExport if options.aligned_with else DatasetExport)(options, tables)
        settings = {"version": _VERSION, "format": options.format, **export.describe()}
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


def _check_options(options: StoreExport) -> None:
    if options.aligned_with and options.format != "webdataset":
        message = f"side shards have the format webdataset, not {options.format}"
        raise UsageError(message, location="--aligned-with", hint="Use --format webdataset.")
    for name in _NOT_ALIGNED:
        if options.aligned_with and getattr(options, name):
            location = f"--{name.replace('_', '-')}"
            raise UsageError("--aligned-with excludes it", location=location, hint="Omit one of the two.")


def print_exported(result: Mapping[str, Any]) -> None:
    printer = Printer()
    images = result["images"]
    title = f"images of {result['dataset']} in {result['output']}"
    printer.table(title, (), (*images, "without features"), [(*images.values(), result["without_features"])])
    shape = "×".join(map(str, result["shape"]))
    printer.line(f"features: {result['dtype']} {shape}")
    if result["captions"] is not None:
        printer.line(f"captions: {result['captions']:,}; images without captions: {result['without_captions']:,}")
        if lost := result["captions_without_features"]:
            printer.line(f"captions of images without features: {lost:,}", "yellow")
    if result["without_features"]:
        reasons = {"that failed": result["failed"], "with another image than the dataset": result["other_images"]}
        shown = "".join(f", {count:,} {reason}" for reason, count in reasons.items() if count)
        printer.line(f"without features: {result['without_features']:,}{shown}", "yellow")
    printer.line(f"files: {result['files']:,} ({result['written']:,} by this run), {result['bytes']:,} bytes")
