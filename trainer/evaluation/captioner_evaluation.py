"""Scores of captioners on the held-out images of the store that they were trained from.

stored features → captions → scores, and in RUN/evaluation/<split>/

    results.json        the captions in COCO's result format; of several datasets one file each, results-NAME.json
    images.tsv          a line an image: its id and its own scores
    scores.json         the scores and all that decides them
    predictions.html    the best and the worst captions
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.io.atomic_files import write
from features.store import FeatureTable, open_store
from features.store.leases import hold_snapshot
from schemas.options.inference import Evaluate
from schemas.terminal.console import Printer
from schemas.terminal.progress import progress_bar
from trainer.data.held_out_images import HeldOutImages, ImageName, load_held_out_images, run_tables
from trainer.decoding.generation import GenerationConfig
from trainer.evaluation.bootstrap import bootstrap_intervals, sample_captions
from trainer.evaluation.coco_results import IMAGE_SCORES, PAGE, write_each, write_page, write_results
from trainer.evaluation.common import SCORES, learned_note, open_run_store, shorten, writing
from trainer.metrics import METRICS, TITLES, Scorer, Scores
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.directory import EVALUATION
from trainer.runs.run import DECODE_BATCH


def evaluate_captioners(runs: Sequence[CaptionerRun], options: Evaluate) -> dict[str, Any]:
    """Scores of captioners on all images of a split that have features, against all references as published.

    Args:
        runs: sequence of CaptionerRun. The runs.
        options: What to evaluate them on, and how captions are generated.

    Returns:
        dict: `runs`, for each: `run`, `model`, `datasets`, `split`, the metrics by name of `trainer.metrics.METRICS`,
        `intervals` (95 % by metric), `images`, `references`, `tokenizer`, `skipped_metrics`, `without_features` and
        `without_image` (images left out), `learned_from` (images that the run learned from), `scored_on` (digest of
        images and references), `decoding`, `results`, `scores` and `page` (paths); `notes`, what a reader must know to
        judge them.

    Raises:
        UsageError: an option is out of range, or it is not known where the store is.
        StoreError: a run cannot be used, or the store lacks a table of it.
        CaptError: there is nothing to score, or pycocoevalcap is not installed.
    """
    jobs = [
        _Job(
            run,
            open_run_store(run, options.store),
            options.split,
            options.num_examples,
            run.decoding(**options.generation()),
        )
        for run in runs
    ]
    with Scorer() as scorer:
        results = [_evaluate(job, scorer) for job in jobs]
    return {"runs": results, "notes": _notes(results, options.split)}


def print_captioners(result: Mapping[str, Any]) -> None:
    """Print what `evaluate_captioners` returned: the scores times 100, a row a run, and what must be known of them."""
    printer = Printer()
    words, numbers = ("run", "model", "split", "tokenizer"), (*(TITLES[name] for name in METRICS), "images")
    rows = [
        [shorten(one["run"]), one["model"], one["split"], one["tokenizer"], *_hundredths(one), one["images"]]
        for one in result["runs"]
    ]
    printer.table("scores × 100", words, numbers, rows)
    for note in result["notes"]:
        printer.line(note, "yellow")
    for one in result["runs"]:
        printer.line(f"captions and scores: {shorten(Path(one['scores']).parent)}")


@dataclass(frozen=True)
class _Job:
    """A run to be scored: from which store, on which split, how it speaks, how many examples its page shows."""

    run: CaptionerRun
    store: Path
    split: str
    examples: int
    decoding: GenerationConfig


def _evaluate(job: _Job, scorer: Scorer) -> dict[str, Any]:
    run, store = job.run, open_store(job.store)
    with hold_snapshot(store.path, lambda: run_tables(store, run.metadata)) as tables:
        held = load_held_out_images(tables, job.split)
        captions = _caption(run, tables.features, held, job.decoding)
    scores = scorer.score({name: made.text for name, made in captions.items()}, held.references)
    figures = _figures(job, held, scores)
    place = run.path / EVALUATION / held.split
    with writing(place):
        results = write_results(place, run.metadata.datasets, captions)
        write_each(place / IMAGE_SCORES, run.metadata.datasets, held.names, scores)
        write(place / SCORES, f"{json.dumps(figures, indent=1)}\n".encode())
        page = place / PAGE
        # One of an earlier evaluation would show other captions than the files beside it.
        page.unlink(missing_ok=True)
        if job.examples:
            notices = _notes([{**figures, "run": run.path.name}], job.split)
            write_page(page, run, held, captions, scores, notices, job.examples)
    return {
        "run": str(run.path),
        **figures,
        "results": [str(path) for path in results],
        "scores": str(place / SCORES),
        "page": str(page) if job.examples else None,
    }


def _caption(
    run: CaptionerRun, features: FeatureTable, held: HeldOutImages, decoding: GenerationConfig
) -> dict[ImageName, Caption]:
    captions: list[Caption] = []
    features.ensure_local(held.rows)
    with progress_bar(f"captioning {held.split}", len(held.names), "images") as show:
        for start in range(0, len(held.names), DECODE_BATCH):
            stored = features.read(held.rows[start : start + DECODE_BATCH])
            captions += map(_compact, run.caption_features(stored, decoding, range(start, start + len(stored))))
            show(len(captions), "")
    return dict(zip(held.names, captions, strict=True))


def _compact(made: Caption) -> Caption:
    # A slice would keep its whole batch's array in memory, which adds up over a split.
    seen = None if made.attention is None else made.attention.astype(np.float16)
    return replace(made, attention=seen, others=())


def _figures(job: _Job, held: HeldOutImages, scores: Scores) -> dict[str, Any]:
    record = job.run.metadata
    return {
        "model": record.model,
        "datasets": list(record.datasets),
        "split": held.split,
        **scores.to_dict(),
        "intervals": bootstrap_intervals(sample_captions(scores)),
        "without_features": held.without_features,
        "without_image": held.without_image,
        "learned_from": job.run.count_training_images(held.keys),
        "scored_on": held.digest,
        "decoding": job.decoding.model_dump(mode="json"),
    }


def _notes(results: Sequence[Mapping[str, Any]], split: str) -> list[str]:
    notes = [note for one in results for note in _notes_of(one, split)]
    if len({one["scored_on"] for one in results}) > 1:
        notes.append("the runs were scored on different images or references, so their scores do not compare")
    if len({one["tokenizer"] for one in results}) > 1:
        notes.append("the runs were scored with different tokenizers")
    return list(dict.fromkeys(notes))


def _notes_of(one: Mapping[str, Any], split: str) -> list[str]:
    notes = [f"{TITLES[name]} was skipped: {reason}" for name, reason in one["skipped_metrics"].items()]
    if one["split"] != split:
        notes.append(f"{one['run']}: there is no {split} split; scored on {one['split']}")
    if one["tokenizer"] != "ptb":
        notes.append(f"tokenized by the {one['tokenizer']} tokenizer, not PTB's")
    for label, count in (("features", one["without_features"]), ("an image", one["without_image"])):
        if count:
            notes.append(f"{one['run']}: captioned images without {label}, left out: {count:,}")
    return [*notes, *learned_note(one)]


def _hundredths(one: Mapping[str, Any]) -> list[str | None]:
    return [f"{100 * one[name]:.1f}" if name in one else None for name in METRICS]
