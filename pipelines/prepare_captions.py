"""`capt prepare captions`: captions in, a table of tokens out, tokenized inside a tensorflow-transform graph.

source → ledger → vocabulary of the train split (Beam, TFT) → tokenize shards (Beam) → commit → report
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from features.io.locations import parse_location
from features.store import Store, create_store, open_store
from features.store.corruption import recorded_corruption
from features.store.leases import lease, table_name
from features.store.repair import open_intact_caption_table, open_readable_dataset, remove_corrupt, repair_log
from features.text.caption_keys import CaptionsDigest, compute_caption_key, identify_built_vocabulary
from features.text.vocabulary import identify_given_vocabulary
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.gc_freeze import freeze_gc
from pipelines.beam.scratch import hold_job_lock, open_scratch
from pipelines.datasets import CaptionEntry, DatasetReader, FailedRecord, open_reader
from pipelines.datasets.record_fields import MAX_TEXT
from pipelines.datasets.splits import compute_rank, parse_split_ratios
from pipelines.ingest.caption_database import CaptionDatabase, CaptionedImage
from pipelines.ingest.selected_captions import select_captions
from pipelines.ingest.split_records import log_splits
from pipelines.ingest.workspace import Workspace, dry_run_workspace
from pipelines.jobs.caption_job import CaptionJob
from pipelines.jobs.summary import build_summary, check_failures, commit_splits, parse_max_failures, write_named
from schemas.errors import CaptError, RecordError, UsageError, to_record_error
from schemas.manifests import CaptionMetadata
from schemas.options.prepare import PrepareCaptions
from schemas.table_config import CaptionTableConfig

_log = logging.getLogger("capt.prepare")

DEFAULT_VOCAB_SIZE = 5000
_REMEMBERED_IMAGES = 1 << 17


def prepare_captions(options: PrepareCaptions) -> dict[str, Any]:
    """Tokenize a dataset's captions and commit them.

    Args:
        options: The options of the command.

    Returns:
        The figures that `--json` prints; an input is one caption.
    """
    with report_full_disk(options.store), freeze_gc():
        return _forecast(options) if options.dry_run else _prepare(options)


def _prepare(options: PrepareCaptions) -> dict[str, Any]:
    started = time.monotonic()
    source = open_reader(options.dataset_type, options.annotations)
    allowed = parse_max_failures(options.max_failures or source.max_failures)
    store = create_store(options.store)
    workspace = Workspace(store.path)
    dataset = store.dataset_root(options.dataset_name or options.dataset_type)
    with contextlib.ExitStack() as running:
        # Before the captions are read it is not known which table they go to.
        running.enter_context(lease(store.path, "prepare", {table_name(store.path, dataset): ()}))
        job_database = running.enter_context(workspace.caption_ledger())
        repair_log(dataset)
        _enter(job_database, options, source, store, dataset.name)
        # The captions of the train split make the vocabulary, so splits are assigned before.
        commit_splits(job_database, dataset, options.dataset_type)
        splits = job_database.split_figures()
        log_splits(splits, dataset.name)
        words = _given_words(options, store)
        captions = select_captions(
            job_database, running.enter_context(open_scratch(workspace.work)) / "captions.arrows"
        )
        table_config = _table_config(options, dataset.name, captions.train, words)
        running.enter_context(
            lease(store.path, "prepare", {table_name(store.path, store.caption_table_root(table_config)): ()})
        )
        root = store.caption_table_root(table_config)
        # Each run puts its captions in the place of all others, so of several the last counts.
        running.enter_context(hold_job_lock(workspace.work / f"{root.name}.lock"))
        repair_log(root)
        known = open_intact_caption_table(store, table_config)
        if known:
            job_database.add_stored(known.captions())
        written = _tokenize(CaptionJob(root, workspace.work, table_config, words, captions, known), options)
        remove_corrupt(root, recorded_corruption(store.path, root))
        report = write_named(dataset, "captions", job_database.write_report, "reports")
        result = build_summary(job_database.counts(), job_database.reasons()) | {
            "unannotated": 0,
            "shared_ids": job_database.identities.shared_ids(),
            "repaired": job_database.repaired(),
            "splits": splits,
            **written,
            "seconds": round(time.monotonic() - started, 3),
            "fingerprint": table_config.fingerprint,
            "dataset": dataset.name,
            "report": str(dataset / report.path),
        }
    check_failures(result, allowed)
    return result


def _forecast(options: PrepareCaptions) -> dict[str, Any]:
    """What a run would do, from a ledger kept aside; changes nothing."""
    source = open_reader(options.dataset_type, options.annotations)
    parse_max_failures(options.max_failures or source.max_failures)
    root = parse_location(options.store)
    with dry_run_workspace(root) as workspace, workspace.caption_ledger() as job_database:
        store = open_store(root) if root.exists() else create_store(workspace.root / "store")
        name = options.dataset_name or options.dataset_type
        _enter(job_database, options, source, store, name)
        captions = select_captions(job_database, workspace.root / "captions.arrows")
        table_config = _table_config(options, name, captions.train, _given_words(options, store))
        known = open_intact_caption_table(store, table_config) if store.has_caption_table(table_config) else None
        if known:
            job_database.add_stored(known.captions())
        counts = job_database.counts()
        return build_summary(counts, job_database.reasons()) | {
            "dry_run": True,
            "hits": counts["cached"],
            "misses": counts["ok"],
            "splits": job_database.split_figures(),
            "fingerprint": table_config.fingerprint,
        }


def _enter(
    job_database: CaptionDatabase, options: PrepareCaptions, source: DatasetReader, store: Store, dataset: str
) -> None:
    """Enter the source's captions, with the splits that their images have, and what stands where captions should."""
    splitter = parse_split_ratios(options.split_ratios)
    image_of = lru_cache(_REMEMBERED_IMAGES)(job_database.identities.image_of)

    def images() -> Iterator[CaptionedImage]:
        for one in job_database.identities.images():
            yield CaptionedImage(
                one.image_id,
                one.file_name,
                splitter.assign(one.image_id, one.split),
                compute_rank(options.seed, one.image_id),
                splitter.find_stated(one.image_id, one.split),
                splitter.is_hashed(one.split),
            )

    def accepted() -> Iterator[tuple[bytes, str, str, str, str]]:
        for entry in source.read_captions():
            if isinstance(entry, FailedRecord):
                job_database.add_malformed(entry, compute_rank(options.seed, entry.location))
                continue
            try:
                image_id = image_of(entry.document, entry.image_id)
            except RecordError as error:
                lost = FailedRecord(f"{entry.image_id}#{entry.caption_id}", error.reason, error.detail)
                job_database.add_malformed(lost, compute_rank(options.seed, entry.image_id))
                continue
            try:
                key = _checked_key(dataset, entry._replace(image_id=image_id))
            except Exception as error:
                job_database.fail(image_id, entry.caption_id, to_record_error("parse", error))
                continue
            yield key, image_id, entry.caption_id, entry.caption, entry.repaired

    with job_database.transaction():
        job_database.identities.add(source.read_images())
    job_database.identities.settle()
    with job_database.transaction():
        job_database.add_images(images())
        job_database.add_captions(accepted())
    job_database.refuse_two_splits()
    job_database.count_captions()
    job_database.keep_assigned(open_readable_dataset(store.dataset_root(dataset)))
    job_database.limit(options.limit_images, options.limit_captions)
    if not job_database.count():
        why = "; ".join(f"{count} {reason}" for reason, count in job_database.reasons().items())
        message = f"there are no captions ({why})" if why else "there are no captions"
        location = ", ".join(options.annotations) or options.dataset_type
        raise CaptError(message, location=location, hint="check --annotations and --dataset-type")


def _checked_key(dataset: str, entry: CaptionEntry) -> bytes:
    """The caption's key; RecordError where the text is none."""
    if not entry.caption.strip():
        raise RecordError("parse", "empty", "the caption has no text")
    if len(entry.caption) > MAX_TEXT:
        raise RecordError("parse", "too long", f"{len(entry.caption):,} characters, the limit is {MAX_TEXT:,}")
    if "\0" in entry.caption:
        raise RecordError("parse", "NUL byte", f"at character {entry.caption.index(chr(0))}")
    try:
        entry.caption.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            "parse", "invalid text", f"not UTF-8, or half a surrogate pair, at character {error.start}"
        ) from None
    return compute_caption_key(dataset, entry.image_id, entry.caption_id)


def _given_words(options: PrepareCaptions, store: Store) -> list[str] | None:
    if options.vocab_from is None:
        return None
    if options.vocab_size is not None or options.min_count is not None:
        raise UsageError(
            "a given vocabulary is used whole", location="--vocab-from", hint="leave out --vocab-size and --min-count"
        )
    return store.caption_table(options.vocab_from).vocabulary()


def _table_config(
    options: PrepareCaptions, dataset: str, train: CaptionsDigest, words: Sequence[str] | None
) -> CaptionTableConfig:
    if words is not None:
        vocabulary, vocab_size, min_count = identify_given_vocabulary(words), 0, 1
    else:
        if not len(train):
            raise CaptError(
                "no caption is in the train split, so there is no vocabulary to learn",
                hint="add the train annotations, or use --split-ratios 0.8,0.1,0.1 or --vocab-from FINGERPRINT",
            )
        vocabulary = identify_built_vocabulary(train)
        vocab_size = DEFAULT_VOCAB_SIZE if options.vocab_size is None else options.vocab_size
        min_count = options.min_count or 1
    table_config = CaptionTableConfig(
        dataset=dataset,
        standardizer=options.standardize,
        vocab_size=vocab_size,
        min_count=min_count,
        max_length=options.max_length,
        vocabulary=vocabulary,
    )
    table_config.check()
    return table_config


def _tokenize(job: CaptionJob, options: PrepareCaptions) -> dict[str, Any]:
    """Commit what the table lacks; the figures of what was written."""
    if job.known and job.known.facts.inputs == job.captions.inputs:
        return {"shards": 0, "bytes": 0, **_text_figures(job.known.facts)}
    manifest = job.run(options.beam_options)
    assert isinstance(manifest.facts, CaptionMetadata)
    written = sum(shard.data.bytes for shard in manifest.shards)
    return {"shards": len(manifest.shards), "bytes": written, **_text_figures(manifest.facts)}


def _text_figures(facts: CaptionMetadata) -> dict[str, int]:
    if facts.empty_captions:
        message = (
            "%d captions contain no word after standardization. A model learns to generate empty captions from them."
        )
        _log.warning(message, facts.empty_captions)
    return {"words": facts.words, "truncated": facts.truncated, "without_words": facts.empty_captions}
