"""`capt prepare features`: images in, a table of features and the dataset that names them out.

source + walk → ledger → download → hash → plan → extract shards (Beam) → commit features → commit dataset → report
"""

import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from pydantic import PositiveInt

from features.downloads import DownloadLimits
from features.extraction import DEFAULT_BATCH
from features.extractors.choice import Asked
from features.extractors.opening import open_extractor
from features.fitting import ResizeOption, fitting_asked
from features.images import MAX_PIXELS
from features.limits import Limits
from features.numerics import native_precision
from features.references import MAX_IMAGE_BYTES
from features.remote.paths import place
from features.store import FeatureTable, Store, create_store, open_store
from features.store.damage import noted_damage
from features.store.healing import FeatureHealing, mend_log, readable_dataset, remove_damaged
from features.store.log import CommitLog
from features.store.pins import lease, table_name
from pipelines.calibration import calibrate
from pipelines.extraction_job import ExtractionJob, check_shards
from pipelines.frozen import FrozenFile, frozen_network, is_network_whole, known_network
from pipelines.full_disk import full_disk_told
from pipelines.hints import parse_hints
from pipelines.intake import Selection, download_records, enter_records, hash_records, recall_dead_links
from pipelines.ledger import Ledger
from pipelines.numerics import check_launch
from pipelines.outcome import check_failures, commit_dataset, figures, parse_max_failures, write_named
from pipelines.scale import Footprint, Scale, scale_of
from pipelines.sources import Source, open_source
from pipelines.split_records import log_splits
from pipelines.splits import Splitter, parse_split
from pipelines.workspace import Workspace, untouched
from schemas.compression import Compression
from schemas.errors import CaptError, UsageError
from schemas.manifests import Shard
from schemas.recipes import SHORT_FINGERPRINT, FeatureRecipe, Fit, Format, Pooling, Precision, Settings, StorageDtype

_log = logging.getLogger("capt.prepare")


class FeatureOptions(Settings):
    """The options of `capt prepare features`, named and meant as there; `format` is the shards' file format."""

    store: str
    dataset: str
    images: tuple[str, ...]
    annotations: tuple[str, ...] = ()
    name: str | None = None
    extractor: str = "inception_v3"
    weights: str | None = None
    layer: str | None = None
    pooling: Pooling = "none"
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    preprocess: str | None = None
    resize: ResizeOption = "pillow"
    fit: Fit = "stretch"
    shorter_side: PositiveInt | None = None
    precision: Literal["auto"] | Precision = "auto"
    dtype: StorageDtype | None = None
    format: Format = "tfrecord"
    compression: Compression = "none"
    batch_size: Literal["auto"] | PositiveInt = "auto"
    shards: int | None = None
    limit_images: PositiveInt | None = None
    limit_captions: PositiveInt | None = None
    seed: int = 0
    split: str = "own"
    max_failures: str | None = None
    plan: bool = False
    assume_images: PositiveInt | None = None
    retry_failed: bool = False
    rehash: bool = False
    max_image_pixels: PositiveInt | None = None
    max_image_bytes: PositiveInt | None = None
    allow_mixed: bool = False
    allow_private: bool = False
    resource_hint: tuple[str, ...] = ()
    beam_options: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """What one image may measure."""
        return Limits(self.max_image_pixels or MAX_PIXELS, self.max_image_bytes or MAX_IMAGE_BYTES)

    @property
    def download_limits(self) -> DownloadLimits:
        """What one download may take."""
        return DownloadLimits(max_bytes=self.limits.bytes, allow_private=self.allow_private)

    @property
    def asked(self) -> Asked:
        """What is asked of the extractor."""
        return Asked(**{field.name: getattr(self, field.name) for field in fields(Asked)})


def prepare_features(**arguments: Any) -> dict[str, Any]:
    """Extract the features of a dataset's images that the store lacks, and commit the dataset.

    Args:
        **arguments: the fields of `FeatureOptions`.

    Returns:
        The figures that `--json` prints.
    """
    options = FeatureOptions(**arguments)
    splitter = parse_split(options.split)
    return prepare_images(
        options, Published(open_source(options.dataset, options.annotations), splitter, splitter, splitter)
    )


@dataclass(frozen=True)
class Published:
    """A dataset as published, with what assigns splits to its images.

    Args:
        source: Source. The dataset.
        splitter: Splitter. Assigns the splits of a dataset that is new to the store.
        later: Splitter. Assigns those of images that come to one that is there; the others keep theirs.
        states: Splitter or None. Says which splits the command states; None where it states none.
    """

    source: Source
    splitter: Splitter
    later: Splitter
    states: Splitter | None


def prepare_images(options: FeatureOptions, published: Published) -> dict[str, Any]:
    """`prepare_features` of a dataset that is opened already, whatever `options` say of kind, annotations and split."""
    _check(options)
    with full_disk_told(options.store):
        return _forecast(options, published) if options.plan else _prepare(options, published)


def _prepare(options: FeatureOptions, published: Published) -> dict[str, Any]:
    started = time.monotonic()
    allowed = parse_max_failures(options.max_failures or published.source.max_failures)
    store = create_store(options.store)
    workspace = Workspace(store.path)
    recipe = recipe_of(options, store)
    dataset = store.dataset_root(options.name or options.dataset)
    leased = {table_name(store.path, root): () for root in (store.feature_root(recipe), dataset)}
    healing = FeatureHealing(store, recipe)
    with lease(store.path, "prepare", leased), workspace.ledger() as ledger:
        healing.begin()
        mend_log(dataset)
        entered = _enter(ledger, options, published, workspace, store)
        shards = _extract(ledger, options, workspace, healing)
        lost = healing.finish()
        commit_dataset(ledger, dataset, options.dataset)
        splits, replaced = ledger.split_figures(), ledger.count_replaced()
        log_splits(splits, dataset.name)
        if replaced:
            what = "images with another content than in the dataset's last commit"
            mend = "If their captions are others now, prepare the captions again."
            _log.warning("%s: %s: %d. %s", dataset.name, what, replaced, mend)
        remove_damaged(dataset, noted_damage(store.path, dataset))
        report = write_named(dataset, "features", ledger.write_report, "reports")
        result = figures(ledger.counts(), ledger.reasons()) | {
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


def _forecast(options: FeatureOptions, published: Published) -> dict[str, Any]:
    """What a run would do, from a ledger kept aside; changes nothing."""
    started = time.monotonic()
    parse_max_failures(options.max_failures or published.source.max_failures)
    root = place(options.store)
    with untouched(root) as workspace, workspace.ledger() as ledger:
        store = open_store(root) if root.exists() else create_store(workspace.root / "store")
        recipe = recipe_of(options, store)
        entered = _enter(ledger, options, published, workspace, store)
        table = _compare(ledger, options, FeatureHealing(store, recipe))
        counts = ledger.counts()
        misses = counts.pop("planned", 0) + counts.pop("wanted", 0)
        if misses:
            check_launch(table, recipe.precision, options.beam_options, options.allow_mixed)
        job = _job(options, workspace, recipe, network=_known_network(store, recipe)) if misses else None
        pace = _pace(ledger, job) if job else None
        shape = table.shape if table else job.network.shape if job else None
        scale = _scale(ledger, options, workspace, recipe, shape, pace) if shape else None
        seconds = time.monotonic() - started
        extracting = misses / pace if pace else None if misses else 0.0
        return figures(counts | {"ok": misses}, ledger.reasons()) | {
            "plan": True,
            "hits": counts.get("cached", 0),
            "misses": misses,
            **entered,
            "replaced": ledger.count_replaced(),
            "splits": ledger.split_figures(),
            "bytes": misses * job.row_bytes if job else 0,
            "images_a_second": round(pace, 1) if pace else None,
            "estimated_seconds": None if extracting is None else round(seconds + extracting, 1),
            "fingerprint": recipe.fingerprint,
            "precision": recipe.precision,
            "shape": list(shape) if shape else None,
            "scale": scale.figures() if scale else None,
        }


def _scale(
    ledger: Ledger,
    options: FeatureOptions,
    workspace: Workspace,
    recipe: FeatureRecipe,
    shape: tuple[int, ...],
    pace: float | None,
) -> Scale | None:
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
    return scale_of(options.assume_images or images, each, pace, workspace.root, options.shards)


def _known_network(store: Store, recipe: FeatureRecipe) -> FrozenFile | None:
    """The network of the recipe's table, so that a plan builds none where there is one."""
    return known_network(FeatureHealing(store, recipe).root, Workspace(store.path).networks)


def _pace(ledger: Ledger, job: ExtractionJob) -> float | None:
    """How many images a second a run would extract; None where no image is here yet."""
    if not ledger.count_planned():
        return None
    return calibrate(job.recipe, job.network, job.batch_size, job.limits, ledger.planned())


def _check(options: FeatureOptions) -> None:
    if options.assume_images and not options.plan:
        raise UsageError("it is for plans", where="--assume-images", mend="add --plan, or take --limit-images")
    if not options.images:
        raise UsageError("no images are named", where="--images", mend="name a directory, a .zip or a .tar")
    check_shards(options.shards)
    parse_hints(options.resource_hint)
    open_extractor(options.asked)


def recipe_of(options: FeatureOptions, store: Store) -> FeatureRecipe:
    """What a row of the table that the options ask for means; `auto` is settled by what the store holds."""
    choice = open_extractor(options.asked).choice()
    fitting = fitting_asked(choice.height, choice.width, options.resize, options.fit, options.shorter_side)
    recipe = FeatureRecipe(
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


def _as_stored(recipe: FeatureRecipe, store: Store) -> FeatureRecipe:
    """The recipe in the precision of the table that it fits otherwise, where the store has one."""
    options = [recipe.model_copy(update={"precision": precision}) for precision in get_args(Precision)]
    known = [option for option in options if store.has_features(option)]
    return known[0] if len(known) == 1 else recipe


def _enter(
    ledger: Ledger, options: FeatureOptions, published: Published, workspace: Workspace, store: Store
) -> dict[str, int]:
    """Give every record its content key; how many images no annotation names, and how many are downloaded."""
    dataset = readable_dataset(store.dataset_root(options.name or options.dataset))
    splitter = published.later if dataset.manifests else published.splitter
    selection = Selection(splitter, published.states, options.seed, options.limit_images, options.limit_captions)
    entered = enter_records(ledger, published.source, options.images, selection)
    if not ledger.counts():
        where = ", ".join(options.annotations or options.images)
        raise CaptError("there are no images", where=where, mend="check --annotations, --images and the limits")
    ledger.keep_assigned(dataset)
    if ledger.identities.has_addresses():
        entered["downloads"] = _download(ledger, options, workspace)
    hash_records(ledger, workspace.work, options.rehash, options.beam_options, options.limits.bytes)
    return entered


def _download(ledger: Ledger, options: FeatureOptions, workspace: Workspace) -> int:
    """Download what is not here, unless this is a plan; how many images."""
    if not options.retry_failed:
        recall_dead_links(ledger, options.images, options.limits.bytes)
    if options.plan:
        return ledger.count_wanted()
    return download_records(ledger, options.images, workspace.work, options.download_limits, options.beam_options)


def _compare(ledger: Ledger, options: FeatureOptions, healing: FeatureHealing) -> FeatureTable | None:
    """Give every record its status, by what the table has now; the table."""
    table = healing.table()
    failures = table.failures() if table and not options.retry_failed else {}
    lasting = {key: why for key, why in failures.items() if not options.limits.lift(*why[1:])}
    ledger.settle(_keys(table) if table else iter(()), lasting)
    return table


def _extract(
    ledger: Ledger, options: FeatureOptions, workspace: Workspace, healing: FeatureHealing
) -> tuple[Shard, ...]:
    """Commit the rows that the table lacks, and see that it has its network."""
    while True:
        seen = CommitLog(healing.root).last()
        table = _compare(ledger, options, healing)
        if not ledger.count_planned():
            break
        check_launch(table, healing.recipe.precision, options.beam_options, options.allow_mixed)
        job = _job(options, workspace, healing.recipe, healing.noted)
        shards = job.run(ledger, options.beam_options, seen)
        if shards is not None:
            return shards
    if not is_network_whole(healing.root, workspace.networks, noted_damage(workspace.root, workspace.networks)):
        _job(options, workspace, healing.recipe)
    return ()


def _keys(table: FeatureTable) -> Iterator[bytes]:
    for keys in table.key_blocks():
        yield from (key.tobytes() for key in keys)


def _job(
    options: FeatureOptions,
    workspace: Workspace,
    recipe: FeatureRecipe,
    doubted: Collection[str] = (),
    network: FrozenFile | None = None,
) -> ExtractionJob:
    root = Store(workspace.root).feature_root(recipe)
    return ExtractionJob(
        root=root,
        work=workspace.work,
        recipe=recipe,
        network=network or frozen_network(root, workspace.networks, recipe, open_extractor(options.asked)),
        batch_size=DEFAULT_BATCH if options.batch_size == "auto" else options.batch_size,
        limits=options.limits,
        shards=options.shards,
        doubted=doubted,
        hints=parse_hints(options.resource_hint),
        allow_mixed=options.allow_mixed,
    )
