"""Prints the results of `capt store ls` and `capt store stats` as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.filesize import decimal

from schemas.table_config import SHORT_FINGERPRINT, FeatureTableConfig
from schemas.tables import KEY_BYTES, SPLITS
from schemas.terminal.console import Printer

Entry = Mapping[str, Any]


def print_list(result: Entry) -> None:
    """Prints the result of `features.store.stats.list_store`."""
    printer = Printer()
    printer.table("datasets", ("name", "source"), SPLITS, map(_dataset, result["datasets"]))
    printer.table(
        "feature tables",
        ("fingerprint", "extractor", "stored as"),
        ("rows", "shards", "size"),
        map(_feature_table, result["feature_tables"]),
    )
    printer.table(
        "caption tables",
        ("fingerprint", "dataset", "standardizer"),
        ("vocabulary size", "captions", "shards", "size"),
        (
            (*_caption_table(one), _standardizer(one), one["vocab_size"], _captions(one), one["shards"], _size(one))
            for one in result["caption_tables"]
        ),
    )
    _print_if_empty(printer, result)


def print_stats(result: Entry) -> None:
    """Prints the result of `features.store.stats.store_stats`."""
    printer = Printer()
    printer.table(
        "datasets",
        ("name", "source"),
        (*SPLITS, "unique images", "size"),
        ((*_dataset(one), one["unique_images"], _size(one)) for one in result["datasets"]),
    )
    printer.table(
        "features of datasets",
        ("dataset", "feature table"),
        ("images", "with features", "without"),
        _coverage(result["datasets"]),
    )
    printer.table(
        "feature tables",
        ("fingerprint", "resizing"),
        ("images", "commits", "bytes per image", "size"),
        map(_feature_stats, result["feature_tables"]),
    )
    printer.table(
        "provenance", ("fingerprint", "numerics class", "toolchain"), (), map(_provenance, result["feature_tables"])
    )
    printer.table(
        "caption tables",
        ("fingerprint", "dataset"),
        ("captions", "mean length", "max length", "truncated"),
        (
            (*_caption_table(one), _captions(one), f"{one['mean_length']:.1f}", one["max_length"], one["truncated"])
            for one in result["caption_tables"]
        ),
    )
    printer.table(
        "captions by split",
        ("fingerprint", "split"),
        ("captions", "tokens", "min length", "median", "mean", "95%", "max", "OOV rate"),
        _splits(result["caption_tables"]),
    )
    counts = ("input", "ok", "cached", "duplicate", "failed")
    runs = ((one["dataset"], one["run"], *(one[name] for name in counts)) for one in result["reports"])
    printer.table("last runs", ("dataset", "run"), counts, runs)
    printer.table("failures", ("in", "stage", "reason", "examples"), ("records",), _failures(result))
    if leakage := result["leakage"]["count"]:
        printer.line(f"Images that are in train and in test: {leakage:,}. Examples:", "red")
        for example in result["leakage"]["examples"]:
            printer.line(f"  train {', '.join(example['train'])} = test {', '.join(example['test'])}", "red")
    _print_if_empty(printer, result)


def _print_if_empty(printer: Printer, result: Entry) -> None:
    if not (result["datasets"] or result["feature_tables"] or result["caption_tables"]):
        printer.line("The store is empty.")


# === Rows ===


def _short(entry: Entry) -> str:
    return str(entry["fingerprint"])[:SHORT_FINGERPRINT]


def _size(entry: Entry) -> str:
    return decimal(entry["bytes"])


def _captions(entry: Entry) -> int:
    return sum(entry["captions"].values())


def _dataset(entry: Entry) -> Sequence[object]:
    return entry["name"], entry["source"], *(entry["images"].get(split, 0) for split in SPLITS)


def _caption_table(entry: Entry) -> Sequence[object]:
    return _short(entry), entry["dataset"]


def _standardizer(entry: Entry) -> str:
    return f"{entry['standardizer']} {entry['filters'] or ''}".rstrip()


def _coverage(datasets: Sequence[Entry]) -> Iterator[Sequence[object]]:
    for entry in datasets:
        images = sum(entry["images"].values())
        for fingerprint, covered in entry["coverage"].items():
            yield entry["name"], fingerprint[:SHORT_FINGERPRINT], images, covered, images - covered


def _feature_table(entry: Entry) -> Sequence[object]:
    shape = "×".join(map(str, entry["shape"]))
    extractor = f"{entry['extractor']} {entry['weights'][:20]} {entry['layer']} {entry['precision']}"
    extractor = " ".join([extractor, *_resizing(entry)])
    stored = f"{shape} {entry['dtype']} {entry['format']}"
    return _short(entry), extractor, stored, entry["rows"], entry["shards"], _size(entry)


def _resizing(entry: Entry) -> Iterator[str]:
    """Iterates over the resize settings that are not the defaults."""
    for name in ("resize", "fit", "shorter_side"):
        if entry[name] != FeatureTableConfig.model_fields[name].default:
            yield f"{name.replace('_', ' ')} {entry[name]}"


def _feature_stats(entry: Entry) -> Sequence[object]:
    per_image = None if entry["bytes_per_image"] is None else round(entry["bytes_per_image"])
    resizing = ", ".join(_resizing(entry)) or "default"
    return _short(entry), resizing, entry["images"], entry["commits"], per_image, _size(entry)


def _provenance(entry: Entry) -> Sequence[object]:
    numerics = [f"{name} ({rows:,} rows)" for name, rows in entry["numerics"].items()]
    toolchains = [", ".join(f"{name} {version}" for name, version in one.items()) for one in entry["toolchains"]]
    return _short(entry), "\n".join(numerics), "\n".join(toolchains)


def _splits(tables: Sequence[Entry]) -> Iterator[Sequence[object]]:
    for entry in tables:
        for split, captions in entry["captions"].items():
            oov_rate = f"{entry['oov_rate'][split]:.2%}"
            yield _short(entry), split, captions, entry["tokens"][split], *_lengths(entry, split), oov_rate


def _lengths(entry: Entry, split: str) -> Sequence[object]:
    """Returns minimum, median, mean, 95th percentile, maximum; None for values that were not recorded."""
    if entry["lengths"] is None:
        captions = entry["captions"][split]
        return None, None, f"{entry['tokens'][split] / captions:.1f}" if captions else None, None, None
    lengths = entry["lengths"][split]
    return lengths["min"], lengths["median"], f"{lengths['mean']:.1f}", lengths["p95"], lengths["max"]


def _failures(result: Entry) -> Iterator[Sequence[object]]:
    sources = [(f"{entry['dataset']}, last {entry['run']} run", entry["failures"]) for entry in result["reports"]]
    sources += [(f"{_short(entry)}, recorded", entry["failures"]) for entry in result["feature_tables"]]
    for source, failures in sources:
        for kind in failures:
            yield source, kind["stage"], kind["reason"], "\n".join(map(_example, kind["examples"])), kind["count"]


def _example(example: Entry) -> str:
    record = example["record"]
    record = record[:SHORT_FINGERPRINT] if len(record) == 2 * KEY_BYTES else record
    return f"{record}: {example['detail']}"
