"""The inventory of a store: which datasets and tables it holds, and what can be said of them in figures.

Everything is returned as plain JSON values. Tables are called by the short fingerprints that other commands take.
"""

import math
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store.caption_table import CaptionTable
from features.store.dataset import Dataset
from features.store.feature_table import FeatureTable
from features.store.leakage import LeakedImage, find_leakage
from features.store.run_reports import EXAMPLES, Failures, last_reports, report_figures
from features.store.store import Store, open_store
from schemas.manifests import CaptionMetadata, FeatureMetadata
from schemas.options.store import StoreLs, StoreStats
from schemas.table_config import END, SHORT_FINGERPRINT, START
from schemas.tables import KEY_BYTES, SPLITS

Value = TypeVar("Value")
_FRAME = len((START, END))


def list_store(options: StoreLs) -> dict[str, Any]:
    """What a store holds, as its manifests say; no row is read.

    Args:
        options: The store.

    Returns:
        `store`, and one entry each in `datasets` (name, source, images by split), `features` (fingerprint, extractor,
        weights, layer, pooling, resize, fit, shorter_side, shape, precision, dtype, format, rows, shards, bytes) and
        `text` (fingerprint, dataset, standardizer, words, captions by split, shards, bytes).

    Raises:
        StoreError: there is no store, or one that this version cannot read.
        CorruptFileError: a manifest is damaged.
    """
    opened = open_store(options.store)
    return {
        "store": str(opened.path),
        "datasets": [_dataset_entry(dataset) for dataset in opened.datasets()],
        "features": [_features_entry(table) for table in opened.feature_tables()],
        "text": [_text_entry(table) for table in opened.caption_tables()],
    }


def store_stats(options: StoreStats) -> dict[str, Any]:
    """The figures of a store.

    Args:
        options: The store.

    Returns:
        The entries of `list_store` with, for a dataset, `bytes` (of its encoded images), `distinct` (contents) and
        `coverage` (how many of its images have a row, by feature table); for a feature table, `images` (distinct),
        `bytes_an_image` (null for none), `commits`, `numerics` (rows by numerics class), `toolchains` and `failures`
        (remembered, by reason); for a text table, `tokens` by split, `mean_length` and `longest` in tokens, start and
        end included, `lengths` by split (`min`, `mean`, `median`, `p95`, `max`; null where an earlier version wrote the
        table), `unknown_rate` (share of the words, by split) and `truncated`. Further `reports`, what became of the
        records of each dataset's last runs, and `leaks`, contents that are in train and in test: their `count`
        and a few `examples`.

    Raises:
        StoreError: there is no store, or one that this version cannot read.
        CorruptFileError: a manifest, catalog, index or run report is damaged.
    """
    opened = open_store(options.store)
    tables = opened.feature_tables()
    catalogs = {dataset.name: dataset.catalog() for dataset in opened.datasets()}
    leaks = find_leakage(catalogs)
    return {
        "store": str(opened.path),
        "datasets": [_dataset_stats(dataset, catalogs[dataset.name], tables) for dataset in opened.datasets()],
        "features": [_features_stats(table) for table in tables],
        "text": [_text_stats(table) for table in opened.caption_tables()],
        "reports": _reports(opened),
        "leaks": {"count": len(leaks), "examples": [_leak_entry(leak) for leak in leaks[:EXAMPLES]]},
    }


# === Datasets ===


def _dataset_entry(dataset: Dataset) -> dict[str, Any]:
    facts = dataset.facts
    return {"name": dataset.name, "source": facts.source, "images": _by_split(facts.images)}


def _dataset_stats(dataset: Dataset, catalog: pa.Table, tables: list[FeatureTable]) -> dict[str, Any]:
    keys = _key_array(catalog["key"].to_pylist())
    return {
        **_dataset_entry(dataset),
        "bytes": pc.sum(catalog["bytes"]).as_py() or 0,
        "distinct": pc.count_distinct(catalog["key"]).as_py(),
        "coverage": {_short(table): int((table.lookup(keys) >= 0).sum()) for table in tables},
    }


def _key_array(keys: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)


# === Feature tables ===


def _features_entry(table: FeatureTable) -> dict[str, Any]:
    table_config = table.table_config
    return {
        "fingerprint": _short(table),
        "extractor": table_config.extractor,
        "weights": table_config.weights,
        "layer": table_config.layer,
        "pooling": table_config.pooling,
        "resize": table_config.resize,
        "fit": table_config.fit,
        "shorter_side": table_config.shorter_side,
        "shape": list(table.shape),
        "precision": table_config.precision,
        "dtype": table_config.dtype,
        "format": table_config.format,
        "rows": sum(shard.rows for shard in table.shards),
        "shards": len(table.shards),
        "bytes": table.bytes,
    }


def _features_stats(table: FeatureTable) -> dict[str, Any]:
    images = table.rows
    return {
        **_features_entry(table),
        "images": images,
        "bytes_an_image": round(table.bytes / images, 1) if images else None,
        "commits": len(table.manifests),
        **_makers(table),
        "failures": _remembered(table),
    }


def _makers(table: FeatureTable) -> dict[str, Any]:
    """What the rows were made with: rows by numerics class, and the toolchains, oldest first."""
    numerics: Counter[str] = Counter()
    toolchains: list[dict[str, str]] = []
    for manifest in table.manifests:
        facts = manifest.facts
        assert isinstance(facts, FeatureMetadata)
        numerics[facts.numerics] += sum(shard.rows for shard in manifest.shards)
        if facts.toolchain not in toolchains:
            toolchains.append(facts.toolchain)
    return {"numerics": dict(sorted(numerics.items())), "toolchains": toolchains}


def _remembered(table: FeatureTable) -> list[dict[str, Any]]:
    """The failures that still keep an image out of the table."""
    failures, remembered = Failures(), table.failures()
    found = table.lookup(_key_array(list(remembered))) >= 0
    for (key, why), mended in zip(remembered.items(), found, strict=True):
        if not mended:
            failures.add(key.hex(), *why)
    return failures.figures()


# === Text tables ===


def _text_entry(table: CaptionTable) -> dict[str, Any]:
    return {
        "fingerprint": _short(table),
        "dataset": table.table_config.dataset,
        "standardizer": table.table_config.standardizer,
        "words": table.facts.words,
        "captions": _by_split(table.facts.captions),
        "shards": len(table.shards),
        "bytes": table.bytes,
    }


def _text_stats(table: CaptionTable) -> dict[str, Any]:
    facts = table.facts
    captions = sum(facts.captions.values())
    words = {split: tokens - _FRAME * facts.captions.get(split, 0) for split, tokens in facts.tokens.items()}
    rates = {split: round(facts.unknown.get(split, 0) / count, 6) if count else 0.0 for split, count in words.items()}
    return {
        **_text_entry(table),
        "tokens": _by_split(facts.tokens),
        "mean_length": round(sum(facts.tokens.values()) / captions, 2) if captions else 0.0,
        "longest": facts.longest,
        "lengths": _lengths(facts),
        "unknown_rate": _by_split(rates),
        "truncated": facts.truncated,
    }


def _lengths(facts: CaptionMetadata) -> dict[str, dict[str, float]] | None:
    if facts.lengths is None:
        return None
    return _by_split({split: _length_figures(counts) for split, counts in facts.lengths.items()})


def _length_figures(counts: Mapping[int, int]) -> dict[str, float]:
    """Figures of lengths, from how many captions have each."""
    lengths, captions = zip(*sorted(counts.items()), strict=True)
    total = sum(captions)

    def quantile(share: float) -> int:
        """The smallest length that at least this share of the captions does not exceed."""
        return int(lengths[int(np.searchsorted(np.cumsum(captions), math.ceil(share * total)))])

    mean = round(sum(map(operator.mul, lengths, captions)) / total, 2)
    return {"min": lengths[0], "mean": mean, "median": quantile(0.5), "p95": quantile(0.95), "max": lengths[-1]}


# === Runs and leaks ===


def _reports(store: Store) -> list[dict[str, Any]]:
    """The last runs' figures; a dataset whose images are not prepared yet may have some too."""
    roots = sorted(path.parent for path in (store.path / "datasets").glob("*/reports"))
    return [_report_entry(root, path, store.path) for root in roots for path in last_reports(root)]


def _report_entry(root: Path, path: Path, store: Path) -> dict[str, Any]:
    location = path.relative_to(store).as_posix()
    return {"dataset": root.name, "run": path.stem, "report": location, **report_figures(path)}


def _leak_entry(leak: LeakedImage) -> dict[str, Any]:
    return {"key": leak.key.hex(), "train": list(leak.train), "test": list(leak.test)}


def _short(table: FeatureTable | CaptionTable) -> str:
    return table.fingerprint[:SHORT_FINGERPRINT]


def _by_split(values: Mapping[str, Value]) -> dict[str, Value]:
    return {split: values[split] for split in SPLITS if split in values}
