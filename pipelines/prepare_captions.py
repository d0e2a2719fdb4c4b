"""Implements `capt prepare captions`: tokenizes captions with tensorflow-transform and commits a caption table.

annotations → list → assign splits → vocabulary of the train split (Beam, TFT) → tokenize shards (Beam) → commit
"""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from features.io.locks import wait_for_lock
from features.store import Dataset, Store
from features.text.caption_keys import CaptionsDigest, compute_caption_key, identify_built_vocabulary
from features.text.lines import FailedRecord
from features.text.record_fields import check_caption
from features.text.vocabulary import identify_given_vocabulary
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.gc_freeze import freeze_gc
from pipelines.beam.scratch import open_scratch
from pipelines.datasets import open_source
from pipelines.datasets.base import DatasetReader
from pipelines.datasets.limits import parse_limits
from pipelines.datasets.splits import compute_rank, parse_split_ratios
from pipelines.ingest.caption_database import CaptionDatabase
from pipelines.ingest.list_inputs import build_records, rank_captions
from pipelines.jobs.caption_job import CaptionJob
from pipelines.jobs.failure_limit import check_failures, parse_max_failures
from pipelines.jobs.sinks import Sink, log_removed, open_sink
from schemas.defaults import VOCAB_SIZE
from schemas.errors import CaptError, RecordError, UsageError, to_record_error
from schemas.manifests import CaptionMetadata
from schemas.options.prepare import PrepareCaptions
from schemas.table_config import CaptionTableConfig, parse_filters

_log = logging.getLogger("capt.prepare")

_RECENT_IMAGES = 1 << 17


def prepare_captions(options: PrepareCaptions) -> dict[str, Any]:
    """Tokenizes the captions of a dataset and commits them.

    Returns:
        Numbers of captions: `input`, `ok`, `cached`, `duplicate`, `failed`; `reasons` (failed captions by reason),
        `repaired` (repaired records by fault), `unannotated` (0), `removed` (captions of the table's last commit that
        this run does not have, or that failed), `shared_ids`, `splits` (`hashed`, `kept`), `vocab_size`, `truncated`
        and `empty_captions` (without a word) of the table, `shards` and `bytes` (written), `fingerprint`, `dataset`,
        `seconds` and `report` (path of the run report); for `webdataset` with side files also `not_downloaded`, as in
        `prepare_features`. In a dry run, `dry_run`, `hits` and `misses` replace `report`
        and the values of the table: `vocab_size`, `truncated`, `empty_captions`, `shards` and `bytes`.
    """
    parse_filters(options.filters, options.standardize)
    parse_split_ratios(options.split_ratios)
    parse_limits(options)
    with report_full_disk(options.store), freeze_gc():
        reader = open_source(options)
        max_failures = parse_max_failures(options.max_failures or reader.max_failures)
        with open_sink(options.store, options.dry_run) as sink:
            summary = _prepare(options, reader, sink)
    if not options.dry_run:
        check_failures(summary, max_failures)
    return summary


def _prepare(options: PrepareCaptions, reader: DatasetReader, sink: Sink) -> dict[str, Any]:
    dataset, work = sink.store.dataset_root(options.dataset_name or options.dataset_type), sink.work
    with sink.hold(dataset), sink.open_database(CaptionDatabase) as database, open_scratch(work) as directory:
        _list(database, options, reader, sink.open_dataset(dataset))
        # The train split determines the vocabulary, so splits are assigned first.
        sink.commit_splits(database, dataset, options.dataset_type)
        captions = database.select_captions(directory / "captions.arrows")
        words = _read_given_vocabulary(options, sink.store)
        table_config = _build_table_config(options, dataset.name, captions.train, words)
        table = sink.table_root(table_config)
        # Each job replaces all captions of the table, so the last of several jobs counts.
        with sink.hold(table), wait_for_lock(work / f"{table.name}.lock"):
            known = sink.open_caption_table(table_config)
            if known:
                database.classify(known.captions())
            job = CaptionJob(table, work, table_config, words, captions, known, options.beam_options)
            tokenized = sink.run_job(job)
            assert tokenized is not None
            sink.remove_corrupt(table)
        return {
            **sink.summarize(database, dataset, "captions"),
            "unannotated": 0,
            "removed": log_removed(database.count_removed(), dataset.name, "captions", "table"),
            "repaired": database.count_repaired(),
            **reader.summarize(),
            **{name: tokenized[name] for name in ("shards", "bytes") if name in tokenized},
            **(_summarize_text(tokenized["metadata"]) if tokenized["metadata"] else {}),
            "fingerprint": table_config.fingerprint,
        }


def _list(database: CaptionDatabase, options: PrepareCaptions, reader: DatasetReader, dataset: Dataset) -> None:
    with database.transaction():
        database.identities.insert(reader.read_images())
    with database.transaction():
        splitter = parse_split_ratios(options.split_ratios)
        records = build_records(database.identities.list_images(), splitter, splitter, options.seed)
        database.insert_images(records)
        database.insert_captions(_list_captions(database, options, reader, dataset.root.name))
    database.reject_failed_images()
    database.keep_assigned(dataset)
    limits = parse_limits(options)
    if limits.sampled_captions is not None:
        database.insert_caption_ranks(rank_captions(database.list_caption_ids(), options.seed))
    database.limit(limits)
    if not database.count():
        reasons = "; ".join(f"{count} {reason}" for reason, count in database.count_by_reason().items())
        message = f"there are no captions ({reasons})" if reasons else "there are no captions"
        location = ", ".join(options.annotations) or options.dataset_type
        raise CaptError(message, location=location, hint="Check --annotations and --dataset-type.")


def _list_captions(
    database: CaptionDatabase, options: PrepareCaptions, reader: DatasetReader, dataset: str
) -> Iterator[tuple[bytes, str, str, str, str]]:
    """Yields the usable captions, and inserts the others as failures."""
    look_up = lru_cache(_RECENT_IMAGES)(database.identities.look_up)
    for entry in reader.read_captions():
        if isinstance(entry, FailedRecord):
            database.insert_unreadable(entry, compute_rank(options.seed, entry.location))
            continue
        try:
            image_id = look_up(entry.document, entry.image_id)
        except RecordError as error:
            record = FailedRecord(f"{entry.image_id}#{entry.caption_id}", error.reason, error.detail)
            database.insert_unreadable(record, compute_rank(options.seed, entry.image_id))
            continue
        try:
            check_caption(entry.caption)
            key = compute_caption_key(dataset, image_id, entry.caption_id)
        except Exception as error:
            database.insert_failure(image_id, entry.caption_id, to_record_error("parse", error))
            continue
        yield key, image_id, entry.caption_id, entry.caption, entry.repaired


def _read_given_vocabulary(options: PrepareCaptions, store: Store) -> list[str] | None:
    if options.vocab_from is None:
        return None
    if options.vocab_size is not None or options.min_count is not None:
        hint = "Omit --vocab-size and --min-count."
        raise UsageError("a reused vocabulary cannot be changed", location="--vocab-from", hint=hint)
    return store.caption_table(options.vocab_from).vocabulary()


def _build_table_config(
    options: PrepareCaptions, dataset: str, train: CaptionsDigest, words: Sequence[str] | None
) -> CaptionTableConfig:
    vocabulary, vocab_size, min_count = "", 0, 1
    if words is not None:
        vocabulary = identify_given_vocabulary(words)
    elif len(train):
        vocabulary = identify_built_vocabulary(train)
        vocab_size = VOCAB_SIZE if options.vocab_size is None else options.vocab_size
        min_count = options.min_count or 1
    else:
        hint = "Add the train annotations, or use --split-ratios 0.8,0.1,0.1 or --vocab-from FINGERPRINT."
        raise CaptError("no caption is in the train split, so no vocabulary can be built", hint=hint)
    table_config = CaptionTableConfig(
        dataset=dataset,
        standardizer=options.standardize,
        filters=parse_filters(options.filters, options.standardize),
        vocab_size=vocab_size,
        min_count=min_count,
        max_length=options.max_length,
        vocabulary=vocabulary,
    )
    table_config.check()
    return table_config


def _summarize_text(metadata: CaptionMetadata) -> dict[str, int]:
    if metadata.empty_captions:
        message = "%d captions have no word after standardization. A model learns to generate empty captions from them."
        _log.warning(message, metadata.empty_captions)
    return {"vocab_size": metadata.words, "truncated": metadata.truncated, "empty_captions": metadata.empty_captions}
