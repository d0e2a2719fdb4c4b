"""Shows the use of words in the captions of a store, as tables or as an HTML page with images: `capt store words`.

caption table → standardized captions → occurrences of each word by split, and example images
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.inputs import FileReference
from features.inputs.file_reference import read_source_image
from features.store import Dataset, open_store
from schemas.errors import StoreError, UsageError
from schemas.options.store import StoreWords
from schemas.table_config import SHORT_FINGERPRINT
from schemas.tables import SPLITS
from schemas.terminal.console import Printer
from trainer.data.word_search import WordUse, search_words
from trainer.reports.markup import document, element, header
from trainer.reports.page_files import check_page_path, write_page
from trainer.reports.word_sections import ShownWord, word_section
from workflows.show_examples import select_example_tables


def show_words(options: StoreWords) -> dict[str, Any]:
    """Searches words and phrases in the captions of a store.

    Returns:
        `store`, `dataset`, `caption_table` (fingerprint), `output`, and `words`: `word` (standardized), `token_ids`
        (null for a word that is not in the vocabulary), `in_vocabulary`, `reason` (why it is not, or empty), numbers by
        split of `occurrences`, `captions` and `images`, and `examples`: `image_id`, `split`, `image` (path or URI, or
        empty), `is_available` and `caption`.

    Raises:
        StoreError: The store, dataset or caption table does not exist, or several match.
        UsageError: A word is not valid Unicode or has no word after standardization, or the output is a directory.
        CaptError: The page cannot be written.
    """
    output = None if options.output is None else check_page_path(options.output, "--output")
    for word in options.words:
        _check_text(word)
    store = open_store(options.store)
    name, dataset, table = select_example_tables(store, options.dataset, options.caption_table)
    if table is None:
        hint = "Add them with `capt prepare captions`."
        raise StoreError(f"the dataset {name} has no captions", location=str(store.path), hint=hint)
    uses = search_words([table], options.words, options.num_examples)
    rows = _find_rows(dataset, uses)
    if output:
        shown = [
            ShownWord(use, [(one, read_source_image(rows.get(one.image_id))) for _, one in use.examples])
            for use in uses
        ]
        values = {"caption table": table.fingerprint[:SHORT_FINGERPRINT], "words": len(uses)}
        title = f"Words of {name}"
        body = element("main", *(element("section", word_section(one)) for one in shown))
        write_page(output, document(title, header(title, values=values), body))
    return {
        "store": str(store.path),
        "dataset": name,
        "caption_table": table.fingerprint,
        "output": options.output,
        "words": [_describe(use, rows) for use in uses],
    }


def print_words(result: Mapping[str, Any]) -> None:
    """Prints the result of `show_words`."""
    printer = Printer()
    splits = [split for split in SPLITS if any(split in one["captions"] for one in result["words"])] or ["train"]
    printer.table(
        f"words in the captions of {result['dataset']}",
        ("word", "in the vocabulary"),
        ("token ID", *(f"{split} captions" for split in splits), "images"),
        (_count_row(one, splits) for one in result["words"]),
    )
    for one in result["words"]:
        if one["reason"]:
            printer.line(f"{one['reason']}.", "yellow")
    if result["output"]:
        printer.line(f"examples: {result['output']}")
    else:
        printer.table("examples", ("word", "image", "split", "caption"), (), _example_rows(result["words"]))


def _count_row(one: Mapping[str, Any], splits: Sequence[str]) -> Sequence[object]:
    ids = " ".join("–" if token_id is None else str(token_id) for token_id in one["token_ids"])
    counts = (one["captions"].get(split, 0) for split in splits)
    return one["word"], "yes" if one["in_vocabulary"] else "no", ids, *counts, sum(one["images"].values())


def _example_rows(words: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[object]]:
    for one in words:
        for example in one["examples"]:
            yield one["word"], example["image"] or example["image_id"], example["split"], example["caption"].strip()


def _find_rows(dataset: Dataset | None, uses: Sequence[WordUse]) -> dict[str, dict[str, Any]]:
    if dataset is None:
        return {}
    catalog, wanted = dataset.catalog(), [found.image_id for use in uses for _, found in use.examples]
    rows = catalog.filter(pc.is_in(catalog["image_id"], value_set=pa.array(wanted, pa.string()))).to_pylist()
    return {row["image_id"]: row for row in rows}


def _describe(use: WordUse, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "word": use.text,
        "token_ids": list(use.token_ids),
        "in_vocabulary": use.in_vocabulary,
        "reason": use.reason,
        **{name: _order(getattr(use, name)) for name in ("occurrences", "captions", "images")},
        "examples": [
            {
                "image_id": found.image_id,
                "split": found.split,
                "image": FileReference(row["location"], row["member"]).label if row else "",
                "is_available": read_source_image(row) is not None,
                "caption": found.caption,
            }
            for found, row in ((found, rows.get(found.image_id)) for _, found in use.examples)
        ],
    }


def _order(counts: Mapping[str, int]) -> dict[str, int]:
    return {split: counts[split] for split in SPLITS if counts[split]}


def _check_text(word: str) -> None:
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"character {error.start} is not valid Unicode", location=ascii(word)) from None
