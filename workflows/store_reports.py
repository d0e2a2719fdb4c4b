"""The inventory of a store as tables for people: what `capt store ls` and `capt store stats` print."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.filesize import decimal

from schemas.table_config import SHORT_FINGERPRINT, FeatureTableConfig
from schemas.tables import KEY_BYTES, SPLITS
from schemas.terminal.console import Printer

Entry = Mapping[str, Any]


def print_list(result: Entry) -> None:
    """Print what `features.store.stats.list_store` returned."""
    printer = Printer()
    printer.table("datasets", ("name", "source"), SPLITS, map(_dataset, result["datasets"]))
    printer.table(
        "feature tables",
        ("fingerprint", "extractor", "stored as"),
        ("rows", "shards", "size"),
        map(_features, result["features"]),
    )
    printer.table(
        "text tables",
        ("fingerprint", "dataset", "standardizer"),
        ("words", "captions", "shards", "size"),
        map(_text, result["text"]),
    )
    _say_if_empty(printer, result)


def print_stats(result: Entry) -> None:
    """Print what `features.store.stats.store_stats` returned."""
    printer = Printer()
    printer.table(
        "datasets",
        ("name", "source"),
        (*SPLITS, "distinct", "size"),
        map(_dataset_stats, result["datasets"]),
    )
    printer.table(
        "features of datasets",
        ("dataset", "features"),
        ("images", "with features", "without"),
        _coverage(result["datasets"]),
    )
    printer.table(
        "feature tables",
        ("fingerprint", "resized"),
        ("images", "commits", "bytes an image", "size"),
        map(_features_stats, result["features"]),
    )
    printer.table("made with", ("fingerprint", "numerics", "toolchain"), (), map(_makers, result["features"]))
    printer.table(
        "text tables",
        ("fingerprint", "dataset"),
        ("captions", "mean length", "longest", "truncated"),
        map(_text_stats, result["text"]),
    )
    printer.table(
        "captions by split",
        ("fingerprint", "split"),
        ("captions", "tokens", "shortest", "median", "mean", "95 %", "longest", "unknown words"),
        _by_split(result["text"]),
    )
    printer.table(
        "last runs",
        ("dataset", "prepared"),
        ("input", "ok", "cached", "duplicate", "failed"),
        map(_run, result["reports"]),
    )
    printer.table("failures", ("of", "stage", "reason", "such as"), ("records",), _failures(result))
    _print_leaks(printer, result)
    _say_if_empty(printer, result)


# === Rows ===


def _dataset(entry: Entry) -> Sequence[object]:
    return entry["name"], entry["source"], *(entry["images"].get(split, 0) for split in SPLITS)


def _dataset_stats(entry: Entry) -> Sequence[object]:
    return *_dataset(entry), entry["distinct"], decimal(entry["bytes"])


def _coverage(datasets: Sequence[Entry]) -> Iterator[Sequence[object]]:
    for entry in datasets:
        images = sum(entry["images"].values())
        for fingerprint, covered in entry["coverage"].items():
            yield entry["name"], fingerprint, images, covered, images - covered


def _features(entry: Entry) -> Sequence[object]:
    shape = "×".join(map(str, entry["shape"]))
    extractor = f"{entry['extractor']} {entry['weights'][:20]} {entry['layer']} {entry['precision']}"
    extractor = " ".join([extractor, *_fitting(entry)])
    stored = f"{shape} {entry['dtype']} {entry['format']}"
    return entry["fingerprint"], extractor, stored, entry["rows"], entry["shards"], decimal(entry["bytes"])


def _fitting(entry: Entry) -> Iterator[str]:
    """How images were resized and fitted, as far as it is not as by default."""
    defaults = {name: FeatureTableConfig.model_fields[name].default for name in ("resize", "fit", "shorter_side")}
    for name, default in defaults.items():
        if entry[name] != default:
            yield f"{name.replace('_', ' ')} {entry[name]}"


def _features_stats(entry: Entry) -> Sequence[object]:
    each = None if entry["bytes_an_image"] is None else round(entry["bytes_an_image"])
    resized = ", ".join(_fitting(entry)) or "as by default"
    return entry["fingerprint"], resized, entry["images"], entry["commits"], each, decimal(entry["bytes"])


def _makers(entry: Entry) -> Sequence[object]:
    numerics = [f"{name} ({rows:,} rows)" for name, rows in entry["numerics"].items()]
    toolchains = [", ".join(f"{name} {version}" for name, version in made.items()) for made in entry["toolchains"]]
    return entry["fingerprint"], "\n".join(numerics), "\n".join(toolchains)


def _text(entry: Entry) -> Sequence[object]:
    words = (entry["fingerprint"], entry["dataset"], entry["standardizer"])
    return *words, entry["words"], sum(entry["captions"].values()), entry["shards"], decimal(entry["bytes"])


def _text_stats(entry: Entry) -> Sequence[object]:
    lengths = (f"{entry['mean_length']:.1f}", entry["longest"], entry["truncated"])
    return entry["fingerprint"], entry["dataset"], sum(entry["captions"].values()), *lengths


def _by_split(tables: Sequence[Entry]) -> Iterator[Sequence[object]]:
    for entry in tables:
        for split, captions in entry["captions"].items():
            unknown = f"{entry['unknown_rate'][split]:.2%}"
            lengths = _lengths(entry, split)
            yield entry["fingerprint"], split, captions, entry["tokens"][split], *lengths, unknown


def _lengths(entry: Entry, split: str) -> Sequence[object]:
    """Shortest, median, mean, 95th percentile, longest; the mean alone where an earlier version wrote the table."""
    if entry["lengths"] is None:
        captions = entry["captions"][split]
        return None, None, f"{entry['tokens'][split] / captions:.1f}" if captions else None, None, None
    figures = entry["lengths"][split]
    return figures["min"], figures["median"], f"{figures['mean']:.1f}", figures["p95"], figures["max"]


def _run(entry: Entry) -> Sequence[object]:
    return entry["dataset"], entry["run"], *(entry[key] for key in ("input", "ok", "cached", "duplicate", "failed"))


def _failures(result: Entry) -> Iterator[Sequence[object]]:
    sources = [(f"{entry['dataset']}, last {entry['run']} run", entry["failures"]) for entry in result["reports"]]
    sources += [(f"{entry['fingerprint']}, remembered", entry["failures"]) for entry in result["features"]]
    for source, failures in sources:
        for kind in failures:
            examples = "\n".join(map(_example, kind["examples"]))
            yield source, kind["stage"], kind["reason"], examples, kind["count"]


def _example(example: Entry) -> str:
    record = example["record"]
    named = record[:SHORT_FINGERPRINT] if len(record) == 2 * KEY_BYTES else record
    return f"{named}: {example['detail']}"


def _print_leaks(printer: Printer, result: Entry) -> None:
    leaks = result["leaks"]
    if leaks["count"]:
        printer.line(f"contents that are in train and in test: {leaks['count']:,}, such as", "red")
        for leak in leaks["examples"]:
            printer.line(f"  train {', '.join(leak['train'])} = test {', '.join(leak['test'])}", "red")


def _say_if_empty(printer: Printer, result: Entry) -> None:
    if not (result["datasets"] or result["features"] or result["text"]):
        printer.line("the store holds nothing yet")
