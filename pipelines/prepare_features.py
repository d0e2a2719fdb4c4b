"""`capt prepare features`: images in, a table of features and the dataset that names them out.

source + walk → ledger → download → hash → plan → extract shards (Beam) → commit features → commit dataset → report
"""

import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from features.extractors.extraction import DEFAULT_BATCH_SIZE
from features.extractors.factory import open_extractor
from features.images.decode import MAX_PIXELS
from features.images.resizer import make_resizer
from features.io.locations import parse_location
from features.references import MAX_IMAGE_BYTES
from features.references.downloads import DownloadLimits
from features.references.image_limits import ImageLimits
from features.runtime.numerics import detect_native_precision
from features.store import FeatureTable, Store, create_store, open_store
from features.store.commit_log import CommitLog
from features.store.corruption import recorded_corruption
from features.store.leases import lease, table_name
from features.store.repair import FeatureTableRepair, open_readable_dataset, remove_corrupt, repair_log
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.resource_hints import parse_hints
from pipelines.datasets import DatasetReader, open_reader
from pipelines.datasets.splits import Splitter, parse_split_ratios
from pipelines.ingest.job_database import JobDatabase
from pipelines.ingest.list_inputs import ImageSelection, download_images, hash_images, list_inputs, skip_failed_urls
from pipelines.ingest.split_records import log_splits
from pipelines.ingest.workspace import Workspace, dry_run_workspace
from pipelines.jobs.calibration import calibrate
from pipelines.jobs.estimate import Footprint, TableEstimate, estimate_table
from pipelines.jobs.extraction_job import ExtractionJob, check_num_shards
from pipelines.jobs.extractor_graph import GraphFile, find_graph, find_or_freeze_graph, is_graph_intact
from pipelines.jobs.provenance import check_launch
from pipelines.jobs.summary import build_summary, check_failures, commit_dataset, parse_max_failures, write_named
from schemas.choices import Precision
from schemas.errors import CaptError, UsageError
from schemas.manifests import Shard
from schemas.options.prepare import PrepareFeatures
from schemas.table_config import SHORT_FINGERPRINT, FeatureTableConfig

_log = logging.getLogger("capt.prepare")


def prepare_features(options: PrepareFeatures) -> dict[str, Any]:
    """Extract the features of a dataset's images that the store lacks, and commit the dataset.

    Args:
        options: The options of the command.

    Returns:
        The figures that `--json` prints.
    """
    splitter = parse_split_ratios(options.split_ratios)
    source = open_reader(options.dataset_type, options.annotations)
    return prepare_images(options, PreparedImages(options.dataset_type, source, splitter, splitter, splitter))


@dataclass(frozen=True)
class PreparedImages:
    """A dataset as published, with what assigns splits to its images.

    Args:
        dataset_type: str. Its format.
        source: Source. The dataset.
        splitter: Splitter. Assigns the splits of a dataset that is new to the store.
        later: Splitter. Assigns those of images that come to one that is there; the others keep theirs.
        states: Splitter or None. Says which splits the command states; None where it states none.
    """

    dataset_type: str
    source: DatasetReader
    splitter: Splitter
    later: Splitter
    states: Splitter | None


def prepare_images(options: PrepareFeatures, published: PreparedImages) -> dict[str, Any]:
    """`prepare_features` of a dataset that is open, whatever `options` say of its type, annotations and splits."""
    _check(options)
    with report_full_disk(options.store):
        return _forecast(options, published) if options.dry_run else _prepare(options, published)


def _prepare(options: PrepareFeatures, published: PreparedImages) -> dict[str, Any]:
    started = time.monotonic()
    allowed = parse_max_failures(options.max_failures or published.source.max_failures)
    store = create_store(options.store)
    workspace = Workspace(store.path)
    table_config = build_table_config(options, store)
    dataset = store.dataset_root(options.dataset_name or published.dataset_type)
    leased = {table_name(store.path, root): () for root in (store.feature_table_root(table_config), dataset)}
    with lease(store.path, "prepare", leased), workspace.job_database() as job_database:
        with FeatureTableRepair(store, table_config) as repair:
            repair_log(dataset)
            entered = _enter(job_database, options, published, workspace, store)
            shards = _extract(job_database, options, workspace, repair)
        commit_dataset(job_database, dataset, published.dataset_type)
        splits, replaced = job_database.split_figures(), job_database.count_replaced()
        log_splits(splits, dataset.name)
        if replaced:
            message = "images with another content than in the dataset's last commit"
            hint = "If their captions are others now, prepare the captions again."
            _log.warning("%s: %s: %d. %s", dataset.name, message, replaced, hint)
        remove_corrupt(dataset, recorded_corruption(store.path, dataset))
        report = write_named(dataset, "features", job_database.write_report, "reports")
        result = build_summary(job_database.counts(), job_database.reasons()) | {
            **entered,
            "replaced": replaced,
            "splits": splits,
            "shards": len(shards),
            "bytes": sum(shard.data.bytes for shard in shards),
            "seconds": round(time.monotonic() - started, 3),
            "fingerprint": table_config.fingerprint,
            "dataset": dataset.name,
            "precision": table_config.precision,
            "report": str(dataset / report.path),
            **repair.unrepaired.to_dict(),
        }
    check_failures(result, allowed)
    return result


def _forecast(options: PrepareFeatures, published: PreparedImages) -> dict[str, Any]:
    """What a run would do, from a ledger kept aside; changes nothing."""
    started = time.monotonic()
    parse_max_failures(options.max_failures or published.source.max_failures)
    root = parse_location(options.store)
    with dry_run_workspace(root) as workspace, workspace.job_database() as job_database:
        store = open_store(root) if root.exists() else create_store(workspace.root / "store")
        table_config = build_table_config(options, store)
        entered = _enter(job_database, options, published, workspace, store)
        table = _compare(job_database, options, FeatureTableRepair(store, table_config))
        counts = job_database.counts()
        misses = counts.pop("planned", 0) + counts.pop("wanted", 0)
        if misses:
            check_launch(table, table_config.precision, options.beam_options, options.allow_mixed_numerics)
        job = _job(options, workspace, table_config, network=_known_network(store, table_config)) if misses else None
        pace = _pace(job_database, job) if job else None
        shape = table.shape if table else job.network.shape if job else None
        scale = _scale(job_database, options, workspace, table_config, shape, pace) if shape else None
        seconds = time.monotonic() - started
        extracting = misses / pace if pace else None if misses else 0.0
        return build_summary(counts | {"ok": misses}, job_database.reasons()) | {
            "dry_run": True,
            "hits": counts.get("cached", 0),
            "misses": misses,
            **entered,
            "replaced": job_database.count_replaced(),
            "splits": job_database.split_figures(),
            "bytes": misses * job.row_bytes if job else 0,
            "images_per_second": round(pace, 1) if pace else None,
            "estimated_seconds": None if extracting is None else round(seconds + extracting, 1),
            "fingerprint": table_config.fingerprint,
            "precision": table_config.precision,
            "shape": list(shape) if shape else None,
            "scale": scale.figures() if scale else None,
        }


def _scale(
    job_database: JobDatabase,
    options: PrepareFeatures,
    workspace: Workspace,
    table_config: FeatureTableConfig,
    shape: tuple[int, ...],
    pace: float | None,
) -> TableEstimate | None:
    """What the table takes with these images, or with so many like them; None where none or not all are here yet."""
    images = sum(job_database.splits().values())
    if not images or job_database.count_wanted():
        return None
    catalog = workspace.root / "catalog.parquet"
    job_database.write_catalog(catalog)
    each = Footprint(
        row=sum(column.nbytes for column in table_config.table(shape).fields),
        job_database=job_database.bytes / images,
        catalog=catalog.stat().st_size / images,
    )
    return estimate_table(options.assume_images or images, each, pace, workspace.root, options.num_shards)


def _known_network(store: Store, table_config: FeatureTableConfig) -> GraphFile | None:
    """The network of the recipe's table, so that a plan builds none where there is one."""
    return find_graph(FeatureTableRepair(store, table_config).root, Workspace(store.path).networks)


def _pace(job_database: JobDatabase, job: ExtractionJob) -> float | None:
    """How many images a second a run would extract; None where no image is here yet."""
    if not job_database.count_planned():
        return None
    return calibrate(job.table_config, job.network, job.batch_size, job.limits, job_database.planned())


def image_limits(options: PrepareFeatures) -> ImageLimits:
    """Returns what one image may measure."""
    return ImageLimits(options.max_image_pixels or MAX_PIXELS, options.max_image_bytes or MAX_IMAGE_BYTES)


def download_limits(options: PrepareFeatures) -> DownloadLimits:
    """Returns what one download may take."""
    return DownloadLimits(max_bytes=image_limits(options).bytes, allow_private=options.allow_private_addresses)


def _check(options: PrepareFeatures) -> None:
    if options.assume_images and not options.dry_run:
        raise UsageError(
            "only with --dry-run", location="--assume-images", hint="Add --dry-run, or use --limit-images."
        )
    if not options.images:
        raise UsageError("no images are named", location="--images", hint="name a directory, a .zip or a .tar")
    check_num_shards(options.num_shards)
    parse_hints(options.resource_hint)
    open_extractor(options)


def build_table_config(options: PrepareFeatures, store: Store) -> FeatureTableConfig:
    """What a row of the table that the options ask for means; `auto` is settled by what the store holds."""
    choice = open_extractor(options).resolve_config()
    fitting = make_resizer(
        choice.height, choice.width, options.resize_method, options.resize_mode, options.shortest_edge
    )
    table_config = FeatureTableConfig(
        extractor=choice.extractor,
        weights=choice.weights,
        layer=choice.layer,
        pooling=options.pooling,
        height=fitting.height,
        width=fitting.width,
        resize=fitting.method,
        fit=fitting.mode,
        shorter_side=fitting.shortest_edge,
        preprocess=choice.preprocess,
        precision=choice.precision or (detect_native_precision() if options.precision == "auto" else options.precision),
        dtype=choice.dtype,
        format=options.format,
        compression=options.compression,
    )
    if choice.precision is None and options.precision == "auto":
        table_config = _as_stored(table_config, store)
    _log.info("precision %s, fingerprint %s", table_config.precision, table_config.fingerprint[:SHORT_FINGERPRINT])
    return table_config


def _as_stored(table_config: FeatureTableConfig, store: Store) -> FeatureTableConfig:
    """The recipe in the precision of the table that it fits otherwise, where the store has one."""
    options = [table_config.model_copy(update={"precision": precision}) for precision in get_args(Precision)]
    known = [option for option in options if store.has_feature_table(option)]
    return known[0] if len(known) == 1 else table_config


def _enter(
    job_database: JobDatabase, options: PrepareFeatures, published: PreparedImages, workspace: Workspace, store: Store
) -> dict[str, int]:
    """Give every record its content key; how many images no annotation names, and how many are downloaded."""
    dataset = open_readable_dataset(store.dataset_root(options.dataset_name or published.dataset_type))
    splitter = published.later if dataset.manifests else published.splitter
    selection = ImageSelection(splitter, published.states, options.seed, options.limit_images, options.limit_captions)
    entered = list_inputs(job_database, published.source, options.images, selection)
    if not job_database.counts():
        location = ", ".join(options.annotations or options.images)
        raise CaptError("there are no images", location=location, hint="check --annotations, --images and the limits")
    job_database.keep_assigned(dataset)
    if job_database.identities.has_addresses():
        entered["downloads"] = _download(job_database, options, workspace)
    hash_images(job_database, workspace.work, options.rehash, options.beam_options, image_limits(options).bytes)
    return entered


def _download(job_database: JobDatabase, options: PrepareFeatures, workspace: Workspace) -> int:
    """Download what is not here, unless this is a plan; how many images."""
    if not options.retry_failed:
        skip_failed_urls(job_database, options.images, image_limits(options).bytes)
    if options.dry_run:
        return job_database.count_wanted()
    return download_images(job_database, options.images, workspace.work, download_limits(options), options.beam_options)


def _compare(job_database: JobDatabase, options: PrepareFeatures, repair: FeatureTableRepair) -> FeatureTable | None:
    """Give every record its status, by what the table has now; the table."""
    table = repair.open_intact()
    failures = table.failures() if table and not options.retry_failed else {}
    lasting = {key: why for key, why in failures.items() if not image_limits(options).allows_retry(*why[1:])}
    job_database.settle(_keys(table) if table else iter(()), lasting)
    return table


def _extract(
    job_database: JobDatabase, options: PrepareFeatures, workspace: Workspace, repair: FeatureTableRepair
) -> tuple[Shard, ...]:
    """Commit the rows that the table lacks, and see that it has its network."""
    while True:
        seen = CommitLog(repair.root).last()
        table = _compare(job_database, options, repair)
        if not job_database.count_planned():
            break
        check_launch(table, repair.table_config.precision, options.beam_options, options.allow_mixed_numerics)
        job = _job(options, workspace, repair.table_config, repair.suspect)
        shards = job.run(job_database, options.beam_options, seen)
        if shards is not None:
            return shards
    if not is_graph_intact(repair.root, workspace.networks, recorded_corruption(workspace.root, workspace.networks)):
        _job(options, workspace, repair.table_config)
    return ()


def _keys(table: FeatureTable) -> Iterator[bytes]:
    for keys in table.key_blocks():
        yield from (key.tobytes() for key in keys)


def _job(
    options: PrepareFeatures,
    workspace: Workspace,
    table_config: FeatureTableConfig,
    suspect: Collection[str] = (),
    network: GraphFile | None = None,
) -> ExtractionJob:
    root = Store(workspace.root).feature_table_root(table_config)
    return ExtractionJob(
        root=root,
        work=workspace.work,
        table_config=table_config,
        network=network or find_or_freeze_graph(root, workspace.networks, table_config, open_extractor(options)),
        batch_size=DEFAULT_BATCH_SIZE if options.batch_size == "auto" else options.batch_size,
        limits=image_limits(options),
        shards=options.num_shards,
        suspect=suspect,
        hints=parse_hints(options.resource_hint),
        allow_mixed=options.allow_mixed_numerics,
    )
