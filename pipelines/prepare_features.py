"""`capt prepare features`: images in, a table of features and the dataset that names them out.

source + walk → ledger → download → hash → plan → extract shards (Beam) → commit features → commit dataset → report
"""

import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from features.extractors.extraction import DEFAULT_BATCH
from features.extractors.factory import open_extractor
from features.images.decode import MAX_PIXELS
from features.images.resizer import make_resizer
from features.io.locations import parse_location
from features.references import MAX_IMAGE_BYTES
from features.references.downloads import DownloadLimits
from features.references.image_limits import ImageLimits
from features.runtime.numerics import native_precision
from features.store import FeatureTable, Store, create_store, open_store
from features.store.commit_log import CommitLog
from features.store.corruption import recorded_corruption
from features.store.leases import lease, table_name
from features.store.repair import FeatureTableRepair, readable_dataset, remove_corrupt, repair_log
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.resource_hints import parse_hints
from pipelines.datasets import DatasetReader, open_reader
from pipelines.datasets.splits import Splitter, parse_split
from pipelines.ingest.ingestion import Selection, download_records, hash_records, insert_records, skip_failed_urls
from pipelines.ingest.job_database import JobDatabase
from pipelines.ingest.split_records import log_splits
from pipelines.ingest.workspace import Workspace, dry_run_workspace
from pipelines.jobs.calibration import calibrate
from pipelines.jobs.estimate import Footprint, TableEstimate, estimate_table
from pipelines.jobs.extraction_job import ExtractionJob, check_shards
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
    splitter = parse_split(options.split_ratios)
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
    recipe = build_table_config(options, store)
    dataset = store.dataset_root(options.dataset_name or published.dataset_type)
    leased = {table_name(store.path, root): () for root in (store.feature_root(recipe), dataset)}
    healing = FeatureTableRepair(store, recipe)
    with lease(store.path, "prepare", leased), workspace.ledger() as ledger:
        healing.begin()
        repair_log(dataset)
        entered = _enter(ledger, options, published, workspace, store)
        shards = _extract(ledger, options, workspace, healing)
        lost = healing.finish()
        commit_dataset(ledger, dataset, published.dataset_type)
        splits, replaced = ledger.split_figures(), ledger.count_replaced()
        log_splits(splits, dataset.name)
        if replaced:
            what = "images with another content than in the dataset's last commit"
            mend = "If their captions are others now, prepare the captions again."
            _log.warning("%s: %s: %d. %s", dataset.name, what, replaced, mend)
        remove_corrupt(dataset, recorded_corruption(store.path, dataset))
        report = write_named(dataset, "features", ledger.write_report, "reports")
        result = build_summary(ledger.counts(), ledger.reasons()) | {
            **entered,
            "replaced": replaced,
            "splits": splits,
            "shards": len(shards),
            "bytes": sum(shard.data.bytes for shard in shards),
            "seconds": round(time.monotonic() - started, 3),
            "fingerprint": recipe.fingerprint,
            "dataset": dataset.name,
            "precision": recipe.precision,
            "report": str(dataset / report.path),
            **lost.figures(),
        }
    check_failures(result, allowed)
    return result


def _forecast(options: PrepareFeatures, published: PreparedImages) -> dict[str, Any]:
    """What a run would do, from a ledger kept aside; changes nothing."""
    started = time.monotonic()
    parse_max_failures(options.max_failures or published.source.max_failures)
    root = parse_location(options.store)
    with dry_run_workspace(root) as workspace, workspace.ledger() as ledger:
        store = open_store(root) if root.exists() else create_store(workspace.root / "store")
        recipe = build_table_config(options, store)
        entered = _enter(ledger, options, published, workspace, store)
        table = _compare(ledger, options, FeatureTableRepair(store, recipe))
        counts = ledger.counts()
        misses = counts.pop("planned", 0) + counts.pop("wanted", 0)
        if misses:
            check_launch(table, recipe.precision, options.beam_options, options.allow_mixed_numerics)
        job = _job(options, workspace, recipe, network=_known_network(store, recipe)) if misses else None
        pace = _pace(ledger, job) if job else None
        shape = table.shape if table else job.network.shape if job else None
        scale = _scale(ledger, options, workspace, recipe, shape, pace) if shape else None
        seconds = time.monotonic() - started
        extracting = misses / pace if pace else None if misses else 0.0
        return build_summary(counts | {"ok": misses}, ledger.reasons()) | {
            "dry_run": True,
            "hits": counts.get("cached", 0),
            "misses": misses,
            **entered,
            "replaced": ledger.count_replaced(),
            "splits": ledger.split_figures(),
            "bytes": misses * job.row_bytes if job else 0,
            "images_per_second": round(pace, 1) if pace else None,
            "estimated_seconds": None if extracting is None else round(seconds + extracting, 1),
            "fingerprint": recipe.fingerprint,
            "precision": recipe.precision,
            "shape": list(shape) if shape else None,
            "scale": scale.figures() if scale else None,
        }


def _scale(
    ledger: JobDatabase,
    options: PrepareFeatures,
    workspace: Workspace,
    recipe: FeatureTableConfig,
    shape: tuple[int, ...],
    pace: float | None,
) -> TableEstimate | None:
    """What the table takes with these images, or with so many like them; None where none or not all are here yet."""
    images = sum(ledger.splits().values())
    if not images or ledger.count_wanted():
        return None
    catalog = workspace.root / "catalog.parquet"
    ledger.write_catalog(catalog)
    each = Footprint(
        row=sum(column.nbytes for column in recipe.table(shape).fields),
        ledger=ledger.bytes / images,
        catalog=catalog.stat().st_size / images,
    )
    return estimate_table(options.assume_images or images, each, pace, workspace.root, options.num_shards)


def _known_network(store: Store, recipe: FeatureTableConfig) -> GraphFile | None:
    """The network of the recipe's table, so that a plan builds none where there is one."""
    return find_graph(FeatureTableRepair(store, recipe).root, Workspace(store.path).networks)


def _pace(ledger: JobDatabase, job: ExtractionJob) -> float | None:
    """How many images a second a run would extract; None where no image is here yet."""
    if not ledger.count_planned():
        return None
    return calibrate(job.recipe, job.network, job.batch_size, job.limits, ledger.planned())


def image_limits(options: PrepareFeatures) -> ImageLimits:
    """Returns what one image may measure."""
    return ImageLimits(options.max_image_pixels or MAX_PIXELS, options.max_image_bytes or MAX_IMAGE_BYTES)


def download_limits(options: PrepareFeatures) -> DownloadLimits:
    """Returns what one download may take."""
    return DownloadLimits(max_bytes=image_limits(options).bytes, allow_private=options.allow_private_addresses)


def _check(options: PrepareFeatures) -> None:
    if options.assume_images and not options.dry_run:
        raise UsageError("only with --dry-run", where="--assume-images", mend="Add --dry-run, or use --limit-images.")
    if not options.images:
        raise UsageError("no images are named", where="--images", mend="name a directory, a .zip or a .tar")
    check_shards(options.num_shards)
    parse_hints(options.resource_hint)
    open_extractor(options)


def build_table_config(options: PrepareFeatures, store: Store) -> FeatureTableConfig:
    """What a row of the table that the options ask for means; `auto` is settled by what the store holds."""
    choice = open_extractor(options).choice()
    fitting = make_resizer(
        choice.height, choice.width, options.resize_method, options.resize_mode, options.shortest_edge
    )
    recipe = FeatureTableConfig(
        extractor=choice.extractor,
        weights=choice.weights,
        layer=choice.layer,
        pooling=options.pooling,
        height=fitting.height,
        width=fitting.width,
        resize=fitting.resize,
        fit=fitting.fit,
        shorter_side=fitting.shorter_side,
        preprocess=choice.preprocess,
        precision=choice.precision or (native_precision() if options.precision == "auto" else options.precision),
        dtype=choice.dtype,
        format=options.format,
        compression=options.compression,
    )
    if choice.precision is None and options.precision == "auto":
        recipe = _as_stored(recipe, store)
    _log.info("precision %s, fingerprint %s", recipe.precision, recipe.fingerprint[:SHORT_FINGERPRINT])
    return recipe


def _as_stored(recipe: FeatureTableConfig, store: Store) -> FeatureTableConfig:
    """The recipe in the precision of the table that it fits otherwise, where the store has one."""
    options = [recipe.model_copy(update={"precision": precision}) for precision in get_args(Precision)]
    known = [option for option in options if store.has_features(option)]
    return known[0] if len(known) == 1 else recipe


def _enter(
    ledger: JobDatabase, options: PrepareFeatures, published: PreparedImages, workspace: Workspace, store: Store
) -> dict[str, int]:
    """Give every record its content key; how many images no annotation names, and how many are downloaded."""
    dataset = readable_dataset(store.dataset_root(options.dataset_name or published.dataset_type))
    splitter = published.later if dataset.manifests else published.splitter
    selection = Selection(splitter, published.states, options.seed, options.limit_images, options.limit_captions)
    entered = insert_records(ledger, published.source, options.images, selection)
    if not ledger.counts():
        where = ", ".join(options.annotations or options.images)
        raise CaptError("there are no images", where=where, mend="check --annotations, --images and the limits")
    ledger.keep_assigned(dataset)
    if ledger.identities.has_addresses():
        entered["downloads"] = _download(ledger, options, workspace)
    hash_records(ledger, workspace.work, options.rehash, options.beam_options, image_limits(options).bytes)
    return entered


def _download(ledger: JobDatabase, options: PrepareFeatures, workspace: Workspace) -> int:
    """Download what is not here, unless this is a plan; how many images."""
    if not options.retry_failed:
        skip_failed_urls(ledger, options.images, image_limits(options).bytes)
    if options.dry_run:
        return ledger.count_wanted()
    return download_records(ledger, options.images, workspace.work, download_limits(options), options.beam_options)


def _compare(ledger: JobDatabase, options: PrepareFeatures, healing: FeatureTableRepair) -> FeatureTable | None:
    """Give every record its status, by what the table has now; the table."""
    table = healing.table()
    failures = table.failures() if table and not options.retry_failed else {}
    lasting = {key: why for key, why in failures.items() if not image_limits(options).lift(*why[1:])}
    ledger.settle(_keys(table) if table else iter(()), lasting)
    return table


def _extract(
    ledger: JobDatabase, options: PrepareFeatures, workspace: Workspace, healing: FeatureTableRepair
) -> tuple[Shard, ...]:
    """Commit the rows that the table lacks, and see that it has its network."""
    while True:
        seen = CommitLog(healing.root).last()
        table = _compare(ledger, options, healing)
        if not ledger.count_planned():
            break
        check_launch(table, healing.recipe.precision, options.beam_options, options.allow_mixed_numerics)
        job = _job(options, workspace, healing.recipe, healing.noted)
        shards = job.run(ledger, options.beam_options, seen)
        if shards is not None:
            return shards
    if not is_graph_intact(healing.root, workspace.networks, recorded_corruption(workspace.root, workspace.networks)):
        _job(options, workspace, healing.recipe)
    return ()


def _keys(table: FeatureTable) -> Iterator[bytes]:
    for keys in table.key_blocks():
        yield from (key.tobytes() for key in keys)


def _job(
    options: PrepareFeatures,
    workspace: Workspace,
    recipe: FeatureTableConfig,
    doubted: Collection[str] = (),
    network: GraphFile | None = None,
) -> ExtractionJob:
    root = Store(workspace.root).feature_root(recipe)
    return ExtractionJob(
        root=root,
        work=workspace.work,
        recipe=recipe,
        network=network or find_or_freeze_graph(root, workspace.networks, recipe, open_extractor(options)),
        batch_size=DEFAULT_BATCH if options.batch_size == "auto" else options.batch_size,
        limits=image_limits(options),
        shards=options.num_shards,
        doubted=doubted,
        hints=parse_hints(options.resource_hint),
        allow_mixed=options.allow_mixed_numerics,
    )
