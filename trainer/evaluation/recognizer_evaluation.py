"""Scores of recognizers on the held-out images of the store that they were trained from.

stored pixels → words, by every decoder → scores, and in RUN/evaluation/<split>/

    readings.tsv        a line an image: its id, what it says, what each decoder read, and the greedy one's score
    scores.json         the scores and all that decides them
    confusion.png       which letters were read for which, in words read wrong
    misreadings.html    the words that were read worst
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.io.atomic_files import write
from features.references.reference import read_source_image
from features.store import open_store
from features.store.leases import hold_snapshot
from schemas.options.inference import Evaluate
from schemas.terminal.console import Printer
from schemas.terminal.progress import progress_bar
from trainer.data.captcha_data import HeldOutLabels, labelled_tables, load_held_out_labels
from trainer.data.table_selection import LabelledTables
from trainer.evaluation.common import SCORES, learned_note, open_run_store, shorten, writing
from trainer.evaluation.label_file import read_label_file
from trainer.evaluation.recognition_errors import RecognitionError, recognition_errors_page
from trainer.evaluation.recognition_metrics import RecognitionScores, worst_first
from trainer.models.charset import CHARACTERS
from trainer.reports.plots import confusion_figure, encode_figure
from trainer.runs.directory import EVALUATION
from trainer.runs.recognizer_run import STRATEGIES, RecognizedImage, RecognizerRun

PREDICTIONS = "readings.tsv"
CONFUSION = "confusion.png"
PAGE = "misreadings.html"

_BATCH = 256
_TITLES = {"greedy": "free", "beam": "free, beam", "lexicon": "lexicon"}


def evaluate_recognizers(runs: Sequence[RecognizerRun], options: Evaluate) -> dict[str, Any]:
    """Scores of recognizers on all images of a split whose word is known, by every decoder.

    Args:
        runs: sequence of RecognizerRun. The runs.
        options: What to evaluate them on.

    Returns:
        dict: `runs`, for each: `run`, `model`, `datasets`, `split`, `images`, `exact_match` (greedy: free of any list
        of words), `exact_match_beam` (free as well) and `exact_match_lexicon` (of the train split's words alone), by
        `greedy`, `beam` and `lexicon` what `RecognitionScores.figures` says, `outside_lexicon` (images whose word
        is not
        among those), `by_length` and `by_letter` (`right` and `all`, by decoder and greedily), `without_label`,
        `without_features` (images left out), `differing` and `unused_labels` (words of `labels` that the store knows
        otherwise, or that are of no image of the split), `learned_from` (images that the run learned from), `scored_on`
        (digest of images and words), and `readings`, `scores`, `confusion` and `page` (paths); `notes`, what a reader
        must know to judge them.

    Raises:
        UsageError: the file of labels is wrong, or it is not known where the store is.
        StoreError: a run cannot be used, or the store lacks a table of it.
        CaptError: no image of the split has a word and pixels.
    """
    told = read_label_file(options.labels) if options.labels else None
    results = [
        _evaluate(run, open_run_store(run, options.store), options.split, options.num_examples, told) for run in runs
    ]
    notes = [note for one in results for note in _notes(one, options.split)]
    if len({one["scored_on"] for one in results}) > 1:
        notes.append("the runs were scored on different images or words, so their scores do not compare")
    return {"runs": results, "notes": list(dict.fromkeys(notes))}


def print_recognizers(result: Mapping[str, Any]) -> None:
    """Print what `evaluate_recognizers` returned: words read right by every decoder, a row a run, and by length."""
    printer = Printer()
    titles = ("free", "95 %", "free, beam", "lexicon", "wrong letters", "images")
    rows = [[shorten(one["run"]), one["split"], *_row(one)] for one in result["runs"]]
    printer.table("words right, %", ("run", "split"), titles, rows)
    for one in result["runs"]:
        lengths = [
            [length, *(_percent(row[how]["right"] / row[how]["all"]) for how in STRATEGIES), row["greedy"]["all"]]
            for length, row in one["by_length"].items()
        ]
        printer.table(f"{shorten(one['run'])} by length", ("letters",), (*_TITLES.values(), "images"), lengths)
    for note in result["notes"]:
        printer.line(note, "yellow")
    for one in result["runs"]:
        printer.line(f"readings and scores: {shorten(Path(one['scores']).parent)}")


@dataclass(frozen=True)
class _Read:
    """What a run read of the held-out images, and how that scores."""

    run: RecognizerRun
    held: HeldOutLabels
    readings: list[RecognizedImage]
    scores: dict[str, RecognitionScores]


def _evaluate(
    run: RecognizerRun, store: Path, split: str, examples: int, told: Mapping[str, str] | None
) -> dict[str, Any]:
    opened = open_store(store)
    with hold_snapshot(opened.path, lambda: labelled_tables(opened, run.metadata)) as tables:
        held = load_held_out_labels(tables, split, told)
        readings = _read(run, tables, held)
        truth = held.images.words
        scores = {how: RecognitionScores(truth, tuple(each.by(how).text for each in readings)) for how in STRATEGIES}
        made = _Read(run, held, readings, scores)
        figures = _figures(made)
        place = run.path / EVALUATION / held.split
        with writing(place):
            paths = _write(made, tables, figures, place, split, examples)
    return {"run": str(run.path), **figures, **paths}


def _read(run: RecognizerRun, tables: LabelledTables, held: HeldOutLabels) -> list[RecognizedImage]:
    readings: list[RecognizedImage] = []
    rows = held.images.rows
    tables.features.ensure_local(rows)
    with progress_bar(f"reading {held.split}", len(rows), "images") as show:
        for start in range(0, len(rows), _BATCH):
            readings += run.recognize_pixels(tables.features.read(rows[start : start + _BATCH]))
            show(len(readings), "")
    return readings


def _figures(made: _Read) -> dict[str, Any]:
    record, held = made.run.metadata, made.held
    each = {how: scores.figures() for how, scores in made.scores.items()}
    by_length = {how: scores.by_length() for how, scores in made.scores.items()}
    learned = set(made.run.words)
    return {
        "model": record.model,
        "datasets": list(record.datasets),
        "split": held.split,
        "images": len(held.images),
        "exact_match": each["greedy"]["accuracy"],
        "exact_match_beam": each["beam"]["accuracy"],
        "exact_match_lexicon": each["lexicon"]["accuracy"],
        **each,
        "outside_lexicon": sum(word not in learned for word in held.images.words),
        "by_length": {
            str(length): {how: _pair(by_length[how][length]) for how in STRATEGIES} for length in by_length["greedy"]
        },
        "by_letter": {letter: _pair(pair) for letter, pair in made.scores["greedy"].by_letter().items()},
        "without_label": held.without_label,
        "without_features": held.without_features,
        "differing": held.differing,
        "unused_labels": held.unused,
        "learned_from": made.run.count_training_images(held.images.keys),
        "scored_on": held.images.digest,
    }


def _pair(pair: tuple[int, int]) -> dict[str, int]:
    return {"right": pair[0], "all": pair[1]}


def _write(
    made: _Read, tables: LabelledTables, figures: Mapping[str, Any], place: Path, split: str, examples: int
) -> dict[str, Any]:
    """Write what the evaluation leaves; the paths by name."""
    write(place / SCORES, f"{json.dumps(figures, indent=1)}\n".encode())
    write(place / PREDICTIONS, _table(made).encode())
    confusion = encode_figure(confusion_figure(made.scores["greedy"].confusion(), CHARACTERS), "png")
    write(place / CONFUSION, confusion)
    page = place / PAGE
    # One of an earlier evaluation would show other words than the files beside it.
    page.unlink(missing_ok=True)
    if examples:
        write(page, _page(made, tables, figures, split, examples, confusion).encode())
    paths = {"readings": place / PREDICTIONS, "scores": place / SCORES, "confusion": place / CONFUSION}
    return {**{name: str(path) for name, path in paths.items()}, "page": str(page) if examples else None}


def _table(made: _Read) -> str:
    lines = ["\t".join(("image", "word", *STRATEGIES, "score"))]
    for name, word, each in zip(made.held.images.names, made.held.images.words, made.readings, strict=True):
        texts = (each.by(how).text for how in STRATEGIES)
        lines.append("\t".join((_name(made, name), word, *texts, f"{each.greedy.score:.4f}")))
    return "\n".join(lines) + "\n"


def _page(
    made: _Read, tables: LabelledTables, figures: Mapping[str, Any], split: str, examples: int, confusion: bytes
) -> str:
    edits = made.scores["greedy"].edits.tolist()
    worst = worst_first([each.greedy.score for each in made.readings], edits)[:examples]
    shown = [_misreading(made, tables, number) for number in worst]
    title = f"{made.run.path.name}: words of {made.held.split}"
    told = {_TITLES[how]: _percent(figures[how]["accuracy"]) for how in STRATEGIES}
    named = {**told, "images": f"{figures['images']:,}", "read wrong": f"{sum(map(bool, edits)):,}"}
    return recognition_errors_page(
        title, _notes({**figures, "run": made.run.path.name}, split), named, shown, confusion
    )


def _misreading(made: _Read, tables: LabelledTables, number: int) -> RecognitionError:
    name, each = made.held.images.names[number], made.readings[number]
    dataset = next(dataset for dataset in tables.datasets if dataset.name == name[0])
    return RecognitionError(
        name=_name(made, name),
        image=read_source_image(dataset.get(name[1])),
        word=made.held.images.words[number],
        read={_TITLES[how]: each.by(how).text for how in STRATEGIES},
        score=each.greedy.score,
    )


def _name(made: _Read, name: tuple[str, str]) -> str:
    return "/".join(name) if len(made.run.metadata.datasets) > 1 else name[1]


def _notes(one: Mapping[str, Any], split: str) -> list[str]:
    notes = []
    if one["split"] != split:
        notes.append(f"{one['run']}: no word of {split} is known; scored on {one['split']} (name them with --labels)")
    notes.append("free reads any letters; lexicon reads words of the train split alone, and knows them all beforehand")
    if one["outside_lexicon"]:
        notes.append(f"{one['run']}: words that are not in the train split: {one['outside_lexicon']:,}")
    for message, name in (("word", "without_label"), ("pixels", "without_features")):
        if one[name]:
            notes.append(f"{one['run']}: images without {message}, left out: {one[name]:,}")
    if one["differing"]:
        notes.append(f"{one['run']}: images whose word is another in the store than in --labels: {one['differing']:,}")
    if one["unused_labels"]:
        notes.append(f"{one['run']}: words of --labels that are of no image of the split: {one['unused_labels']:,}")
    return [*notes, *learned_note(one)]


def _row(one: Mapping[str, Any]) -> list[str | int]:
    low, high = one["greedy"]["interval"]
    rates = [_percent(one[how]["accuracy"]) for how in STRATEGIES]
    errors = _percent(one["greedy"]["character_error_rate"])
    return [rates[0], f"{_percent(low)}–{_percent(high)}", *rates[1:], errors, one["images"]]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
