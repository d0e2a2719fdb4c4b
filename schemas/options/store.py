"""Declares the options of `capt store`."""

from typing import Annotated

from schemas.choices import Split
from schemas.options.base import Argument, Count, Natural, Options, option
from schemas.options.shared import CAPTION_TABLE, NUM_SHARDS, StoreArgument


class StoreLs(Options):
    """List datasets, feature tables and caption tables."""

    store: StoreArgument


class StoreStats(Options):
    """Print counts, sizes, caption lengths, out-of-vocabulary rates, failures and train/test leakage."""

    store: StoreArgument


class StoreShow(Options):
    """Show training examples: image, captions, split and tokens."""

    store: StoreArgument
    dataset: str | None = option(None, "Dataset in the store. [default: the only dataset]", "NAME")
    caption_table: str | None = CAPTION_TABLE
    output: str | None = option(None, "HTML file to write the examples to. [default: print a table]", "FILE")
    num_examples: Count = option(24, "Number of examples.")
    split: Split | None = option(None, "Split of the examples: train, val, test or unused. [default: all]")
    seed: Natural = option(0, "Seed of the selection of examples.")


class StoreWords(Options):
    """Show whether words are in the vocabulary, how often and in which splits they occur, and example images.

    A phrase such as "water bottle" counts where its words follow each other.
    """

    store: StoreArgument
    words: Annotated[tuple[str, ...], Argument("Word or phrase. Repeatable.", "WORD")]
    dataset: str | None = option(None, "Dataset in the store. [default: the only dataset]", "NAME")
    caption_table: str | None = CAPTION_TABLE
    output: str | None = option(None, "HTML file to write the words and images to. [default: print tables]", "FILE")
    num_examples: Natural = option(3, "Number of example images per word, from the train split first.")


class StoreVerify(Options):
    """Recompute the checksum of every file that a commit references.

    Report corrupt, missing and orphan files. An orphan file was never referenced by a commit. Corrupt and missing
    files are recorded for repair by the next `capt prepare`. The exit code is 4 if any file is corrupt or missing.
    """

    store: StoreArgument


class StoreCompact(Options):
    """Merge the commits of feature tables.

    Rows are copied, not extracted again. Rows that no dataset references are removed from the table; a later `capt
    prepare features` that lists their images extracts them again.
    """

    store: StoreArgument
    num_shards: Count | None = NUM_SHARDS
    feature_table: str | None = option(
        None, "Feature table to compact, by fingerprint or the beginning of one. [default: all]", "FINGERPRINT"
    )


class StoreDrop(Options):
    """Remove a dataset and its caption tables from the store.

    `capt store compact` and `capt store gc` then free the space.
    """

    store: StoreArgument
    dataset: Annotated[str, Argument("Dataset to remove.", "NAME")]


class StoreGc(Options):
    """Delete files that no live commit has referenced for --older-than.

    Also deletes files of killed jobs, run directories of registered models that were rejected or are no longer kept,
    and run reports except the newest 10 of each kind per dataset. Files that capt did not write are kept.
    """

    store: StoreArgument
    older_than: str = option(
        "24h",
        "Minimum time since a commit superseded the last live commit that referenced the file: a number and s, m, h, d "
        "or w. Files of killed jobs are kept for at least 1h.",
        "TIME",
    )
    dry_run: bool = option(False, "List the files that would be deleted. Delete nothing.")
