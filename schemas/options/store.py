"""Declares the options of `capt store`."""

from typing import Annotated

from schemas.choices import ExportFormat, Split
from schemas.options.base import Argument, Count, Natural, Option, Options, option
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


class StoreExport(Options):
    """Write the features, captions and labels of a dataset to files for other libraries.

    A row is an image: its ID, SHA-256, features, captions with token IDs, and label. Each split has its own files, in
    the order of the image IDs. Images without features are left out and counted. Finished files are verified and kept,
    so the same command resumes an interrupted export.
    """

    store: StoreArgument
    format: Annotated[
        ExportFormat,
        Option(
            "webdataset (tars of KEY.npy, KEY.json and KEY.txt), huggingface (Parquet for datasets.load_dataset), npy "
            "(arrays for numpy.load, with a Parquet index), or arrow (Arrow IPC files)."
        ),
    ]
    output: Annotated[
        str,
        Option(
            "Directory to write to, or an s3:// or gs:// URI. Must be new, empty, or hold the same export already.",
            "DIR",
        ),
    ]
    dataset: str | None = option(None, "Dataset in the store. [default: the only dataset]", "NAME")
    split: Split | None = option(None, "Split to export: train, val, test or unused. [default: all]")
    feature_table: str | None = option(
        None,
        "Feature table, by fingerprint or the beginning of one. [default: the only table that has features of the "
        "dataset]",
        "FINGERPRINT",
    )
    caption_table: str | None = option(
        None,
        "Caption table, by fingerprint or the beginning of one. [default: the only table of the dataset, if it has "
        "captions]",
        "FINGERPRINT",
    )
    aligned_with: tuple[str, ...] = option(
        (),
        "Write side shards instead: for each of these WebDataset shards, a tar of the same name with KEY.features.npy "
        "for each sample, in its order. A tar, a directory, a pattern such as 'shards/{00000..00099}.tar', or a URI. "
        "Repeatable. Only with --format webdataset.",
        "SHARDS",
    )
    without_captions: bool = option(False, "Export neither captions nor token IDs.")
    shard_size: Count | None = option(
        None,
        "Maximum number of images per file. [default: files of about 256 MiB of features; npy: one file per split]",
        "N",
    )


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
