"""Lists the contents of a store and computes statistics of its datasets and tables, as JSON values."""

import math
import operator
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.store.caption_table import CaptionTable
from features.store.dataset import Dataset
from features.store.feature_table import FeatureTable
from features.store.layout import DATASETS
from features.store.run_reports import MAX_EXAMPLES, FailureCounts, latest_reports, summarize_report
from features.store.store import open_store
from schemas.manifests import FeatureMetadata
from schemas.options.store import StoreLs, StoreStats
from schemas.records import join_keys
from schemas.table_config import END, START
from schemas.tables import CATALOG, SPLITS

Value = TypeVar("Value")
_FRAME_TOKENS = len((START, END))
_LEAKAGE_SPLITS = ("train", "test")


def list_store(options: StoreLs) -> dict[str, Any]:
    """Lists the contents of a store from its manifests, without reading rows.

    Returns:
        `store`, and one entry per table in `datasets` (`name`, `source`, `images` by split), `feature_tables`
        (`fingerprint`, the fields of the table config that users set, `shape`, `rows`, `shards`, `bytes`) and
        `caption_tables` (`fingerprint`, `dataset`, `standardizer`, `filters` (null for the default), `vocab_size`,
        `captions` by split, `shards`, `bytes`).

    Raises:
        StoreError: The store does not exist, or has a newer format version.
        CorruptFileError: A manifest is corrupt.
    """
    store = open_store(options.store)
    return {
        "store": str(store.path),
        "datasets": [_describe_dataset(dataset) for dataset in store.datasets()],
        "feature_tables": [_describe_feature_table(table) for table in store.feature_tables()],
        "caption_tables": [_describe_caption_table(table) for table in store.caption_tables()],
    }


def store_stats(options: StoreStats) -> dict[str, Any]:
    """Computes statistics of a store.

    Returns:
        The entries of `list_store`, with further keys. Datasets: `bytes` (of the encoded images), `unique_images`
        (number of distinct contents) and `coverage` (number of images with a row, by feature table). Feature tables:
        `images` (distinct), `bytes_per_image` (null without images), `commits`, `numerics` (rows by numerics class),
        `toolchains` and `failures` (recorded failures by reason). Caption tables: `tokens` by split; `mean_length` and
        `max_length` in tokens, including start and end; `lengths` by split (`min`, `mean`, `median`, `p95`, `max`; null
        if an earlier version wrote the table); `oov_rate` (fraction of the words, by split); `truncated`.
        Also `reports`, the summaries of each dataset's last runs, and `leakage`, images that are in train and in test:
        `count` and a few `examples`.

    Raises:
        StoreError: The store does not exist, or has a newer format version.
        CorruptFileError: A manifest, catalog, index or run report is corrupt.
    """
    store = open_store(options.store)
    tables = store.feature_tables()
    catalogs = {dataset.name: dataset.catalog() for dataset in store.datasets()}
    return {
        "store": str(store.path),
        "datasets": [_compute_dataset_stats(one, catalogs[one.name], tables) for one in store.datasets()],
        "feature_tables": [_compute_feature_stats(table) for table in tables],
        "caption_tables": [_compute_caption_stats(table) for table in store.caption_tables()],
        "reports": _summarize_reports(store.path),
        "leakage": _find_leakage(catalogs),
    }


# === Datasets ===


def _describe_dataset(dataset: Dataset) -> dict[str, Any]:
    facts = dataset.facts
    return {"name": dataset.name, "source": facts.source, "images": _order_splits(facts.images)}


def _compute_dataset_stats(dataset: Dataset, catalog: pa.Table, tables: list[FeatureTable]) -> dict[str, Any]:
    keys = join_keys(catalog["key"].to_pylist())
    return {
        **_describe_dataset(dataset),
        "bytes": pc.sum(catalog["bytes"]).as_py() or 0,
        "unique_images": pc.count_distinct(catalog["key"]).as_py(),
        "coverage": {table.fingerprint: int((table.lookup(keys) >= 0).sum()) for table in tables},
    }


def _find_leakage(catalogs: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Finds images, by content, that are in a train split and in a test split, of one dataset or of two.

    Returns:
        `count`, and some `examples`: `key`, and the images in `train` and `test` as `dataset/image_id`.
    """
    rows = pa.concat_tables([CATALOG.arrow_schema().empty_table(), *catalogs.values()])
    train, test = (rows["key"].filter(pc.equal(rows["split"], split)).combine_chunks() for split in _LEAKAGE_SPLITS)
    keys = train.filter(pc.is_in(train, value_set=test)).unique()
    images = {key: {split: list[str]() for split in _LEAKAGE_SPLITS} for key in keys.to_pylist()}
    for name, catalog in catalogs.items():
        for row in catalog.filter(pc.is_in(catalog["key"], value_set=keys)).to_pylist():
            if row["split"] in _LEAKAGE_SPLITS:
                images[row["key"]][row["split"]].append(f"{name}/{row['image_id']}")
    examples = [{"key": key.hex(), **by_split} for key, by_split in sorted(images.items())[:MAX_EXAMPLES]]
    return {"count": len(images), "examples": examples}


# === Feature tables ===


def _describe_feature_table(table: FeatureTable) -> dict[str, Any]:
    names = "extractor weights layer pooling resize fit shorter_side precision dtype format"
    return {
        "fingerprint": table.fingerprint,
        **{name: getattr(table.table_config, name) for name in names.split()},
        "shape": list(table.shape),
        "rows": sum(shard.rows for shard in table.shards),
        "shards": len(table.shards),
        "bytes": table.bytes,
    }


def _compute_feature_stats(table: FeatureTable) -> dict[str, Any]:
    images, counted, toolchains = table.rows, dict[str, tuple[str, int]](), list[dict[str, str]]()
    for manifest in table.manifests:
        facts = manifest.facts
        assert isinstance(facts, FeatureMetadata)
        # After a repair, two commits may contain the same shard.
        counted |= {shard.data.path: (facts.numerics, shard.rows) for shard in manifest.shards}
        if facts.toolchain not in toolchains:
            toolchains.append(facts.toolchain)
    numerics = Counter[str]()
    for name, rows in counted.values():
        numerics[name] += rows
    counts, failures = FailureCounts(), table.failures()
    for (key, failure), position in zip(failures.items(), table.lookup(join_keys(list(failures))), strict=True):
        if position < 0:  # otherwise a later run computed the row
            counts.add(key.hex(), *failure)
    return {
        **_describe_feature_table(table),
        "images": images,
        "bytes_per_image": round(table.bytes / images, 1) if images else None,
        "commits": len(table.manifests),
        "numerics": dict(sorted(numerics.items())),
        "toolchains": toolchains,
        "failures": counts.to_list(),
    }


# === Caption tables ===


def _describe_caption_table(table: CaptionTable) -> dict[str, Any]:
    return {
        "fingerprint": table.fingerprint,
        "dataset": table.table_config.dataset,
        "standardizer": table.table_config.standardizer,
        "filters": table.table_config.filters,
        "vocab_size": table.facts.words,
        "captions": _order_splits(table.facts.captions),
        "shards": len(table.shards),
        "bytes": table.bytes,
    }


def _compute_caption_stats(table: CaptionTable) -> dict[str, Any]:
    facts = table.facts
    captions = sum(facts.captions.values())
    words = {split: tokens - _FRAME_TOKENS * facts.captions.get(split, 0) for split, tokens in facts.tokens.items()}
    lengths = {split: _summarize(counts) for split, counts in (facts.lengths or {}).items()}
    rates = {split: round(facts.unknown.get(split, 0) / count, 6) if count else 0.0 for split, count in words.items()}
    return {
        **_describe_caption_table(table),
        "tokens": _order_splits(facts.tokens),
        "mean_length": round(sum(facts.tokens.values()) / captions, 2) if captions else 0.0,
        "max_length": facts.longest,
        "lengths": None if facts.lengths is None else _order_splits(lengths),
        "oov_rate": _order_splits(rates),
        "truncated": facts.truncated,
    }


def _summarize(counts: Mapping[int, int]) -> dict[str, float]:
    """Summarizes lengths, given the number of captions per length."""
    lengths, captions = zip(*sorted(counts.items()), strict=True)
    total = sum(captions)

    def quantile(fraction: float) -> int:
        """Returns the smallest length that at least this fraction of the captions does not exceed."""
        return int(lengths[int(np.searchsorted(np.cumsum(captions), math.ceil(fraction * total)))])

    mean = round(sum(map(operator.mul, lengths, captions)) / total, 2)
    return {"min": lengths[0], "mean": mean, "median": quantile(0.5), "p95": quantile(0.95), "max": lengths[-1]}


# === Runs ===


def _summarize_reports(store: Path) -> list[dict[str, Any]]:
    """Summarizes the last runs. A dataset without images may have reports, too."""
    roots = sorted(path.parent for path in (store / DATASETS).glob("*/reports"))
    return [
        {"dataset": root.name, "run": path.stem, "report": path.relative_to(store).as_posix(), **summarize_report(path)}
        for root in roots
        for path in latest_reports(root)
    ]


def _order_splits(values: Mapping[str, Value]) -> dict[str, Value]:
    return {split: values[split] for split in SPLITS if split in values}
