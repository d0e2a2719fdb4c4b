"""`capt prepare features`: images in, a table of features and the dataset that names them out.

source + walk → ledger → hash → plan → extract shards (Beam) → commit features → commit dataset → report
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from features.extraction import DEFAULT_BATCH
from features.extractors import extractor_spec
from features.networks import native_precision
from features.store import FeatureTable, Store, create_store, open_store
from features.store.pins import lease, table_name
from features.weights import weights_identity
from pipelines.extraction_job import ExtractionJob, check_shards
from pipelines.frozen import frozen_network
from pipelines.intake import Selection, enter_records, hash_records
from pipelines.ledger import Ledger
from pipelines.outcome import check_failures, commit_dataset, figures, parse_max_failures, write_named
from pipelines.sources import Source, open_source
from pipelines.splits import parse_split
from pipelines.workspace import Workspace, untouched
from schemas.errors import UsageError
from schemas.recipes import SHORT_FINGERPRINT, FeatureRecipe, Format, Frozen, Pooling, Precision, StorageDtype

_log = logging.getLogger("capt.prepare")


class FeatureOptions(Frozen):
    """The options of `capt prepare features`, named and meant as there; `format` is the shards' file format."""

    store: str
    dataset: str
    images: tuple[str, ...]
    annotations: tuple[str, ...] = ()
    name: str | None = None
    extractor: str = "inception_v3"
    weights: str = "imagenet"
    layer: str | None = None
    pooling: Pooling = "none"
    precision: Literal["auto"] | Precision = "auto"
    dtype: StorageDtype = "float16"
    format: Format = "tfrecord"
    batch_size: Literal["auto"] | PositiveInt = "auto"
    shards: int | None = None
    limit_images: PositiveInt | None = None
    limit_captions: PositiveInt | None = None
    seed: int = 0
    split: str = "own"
    max_failures: str = "5%"
    plan: bool = False
    retry_failed: bool = False
    rehash: bool = False
    beam_options: tuple[str, ...] = ()


def prepare_features(**arguments: Any) -> dict[str, Any]:
    """Extract the features of a dataset's images that the store lacks, and commit the dataset.

    Args:
        **arguments: the fields of `FeatureOptions`.

    Returns:
        The figures that `--json` prints.
    """
    started = time.monotonic()
    options = FeatureOptions(**arguments)
    allowed = parse_max_failures(options.max_failures)
    source = _checked_source(options)
    if options.plan:
        return _forecast(options, source)
    store = create_store(options.store)
    workspace = Workspace(store.path)
    recipe = _recipe(options, store)
    dataset = store.dataset_root(options.name or options.dataset)
    leased = {table_name(store.path, store.feature_root(recipe)): ()}
    with lease(store.path, "prepare", leased), workspace.ledger() as ledger:
        unannotated = _settle(ledger, options, source, workspace, store, recipe)
        shards = _job(options, workspace, recipe).run(ledger, options.beam_options) if ledger.count_planned() else ()
        commit_dataset(ledger, dataset, options.dataset)
        report = write_named(dataset, "features", ledger.write_report, "reports")
        result = figures(ledger.counts(), ledger.reasons()) | {
            "unannotated": unannotated,
            "shards": len(shards),
            "bytes": sum(shard.data.bytes for shard in shards),
            "seconds": round(time.monotonic() - started, 3),
            "fingerprint": recipe.fingerprint,
            "dataset": dataset.name,
            "precision": recipe.precision,
            "report": str(dataset / report.path),
        }
    check_failures(result, allowed)
    return result


def _forecast(options: FeatureOptions, source: Source) -> dict[str, Any]:
    """What a run would do, from a ledger kept aside; changes nothing."""
    root = Path(options.store).absolute()
    with untouched(root) as workspace, workspace.ledger() as ledger:
        store = open_store(root) if root.exists() else create_store(workspace.root / "store")
        recipe = _recipe(options, store)
        unannotated = _settle(ledger, options, source, workspace, store, recipe)
        counts = ledger.counts()
        misses = counts.pop("planned", 0)
        row_bytes = _job(options, workspace, recipe).row_bytes if misses else 0
        return figures(counts | {"ok": misses}, ledger.reasons()) | {
            "plan": True,
            "hits": counts.get("cached", 0),
            "misses": misses,
            "unannotated": unannotated,
            "bytes": misses * row_bytes,
            "fingerprint": recipe.fingerprint,
            "precision": recipe.precision,
        }


def _checked_source(options: FeatureOptions) -> Source:
    if not options.images:
        raise UsageError("no images are named", where="--images", mend="name a directory or a .zip")
    check_shards(options.shards)
    extractor_spec(options.extractor)
    return open_source(options.dataset, options.annotations)


def _recipe(options: FeatureOptions, store: Store) -> FeatureRecipe:
    spec = extractor_spec(options.extractor)
    recipe = FeatureRecipe(
        extractor=spec.name,
        weights=weights_identity(options.weights, spec),
        layer=options.layer or spec.layer,
        pooling=options.pooling,
        height=spec.side,
        width=spec.side,
        precision=native_precision() if options.precision == "auto" else options.precision,
        dtype=options.dtype,
        format=options.format,
    )
    if options.precision == "auto":
        recipe = _as_stored(recipe, store)
    _log.info("precision %s, fingerprint %s", recipe.precision, recipe.fingerprint[:SHORT_FINGERPRINT])
    return recipe


def _as_stored(recipe: FeatureRecipe, store: Store) -> FeatureRecipe:
    """The recipe in the precision of the table that it fits otherwise, where the store has one."""
    known = {table.recipe.precision for table in store.feature_tables() if _fits(table.recipe, recipe)}
    if len(known) == 1:
        return recipe.model_copy(update={"precision": known.pop()})
    return recipe


def _fits(one: FeatureRecipe, other: FeatureRecipe) -> bool:
    return one.model_dump(exclude={"precision"}) == other.model_dump(exclude={"precision"})


def _settle(
    ledger: Ledger,
    options: FeatureOptions,
    source: Source,
    workspace: Workspace,
    store: Store,
    recipe: FeatureRecipe,
) -> int:
    """Give every record its status; how many images no annotation names."""
    selection = Selection(parse_split(options.split), options.seed, options.limit_images, options.limit_captions)
    unannotated = enter_records(ledger, source, options.images, selection)
    known = {dataset.name: dataset for dataset in store.datasets()}.get(options.name or options.dataset)
    if known:
        ledger.keep_assigned(known.catalog())
    hash_records(ledger, workspace.work, options.rehash, options.beam_options)
    table = {table.fingerprint: table for table in store.feature_tables()}.get(recipe.fingerprint)
    failures = table.failures() if table and not options.retry_failed else {}
    ledger.settle(_keys(table) if table else iter(()), failures)
    return unannotated


def _keys(table: FeatureTable) -> Iterator[bytes]:
    for keys in table.key_blocks():
        yield from (key.tobytes() for key in keys)


def _job(options: FeatureOptions, workspace: Workspace, recipe: FeatureRecipe) -> ExtractionJob:
    root = Store(workspace.root).feature_root(recipe)
    return ExtractionJob(
        root=root,
        work=workspace.work,
        recipe=recipe,
        network=frozen_network(root, workspace.networks, recipe, options.weights),
        batch_size=DEFAULT_BATCH if options.batch_size == "auto" else options.batch_size,
        shards=options.shards,
    )
