"""Implements `capt prepare features`: extracts or imports image features and commits the dataset of the images.

images → list → download → hash → classify → extract shards (Beam) → commit → summary
         arrays of one's own → list → hash → match to the images → import shards (Beam) ↗
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from features.extractors.extractor import ExtractorConfig, resolve_dtype
from features.extractors.factory import open_extractor
from features.extractors.output_layers import OUTPUT
from features.extractors.runtimes import TENSORFLOW_CPU, RuntimeChoice, choose_batch_size, choose_runtime
from features.images.decode import ImageLimits
from features.images.resize import make_resizer
from features.runtime.numerics import detect_native_precision
from features.store import Dataset, FeatureTable, Store
from features.store.commit_log import CommitLog
from features.store.corruption import read_recorded_corruption
from features.store.layout import FROZEN_EXTRACTORS
from features.store.repair import FeatureTableRepair
from features.store.shards import check_num_shards
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.runner_options import parse_hints, runs_locally
from pipelines.datasets import open_source
from pipelines.datasets.base import DatasetReader
from pipelines.datasets.limits import parse_limits
from pipelines.datasets.splits import Splitter, parse_split_ratios
from pipelines.ingest.array_index import ArrayIndex, open_arrays
from pipelines.ingest.download_images import download_images
from pipelines.ingest.hash_images import hash_images
from pipelines.ingest.image_database import ImageDatabase, locate_hash_cache
from pipelines.ingest.list_inputs import list_inputs
from pipelines.ingest.whole_array import NAMES_OPTION, OPTION
from pipelines.jobs.extraction_job import ExtractionJob
from pipelines.jobs.failure_limit import check_failures, parse_max_failures
from pipelines.jobs.feature_source import ArraySource, ExtractorSource, FeatureSource
from pipelines.jobs.frozen_extractor import (
    FrozenExtractor,
    find_damaged_extractors,
    find_frozen_extractor,
    find_or_freeze_extractor,
)
from pipelines.jobs.label_summary import summarize_labels
from pipelines.jobs.provenance import check_launch
from pipelines.jobs.quantized_extractor import (
    find_or_quantize_extractor,
    find_quantized_extractor,
    repair_quantized_extractor,
)
from pipelines.jobs.sinks import Sink, log_removed, open_sink
from schemas.choices import Precision
from schemas.errors import CaptError, UsageError
from schemas.manifests import DatasetMetadata, InputSize
from schemas.options.extractor import ExtractorOptions
from schemas.options.prepare import PrepareFeatures
from schemas.table_config import IMPORTED, SHORT_FINGERPRINT, FeatureTableConfig

_log = logging.getLogger("capt.prepare")

# Options that have no effect on imported features.
_EXTRACTION_OPTIONS = (
    *(name for name in ExtractorOptions.model_fields if name != "storage_dtype"),
    *("resize_method", "resize_mode", "shortest_edge", "device", "backend", "batch_size", "max_image_pixels"),
    "allow_mixed_numerics",
)


def prepare_features(options: PrepareFeatures) -> dict[str, Any]:
    """Extracts the features of the images that the store lacks, and commits the dataset.

    Returns:
        Numbers of records: `input`, `ok`, `cached`, `duplicate`, `failed`; `reasons` (failed records by reason);
        `unannotated` (images that no annotation names), `replaced` (images with other content than in the last commit),
        `removed` (images of the last commit that this run does not have, or that failed), `shared_ids`, `splits`
        (`hashed`, `kept`), `shards` and `bytes` (written), `fingerprint`, `dataset`, `precision`, `seconds`, `report`
        (path of the run report), `unrepaired_rows` and `unrepaired_examples`; for `conceptual` and `urls` also
        `downloads`; for `webdataset` with side files also `not_downloaded` (URLs without a sample by status); with
        `from_arrays` also `unknown_arrays` (arrays whose names no image of this run has). In a dry
        run, `dry_run`, `hits`, `misses`, `images_per_second`, `estimated_seconds`, `shape` and `scale` replace `report`
        and `unrepaired_…`; `shards` is 0 and `bytes` an estimate.
    """
    splitter = parse_split_ratios(options.split_ratios)
    reader = open_source(options)
    source = SourceDataset(
        dataset_type=options.dataset_type,
        reader=reader,
        splitter=splitter,
        added_images_splitter=splitter,
        stated=splitter,
    )
    return prepare_images(options, source)


@dataclass(frozen=True)
class SourceDataset:
    """A published dataset, and how its images get their splits.

    Attributes:
        splitter: Assigns the splits of a dataset that is new to the store.
        added_images_splitter: Assigns the splits of images that are added to a dataset in the store.
        stated: Returns the split that the command states for an image; None if the command states no splits.
        choose_size: Chooses the input size from the listed images and the size that the dataset was first prepared
            with; None if the options of the extractor determine it.
        fold_case: Whether the reader folds the case of labels.
    """

    dataset_type: str
    reader: DatasetReader
    splitter: Splitter
    added_images_splitter: Splitter
    stated: Splitter | None
    choose_size: Callable[[ImageDatabase, InputSize | None], InputSize] | None = None
    fold_case: bool = False


def prepare_images(options: PrepareFeatures, source: SourceDataset) -> dict[str, Any]:
    """Does what `prepare_features` does for an open dataset. Ignores the options of dataset type and splits."""
    _check(options)
    max_failures = parse_max_failures(options.max_failures or source.reader.max_failures)
    limits = ImageLimits(options.max_image_pixels, options.max_image_bytes)
    runtime = TENSORFLOW_CPU if options.from_arrays else _choose_runtime(options)
    with (
        report_full_disk(options.store),
        open_sink(options.store, options.dry_run) as sink,
        _open_arrays(options, sink) as arrays,
    ):
        imported = _describe_import(options, arrays) if arrays else None
        # Invalid options are refused before the images are listed.
        fixed = None if source.choose_size else build_table_config(options, sink.store, imported, runtime)
        dataset = sink.store.dataset_root(options.dataset_name or source.dataset_type)
        create = partial(ImageDatabase, hash_cache=locate_hash_cache(sink.root))
        with sink.hold(dataset), sink.open_database(create) as database:
            known = sink.open_dataset(dataset)
            unannotated = _list(options, source, database, known)
            input_size = source.choose_size(database, known.input_size) if source.choose_size else None
            if input_size:
                _log.info("%s: images are stored at %s.", dataset.name, input_size)
                options = options.model_copy(update=input_size.model_dump(exclude={"reason"}))
            table_config = fixed or build_table_config(options, sink.store, imported, runtime)
            with sink.hold(sink.table_root(table_config)), sink.repair(table_config) as repair:
                downloads = None
                if source.reader.has_urls:
                    downloads = download_images(database, options, sink.work, limits.bytes)
                hash_images(database, sink.work, options.rehash, options.beam_options, limits.bytes)
                unknown_arrays = database.find_arrays(arrays) if arrays else None
                extracted = None
                while extracted is None:  # None: another job has committed to the table meanwhile.
                    extracted = sink.run_job(_plan(options, runtime, sink, database, repair, limits, arrays))
            facts = DatasetMetadata(
                source=source.dataset_type,
                images={},
                label_format=source.reader.label_format,
                input_size=input_size,
                fold_case=source.fold_case,
            )
            sink.commit_dataset(database, dataset, facts)
            sink.remove_corrupt(dataset)
            summary = {
                **sink.summarize(database, dataset, "features"),
                **extracted,
                **({} if downloads is None else {"downloads": downloads}),
                **source.reader.summarize(),
                **({} if unknown_arrays is None else {"unknown_arrays": unknown_arrays}),
                "unannotated": unannotated,
                "replaced": _count_replaced(database, dataset.name),
                "removed": log_removed(database.count_removed(), dataset.name, "images", "dataset"),
                **(summarize_labels(database.count_label_texts(), dataset.name) if database.count_labels() else {}),
                **({"input_size": input_size.model_dump()} if input_size else {}),
                "fingerprint": table_config.fingerprint,
                "precision": table_config.precision,
                **({} if options.dry_run else repair.unrepaired),
            }
    if not options.dry_run:
        check_failures(summary, max_failures)
    return summary


def _check(options: PrepareFeatures) -> None:
    if options.assume_images and not options.dry_run:
        hint = "Add --dry-run, or use --limit-images."
        raise UsageError("only valid with --dry-run", location="--assume-images", hint=hint)
    if not options.images:
        raise UsageError("no images are given", location="--images", hint="Choose a directory, a .zip or a .tar.")
    check_num_shards(options.num_shards)
    parse_limits(options)
    parse_hints(options.resource_hint)
    _check_import(options)
    if not options.from_arrays:
        open_extractor(options)


def _choose_runtime(options: PrepareFeatures) -> RuntimeChoice:
    is_local = runs_locally(options.beam_options)
    return choose_runtime(options.backend, options.device, options.extractor, options.precision, is_local=is_local)


def _check_import(options: PrepareFeatures) -> None:
    if not options.from_arrays:
        if options.array_names:
            hint = f"Add {OPTION} FILE.npy, or omit the option."
            raise UsageError(f"the option belongs to {OPTION}", location=NAMES_OPTION, hint=hint)
        return
    for name in _EXTRACTION_OPTIONS:
        if name in options.model_fields_set:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError("the option does not apply to imported features", location=flag, hint="Omit the option.")
    resolve_dtype(options, pixels=False)


# === Imported features ===


@contextlib.contextmanager
def _open_arrays(options: PrepareFeatures, sink: Sink) -> Iterator[ArrayIndex | None]:
    """Lists the arrays of `--from-arrays` for the block; None without the option."""
    if not options.from_arrays:
        yield None
        return
    with open_arrays(options.from_arrays, options.array_names, sink.work) as arrays:
        yield arrays


def _describe_import(options: PrepareFeatures, arrays: ArrayIndex) -> ExtractorConfig:
    """Returns the settings of imported features. Other values or names have another digest, and so another table."""
    return ExtractorConfig(
        extractor=IMPORTED,
        weights=f"sha256:{arrays.digest}",
        layer=OUTPUT,
        height=1,
        width=1,
        dtype=resolve_dtype(options, pixels=False),
        precision="float32",
    )


# === Table config ===


def build_table_config(
    options: PrepareFeatures,
    store: Store,
    imported: ExtractorConfig | None = None,
    runtime: RuntimeChoice = TENSORFLOW_CPU,
) -> FeatureTableConfig:
    """Returns the config of the table that the options describe. `--precision auto` depends on the store's tables.

    `imported` are the settings of imported features; None to extract features with `runtime`.
    """
    choice = imported or open_extractor(options).resolve_config()
    how = (options.resize_method, options.resize_mode or choice.fit, options.shortest_edge)
    native: Precision = "bfloat16" if runtime.device == "gpu" else detect_native_precision()
    resizer = make_resizer(choice.height, choice.width, *how)
    table_config = FeatureTableConfig(
        extractor=choice.extractor,
        weights=choice.weights,
        layer=choice.layer,
        pooling=options.pooling,
        height=resizer.height,
        width=resizer.width,
        resize=resizer.method,
        fit=resizer.mode,
        shorter_side=resizer.shortest_edge,
        preprocess=choice.preprocess,
        precision=choice.precision or (native if options.precision == "auto" else options.precision),
        dtype=choice.dtype,
        format=options.format,
        compression=options.compression,
    )
    if choice.precision is None and options.precision == "auto":
        # The precision of the only table in the store that is otherwise equal. int8 is chosen by name only.
        precisions = [precision for precision in get_args(Precision) if precision != "int8"]
        candidates = [table_config.model_copy(update={"precision": precision}) for precision in precisions]
        stored = [candidate for candidate in candidates if store.has_feature_table(candidate)]
        table_config = stored[0] if len(stored) == 1 else table_config
    _log.info("Precision %s, fingerprint %s.", table_config.precision, table_config.fingerprint[:SHORT_FINGERPRINT])
    return table_config


# === Steps ===


def _list(options: PrepareFeatures, source: SourceDataset, database: ImageDatabase, dataset: Dataset) -> int:
    """Inserts every selected image with its file and split. Returns the number of unannotated image files."""
    splitter = source.added_images_splitter if dataset.manifests else source.splitter
    unannotated = list_inputs(database, source.reader, options, splitter, source.stated, dataset)
    if not database.count_by_status():
        location = ", ".join(options.annotations or options.images)
        hint = "Check --annotations, --images and the limits."
        raise CaptError("there are no images", location=location, hint=hint)
    return unannotated


def _plan(
    options: PrepareFeatures,
    runtime: RuntimeChoice,
    sink: Sink,
    database: ImageDatabase,
    repair: FeatureTableRepair,
    limits: ImageLimits,
    arrays: ArrayIndex | None,
) -> ExtractionJob:
    """Sets the status of every record, and returns the job that adds the missing rows."""
    last_commit = CommitLog(repair.root).last()
    table = repair.open_intact()
    is_missing = _classify(options, database, table, limits)
    source: FeatureSource | None
    if arrays:
        source = ArraySource(arrays)
    else:
        if is_missing:
            check_launch(table, repair.table_config, runtime, options.beam_options, options.allow_mixed_numerics)
        extractor = _open_frozen_extractor(options, runtime, sink, database, repair, limits, is_missing)
        batch_size = choose_batch_size(runtime.device) if options.batch_size == "auto" else options.batch_size
        source = ExtractorSource(extractor, batch_size, limits, runtime) if extractor else None
    return ExtractionJob(
        database=database,
        root=repair.root,
        work=sink.work,
        table_config=repair.table_config,
        source=source if is_missing else None,
        shape=table.shape if table else source.shape if source else None,
        limits=limits,
        last_commit=last_commit,
        suspect=repair.suspect,
        options=options,
    )


def _classify(
    options: PrepareFeatures, database: ImageDatabase, table: FeatureTable | None, limits: ImageLimits
) -> bool:
    """Sets the status of every record. Returns whether the table lacks images."""
    failures = table.failures() if table and not options.retry_failed else {}
    permanent = {key: failure for key, failure in failures.items() if not limits.allows_retry(*failure[1:])}
    blocks = table.key_blocks() if table else ()
    database.classify((key.tobytes() for keys in blocks for key in keys), permanent)
    return bool(database.count_planned() + database.count_pending())


def _open_frozen_extractor(
    options: PrepareFeatures,
    runtime: RuntimeChoice,
    sink: Sink,
    database: ImageDatabase,
    repair: FeatureTableRepair,
    limits: ImageLimits,
    is_needed: bool,
) -> FrozenExtractor | None:
    """Returns the stored extractor if it is needed; otherwise repairs those of the table's commits.

    A dry run builds a missing one in its workspace, and repairs nothing.
    """
    root, store = repair.root, sink.store.path
    if options.dry_run:
        known = _find_extractor(root, store, runtime) if is_needed else None
        if known or not is_needed:
            return known
    root = Store(sink.root).feature_table_root(repair.table_config)
    where = (root, sink.root, repair.table_config, open_extractor(options))
    if is_needed and runtime.is_int8:
        return find_or_quantize_extractor(*where, database.list_planned(), limits)
    if is_needed:
        return find_or_freeze_extractor(*where, runtime.extractor_format)
    for damaged in find_damaged_extractors(root, store, read_recorded_corruption(store, store / FROZEN_EXTRACTORS)):
        if runtime.is_int8:
            repair_quantized_extractor(root, damaged)
        else:
            find_or_freeze_extractor(*where, damaged.format)
    return None


def _find_extractor(root: Path, store: Path, runtime: RuntimeChoice) -> FrozenExtractor | None:
    """Returns the stored extractor if it exists and is intact. Writes nothing."""
    if runtime.is_int8:
        return find_quantized_extractor(root, store)
    return find_frozen_extractor(root, store, runtime.extractor_format)


def _count_replaced(database: ImageDatabase, dataset: str) -> int:
    replaced = database.count_replaced()
    if replaced:
        message = "the content of %d images differs from the dataset's last commit."
        hint = "If the captions have changed, too, prepare them again."
        _log.warning(f"%s: {message} {hint}", dataset, replaced)
    return replaced
