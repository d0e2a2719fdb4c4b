"""Shows training examples of a store, as a table or as an HTML page with the images: `capt store show`.

catalog ⨝ captions or labels, by image ID → some images, selected by a hash → encoded images → page or table
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.inputs import FileReference
from features.inputs.file_reference import read_source_image
from features.store import CaptionTable, Dataset, Store, open_store
from features.store.caption_table import check_file_names
from pipelines.datasets.splits import compute_rank
from schemas.errors import StoreError
from schemas.options.store import StoreShow
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.console import Printer
from trainer.reports.page_files import check_page_path, write_page
from workflows.example_pages import Example, ExampleCaption, build_examples_page


def show_examples(options: StoreShow) -> dict[str, Any]:
    """Selects training examples: images with all their captions or their label, splits and tokens.

    Examples contain images and captions, or only one of both if the other is not prepared yet. An image that cannot be
    read, or whose file has changed, is shown without pixels. More examples begin with the same examples.

    Returns:
        `store`, `dataset`, `caption_table` (fingerprint or null), `split`, `images` (number of examples in the store),
        `without_captions` (images without caption or label), `without_image` (captioned images that the catalog does
        not contain), `shown`, `unavailable_images` (shown images that cannot be read), `output`, and `examples`:
        `image_id`, `split`, `image` (path or URI, or empty), `is_available`, and `captions` with `caption`,
        `token_ids` and `tokens`.

    Raises:
        StoreError: The store, dataset or caption table does not exist, or several match.
        UsageError: The output is a directory.
        CaptError: The page cannot be written.
    """
    output = None if options.output is None else check_page_path(options.output, "--output")
    store = open_store(options.store)
    name, dataset, caption_table = select_example_tables(store, options.dataset, options.caption_table)
    catalog = dataset.catalog() if dataset else None
    captions = caption_table.captions() if caption_table else None
    labels = dataset.labels() if dataset else None
    if dataset and caption_table:
        check_file_names(caption_table, captions, dataset, catalog)
    known, captioned = _read_splits(catalog), _read_splits(captions)
    annotated = {*captioned, *(labels["image_id"].to_pylist() if labels else ())}
    splits = known or captioned
    if catalog is not None and captions is not None:
        splits = {image_id: split for image_id, split in captioned.items() if image_id in known}
    images = [image_id for image_id, split in splits.items() if options.split in (None, split)]
    selected = nsmallest(options.num_examples, images, key=lambda one: (compute_rank(options.seed, one), one))
    rows = {row["image_id"]: row for row in _filter(catalog, selected)}
    texts = _read_texts(_filter(captions, selected), _filter(labels, selected), caption_table)
    examples = [
        Example(read_source_image(rows.get(image_id)), image_id, splits[image_id], tuple(texts[image_id]))
        for image_id in selected
    ]
    result = {
        "store": str(store.path),
        "dataset": name,
        "caption_table": caption_table.fingerprint if caption_table else None,
        "split": options.split,
        "images": len(images),
        "without_captions": sum(image_id not in annotated for image_id in known),
        "without_image": sum(image_id not in known for image_id in captioned),
        "shown": len(examples),
        "unavailable_images": sum(example.image is None for example in examples),
        "output": options.output,
        "examples": [_describe_example(example, rows.get(example.image_id)) for example in examples],
    }
    if output:
        write_page(output, build_examples_page(name, examples, _summarize(result)))
    return result


def print_examples(result: Mapping[str, Any]) -> None:
    """Prints the result of `show_examples`: the examples, or the path of their page."""
    printer = Printer()
    title = f"{result['shown']:,} of {result['images']:,} examples of {result['dataset']}"
    if result["output"]:
        printer.line(f"{title}: {result['output']}")
    else:
        printer.table(title, ("image", "split", "caption", "tokens"), (), _rows(result["examples"]))
    if not result["shown"]:
        printer.line("There are no examples to show.")
    if result["unavailable_images"]:
        printer.line(f"Images that cannot be read: {result['unavailable_images']:,}", "yellow")


# === Tables ===


def select_example_tables(
    store: Store, name: str | None, fingerprint: str | None
) -> tuple[str, Dataset | None, CaptionTable | None]:
    """Returns the name of a dataset, and its prepared images and captions."""
    datasets, tables = {dataset.name: dataset for dataset in store.datasets()}, store.caption_tables()
    if fingerprint:
        tables = [store.caption_table(fingerprint)]
    location = str(store.path)
    if name is None:
        names = {table.table_config.dataset for table in tables} | (set() if fingerprint else {*datasets})
        if not names:
            hint = "Add one with `capt prepare features`."
            raise StoreError("the store has no dataset", location=location, hint=hint)
        if len(names) > 1:
            message = f"the store has several datasets: {', '.join(sorted(names))}"
            raise StoreError(message, location=location, hint="Choose one with --dataset NAME.")
        name = names.pop()
    found = [table for table in tables if table.table_config.dataset == name]
    if fingerprint and not found:
        dataset = tables[0].table_config.dataset
        message = f"the caption table {tables[0].fingerprint[:SHORT_FINGERPRINT]} contains captions of {dataset}"
        raise StoreError(message, location=location, hint=f"Use --dataset {dataset}, or another --caption-table.")
    if len(found) > 1:
        described = "; ".join(
            f"{one.fingerprint[:SHORT_FINGERPRINT]} ({one.table_config.standardization}, {one.facts.words} tokens)"
            for one in found
        )
        hint = "Choose one with --caption-table FINGERPRINT."
        raise StoreError(f"several caption tables match: {described}", location=location, hint=hint)
    if name not in datasets and not found:
        store.dataset(name)  # raises the error that lists the datasets
    return name, datasets.get(name), found[0] if found else None


# === Rows ===


def _read_splits(table: pa.Table | None) -> dict[str, str]:
    if table is None:
        return {}
    return dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def _read_texts(
    captions: Iterable[Mapping[str, Any]], labels: Iterable[Mapping[str, Any]], table: CaptionTable | None
) -> Mapping[str, list[ExampleCaption]]:
    """Returns the captions of each image in the order of their IDs, and its label."""
    vocabulary = table.vocabulary() if table else []
    texts: defaultdict[str, list[ExampleCaption]] = defaultdict(list)
    for row in sorted(captions, key=lambda row: (len(row["caption_id"]), row["caption_id"])):
        tokens = tuple(vocabulary[token_id] for token_id in row["tokens"])
        texts[row["image_id"]].append(ExampleCaption(row["caption"], tuple(row["tokens"]), tokens))
    for row in labels:
        texts[row["image_id"]].append(ExampleCaption(row["word"]))
    return texts


def _filter(table: pa.Table | None, selected: Sequence[str]) -> list[dict[str, Any]]:
    if table is None:
        return []
    rows = table.filter(pc.is_in(table["image_id"], value_set=pa.array(selected, pa.string())))
    return list(rows.to_pylist())


# === Output ===


def _describe_example(example: Example, row: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "image_id": example.image_id,
        "split": example.split,
        "image": FileReference(row["location"], row["member"]).label if row else "",
        "is_available": example.image is not None,
        "captions": [
            {"caption": caption.text, "token_ids": list(caption.ids), "tokens": list(caption.words)}
            for caption in example.sentences
        ],
    }


def _summarize(result: Mapping[str, Any]) -> dict[str, object]:
    """Returns the tiles above the examples of a page."""
    table = result["caption_table"]
    tiles = {
        "split": result["split"] or "all",
        "examples shown": f"{result['shown']:,} of {result['images']:,}",
        "caption table": table[:SHORT_FINGERPRINT] if table else "none yet",
    }
    counts = {
        "images without captions or labels": result["without_captions"],
        "captioned images not in the catalog": result["without_image"],
        "images that cannot be read": result["unavailable_images"],
    }
    return tiles | {label: f"{count:,}" for label, count in counts.items() if count}


def _rows(examples: Iterable[Mapping[str, Any]]) -> Iterable[Sequence[object]]:
    """Iterates over one row per caption; only an image's first row shows the image ID and split."""
    for example in examples:
        image = (example["image_id"], example["split"])
        for caption in example["captions"] or [{"caption": "", "token_ids": (), "tokens": ()}]:
            tokens = zip(caption["tokens"], caption["token_ids"], strict=True)
            yield *image, caption["caption"].strip(), " ".join(f"{token}/{token_id}" for token, token_id in tokens)
            image = ("", "")
