"""`capt store show`: training examples of a store, as a table or as a page with their images.

catalog ⨝ captions, or words, by image id → some images, drawn by a hash → encoded images as they lie → page, or table
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.io.atomic_files import write
from features.io.locations import local_path
from features.references import Reference
from features.references.reference import read_source_image
from features.store import CaptionTable, Dataset, Store, open_store
from features.store.caption_table import check_file_names
from pipelines.datasets.splits import compute_rank
from schemas.errors import CaptError, StoreError, UsageError
from schemas.options.store import StoreShow
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.console import Printer
from workflows.html_reports import Example, ExampleCaption, build_examples_page


def show_examples(options: StoreShow) -> dict[str, Any]:
    """Some training examples: images with all their captions, splits and tokens.

    Where a dataset has images and captions, an example has both; where it has only the one yet, that is shown. The word
    that is known of a CAPTCHA stands where captions do. An image that cannot be read any more, or whose file holds
    something else now, costs no other.

    Args:
        options: The store, and which examples; a larger number of examples begins with the same ones.

    Returns:
        `store`, `dataset`, `text` (fingerprint or null), `split`, `images` (examples there are), `without_captions` and
        `without_image` (images of the catalog that nobody says anything of, and captioned images that the catalog
        lacks), `shown`, `lost` (shown
        images that are not at hand), `output`, and `examples`: `image_id`, `split`, `image` (where it lies, or empty),
        `at_hand`, and `captions`, each with `caption`, `tokens` (ids) and `words`.

    Raises:
        StoreError: there is no such store, dataset or text table, or several fit; the message names the option that
            picks one.
        UsageError: the output is a directory.
        CaptError: the page cannot be written.
    """
    if options.output is not None and local_path(options.output, "--output").is_dir():
        raise UsageError(
            "this is a directory", location=f"--output {options.output}", hint="Choose a file, such as page.html."
        )
    split = options.split
    opened = open_store(options.store)
    tables = _choose(opened, options.dataset, options.caption_table)
    join = _join(tables)
    images = [image_id for image_id, own in join.splits.items() if split in (None, own)]
    drawn = nsmallest(
        options.num_examples, images, key=lambda image_id: (compute_rank(options.seed, image_id), image_id)
    )
    rows, sentences = _catalog_rows(join, drawn), _sentences(join, drawn, tables.text)
    examples = [
        Example(read_source_image(rows.get(image_id)), image_id, join.splits[image_id], tuple(sentences[image_id]))
        for image_id in drawn
    ]
    result = {
        "store": str(opened.path),
        "dataset": tables.name,
        "text": tables.text.fingerprint[:SHORT_FINGERPRINT] if tables.text else None,
        "split": split,
        "images": len(images),
        "without_captions": join.without_captions,
        "without_image": join.without_image,
        "shown": len(examples),
        "lost": sum(example.image is None for example in examples),
        "output": options.output,
        "examples": [_entry(example, rows.get(example.image_id)) for example in examples],
    }
    if options.output:
        _write_page(Path(options.output), build_examples_page(tables.name, examples, _summary(result)))
    return result


def print_examples(result: Mapping[str, Any]) -> None:
    """Print what `show_examples` returned: the examples, or where their page is."""
    printer = Printer()
    if result["output"]:
        printer.line(f"{result['shown']:,} of {result['images']:,} examples of {result['dataset']}: {result['output']}")
    else:
        title = f"{result['shown']:,} of {result['images']:,} examples of {result['dataset']}"
        printer.table(title, ("image", "split", "caption", "tokens"), (), _rows(result["examples"]))
    if not result["shown"]:
        printer.line("there are no examples to show")
    if result["lost"]:
        printer.line(f"images that are not at hand: {result['lost']:,}", "yellow")


# === Which tables ===


@dataclass(frozen=True)
class _Tables:
    """A dataset: its name, its images and its captions, as far as they are prepared."""

    name: str
    dataset: Dataset | None
    text: CaptionTable | None


def _choose(store: Store, name: str | None, captions: str | None) -> _Tables:
    datasets, texts = {dataset.name: dataset for dataset in store.datasets()}, store.caption_tables()
    asked = store.caption_table(captions) if captions else None
    if name is None:
        name = (
            asked.table_config.dataset
            if asked
            else _only_name({*datasets, *(t.table_config.dataset for t in texts)}, store)
        )
    fitting = [asked] if asked else texts
    fitting = [table for table in fitting if table.table_config.dataset == name]
    if asked and not fitting:
        raise StoreError(
            f"the text table {asked.fingerprint[:SHORT_FINGERPRINT]} holds captions of {asked.table_config.dataset}",
            location=str(store.path),
            hint=f"show --dataset {asked.table_config.dataset}, or pick another --caption-table",
        )
    if len(fitting) > 1:
        raise StoreError(
            f"several text tables fit: {'; '.join(map(_describe, fitting))}",
            location=str(store.path),
            hint="pick with --caption-table ID",
        )
    if name not in datasets and not fitting:
        store.dataset(name)
    return _Tables(name, datasets.get(name), fitting[0] if fitting else None)


def _only_name(names: set[str], store: Store) -> str:
    if not names:
        raise StoreError(
            "the store holds no dataset yet", location=str(store.path), hint="run `capt prepare features`, say"
        )
    if len(names) > 1:
        raise StoreError(
            f"several datasets fit: {', '.join(sorted(names))}",
            location=str(store.path),
            hint="pick with --dataset NAME",
        )
    return names.pop()


def _describe(table: CaptionTable) -> str:
    table_config = table.table_config
    return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({table_config.standardizer}, {table.facts.words} words)"


# === Which images ===


@dataclass(frozen=True)
class _Join:
    """Images and captions, brought together.

    Args:
        splits: dict. The split of each image that can be shown, as its captions have it where there are some.
        catalog, captions, labels: pa.Table or None. Rows of `schemas.tables.CATALOG`, `CAPTIONS` and `LABELS`.
        without_captions: int. Images of the catalog that have no caption.
        without_image: int. Captioned images that the catalog lacks.
    """

    splits: dict[str, str]
    catalog: pa.Table | None
    captions: pa.Table | None
    labels: pa.Table | None
    without_captions: int
    without_image: int


def _join(tables: _Tables) -> _Join:
    catalog = tables.dataset.catalog() if tables.dataset else None
    captions = tables.text.captions() if tables.text else None
    labels = tables.dataset.labels() if tables.dataset else None
    if tables.dataset and tables.text:
        check_file_names(tables.text, captions, tables.dataset, catalog)
    known, captioned = _splits(catalog), _splits(captions)
    told = {*captioned, *(labels["image_id"].to_pylist() if labels else ())}
    if catalog is not None and captions is not None:
        splits = {image_id: split for image_id, split in captioned.items() if image_id in known}
    else:
        splits = known or captioned
    without_captions = sum(image_id not in told for image_id in known)
    without_image = sum(image_id not in known for image_id in captioned)
    return _Join(splits, catalog, captions, labels, without_captions, without_image)


def _splits(table: pa.Table | None) -> dict[str, str]:
    if table is None:
        return {}
    return dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def _catalog_rows(join: _Join, drawn: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in _of(join.catalog, drawn)}


def _sentences(join: _Join, drawn: Sequence[str], text: CaptionTable | None) -> Mapping[str, list[ExampleCaption]]:
    """The captions of each image, in the order of their ids, and its word."""
    words = text.vocabulary() if text else []
    sentences: defaultdict[str, list[ExampleCaption]] = defaultdict(list)
    for row in sorted(_of(join.captions, drawn), key=lambda row: (len(row["caption_id"]), row["caption_id"])):
        ids = tuple(row["tokens"])
        sentences[row["image_id"]].append(ExampleCaption(row["caption"], ids, tuple(words[i] for i in ids)))
    for row in _of(join.labels, drawn):
        sentences[row["image_id"]].append(ExampleCaption(row["word"], (), ()))
    return sentences


def _of(table: pa.Table | None, drawn: Sequence[str]) -> list[dict[str, Any]]:
    if table is None:
        return []
    rows: list[dict[str, Any]] = table.filter(
        pc.is_in(table["image_id"], value_set=pa.array(drawn, pa.string()))
    ).to_pylist()
    return rows


# === What is shown of them ===


def _entry(example: Example, row: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "image_id": example.image_id,
        "split": example.split,
        "image": Reference(row["location"], row["member"]).label if row else "",
        "at_hand": example.image is not None,
        "captions": [
            {"caption": sentence.text, "tokens": list(sentence.ids), "words": list(sentence.words)}
            for sentence in example.sentences
        ],
    }


def _summary(result: Mapping[str, Any]) -> dict[str, object]:
    """What stands above the examples of a page."""
    figures = {
        "split": result["split"] or "all",
        "examples shown": f"{result['shown']:,} of {result['images']:,}",
        "text table": result["text"] or "none yet",
    }
    counts = {
        "images without captions or words": result["without_captions"],
        "captioned images not in the catalog": result["without_image"],
        "images not at hand": result["lost"],
    }
    return figures | {label: f"{count:,}" for label, count in counts.items() if count}


def _rows(examples: Iterable[Mapping[str, Any]]) -> Iterable[Sequence[object]]:
    """A row a caption; the image stands before its first one."""
    for example in examples:
        head = (example["image_id"], example["split"])
        for caption in example["captions"] or [{"caption": "", "tokens": (), "words": ()}]:
            tokens = zip(caption["words"], caption["tokens"], strict=True)
            yield *head, caption["caption"].strip(), " ".join(f"{word}/{number}" for word, number in tokens)
            head = ("", "")


def _write_page(path: Path, page: str) -> None:
    try:
        write(path, page.encode())
    except OSError as error:
        raise CaptError(f"the page cannot be written: {error.strerror}", location=str(path)) from None
