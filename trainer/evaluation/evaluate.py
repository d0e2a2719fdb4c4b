"""Implements `capt evaluate`: evaluates runs on held-out images; a task provides predictions, metrics and files.

stored features → predictions → metrics → RUN/evaluation/<split>/

With --epoch N, the directory is RUN/evaluation/epoch-N/<split>/; with --dataset A --dataset B, on-A+B/<split>/.

scores.json     the metrics and all inputs that affect them
images.tsv      one line per image: name, prediction, references (a JSON list), and the columns of the task
and the files of the task
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from features.io.atomic_files import write
from features.io.locations import parse_location
from features.store import open_store
from features.store.leases import hold_snapshot
from schemas.choices import ExampleKind
from schemas.errors import CaptError, UsageError
from schemas.options.inference import Evaluate
from schemas.terminal.console import Printer
from schemas.terminal.progress import progress_bar
from trainer.data.held_out_images import HeldOutImages
from trainer.data.table_selection import TrainingTables, select_held_out_tables
from trainer.evaluation.answers import grade_answers, print_grades
from trainer.reports.markup import Html, mark_wrong
from trainer.runs.directory import EVALUATION, recorded_store
from trainer.runs.run import Run, load_run
from trainer.task_registry import find_task

SCORES = "scores.json"
IMAGES = "images.tsv"

AnyRun = TypeVar("AnyRun", bound=Run)
AnyPrediction = TypeVar("AnyPrediction")
AnyScores = TypeVar("AnyScores")

_KINDS: tuple[ExampleKind, ...] = get_args(ExampleKind)
SKIPPED = {
    "without_features": "skipped images without features",
    "without_image": "skipped captioned images that are not in the dataset",
    "without_label": "skipped images without a label",
    "differing_labels": "images whose label in --labels differs from the store",
    "unused_labels": "labels in --labels of no image of the split",
}


@dataclass(frozen=True)
class ImageRow:
    """A line of images.tsv; `values` are the columns of the task by name, as text."""

    name: str
    prediction: str
    references: tuple[str, ...]
    values: Mapping[str, str]


@dataclass(frozen=True)
class EvaluatedRun(Generic[AnyRun, AnyPrediction, AnyScores]):
    """A run with its predictions for held-out images and their scores, and the tables that the images are from."""

    run: AnyRun
    tables: TrainingTables
    held_out: HeldOutImages
    predictions: list[AnyPrediction]
    scores: AnyScores

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets that the images are from."""
        return tuple(dataset.name for dataset in self.tables.datasets)


class Evaluation(ABC, Generic[AnyRun, AnyPrediction, AnyScores]):
    """Evaluates runs of one task; a context manager. Each forward pass has `batch_size` images.

    `page` is the name of the HTML page, and `default_examples` the examples on it without `--examples`. `figures` are
    the titles of further figures by the names of their files, and `errors_title` the title of `rank_errors`,
    whose rows are shown with the columns `error_columns`, titles by name.
    """

    batch_size: ClassVar[int] = 64
    page: ClassVar[str]
    default_examples: ClassVar[str]
    figures: ClassVar[Mapping[str, str]] = {}
    errors_title: ClassVar[str] = "Wrong predictions"
    error_columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Evaluate) -> None:
        self.options = options
        self.examples = parse_examples(options.examples or self.default_examples, options.num_examples)

    def __enter__(self) -> None:
        """Opens the resources of `score`."""

    def __exit__(self, *error: object) -> None:
        """Releases the resources."""

    def check_run(self, run: AnyRun) -> None:
        """Raises UsageError if the options do not fit the run."""

    @abstractmethod
    def load(self, run: AnyRun, tables: TrainingTables, split: str) -> HeldOutImages:
        """Loads the held-out images with their references, in the form of the run's texts."""

    @abstractmethod
    def predict(self, run: AnyRun, features: NDArray[Any], numbers: range) -> list[AnyPrediction]:
        """Predicts from stored features [N, *shape] of the images with these numbers."""

    def examine(self, run: AnyRun, tables: TrainingTables, held_out: HeldOutImages) -> dict[str, Any]:
        """Returns further results that need stored features, by name."""
        return {}

    @abstractmethod
    def score(self, held_out: HeldOutImages, predictions: list[AnyPrediction]) -> AnyScores:
        """Scores the predictions."""

    @abstractmethod
    def summarize(self, evaluated: EvaluatedRun[AnyRun, AnyPrediction, AnyScores]) -> dict[str, Any]:
        """Returns the metrics by name, and `intervals`: the 95% confidence interval by metric."""

    @abstractmethod
    def to_text(self, prediction: AnyPrediction) -> str:
        """Returns the text of a prediction."""

    @abstractmethod
    def image_columns(
        self, evaluated: EvaluatedRun[AnyRun, AnyPrediction, AnyScores]
    ) -> Mapping[str, Sequence[object]]:
        """Returns further columns of images.tsv by name, among them the primary metric of each image."""

    @abstractmethod
    def render_page(
        self,
        evaluated: EvaluatedRun[AnyRun, AnyPrediction, AnyScores],
        summary: Mapping[str, Any],
        notes: Sequence[str],
    ) -> str:
        """Renders the HTML page with the numbers of `examples`, by kind, in their order.

        `summary` is the content of scores.json.
        """

    def write_files(self, directory: Path, evaluated: EvaluatedRun[AnyRun, AnyPrediction, AnyScores]) -> dict[str, Any]:
        """Writes further files and returns their paths by name."""
        return {}

    @staticmethod
    def rank_errors(rows: Sequence[ImageRow]) -> list[int]:
        """Returns the numbers of wrong predictions in images.tsv, the worst first."""
        return [number for number, row in enumerate(rows) if row.prediction not in row.references]

    @staticmethod
    def mark_errors(prediction: str, references: Sequence[str]) -> Html:
        """Returns a prediction as markup in which what is wrong is marked; there is at least one reference."""
        return mark_wrong([prediction], [prediction not in references])

    def notes(self, summary: Mapping[str, Any], name: str) -> list[str]:
        """Returns facts that are needed to interpret the metrics of the run `name`."""
        return []

    @staticmethod
    @abstractmethod
    def print_tables(printer: Printer, results: Sequence[Mapping[str, Any]]) -> None:
        """Prints the metrics of runs."""

    def evaluate(self, run: AnyRun) -> dict[str, Any]:
        """Evaluates a run and writes the results to its directory.

        Returns:
            `run_dir`, `model`, `ensemble` (its other runs, with `--ensemble`), `datasets` (of the training),
            `evaluated_datasets` (if they are others), `split`, `epoch` (if `--epoch` is set), `best_epoch` (the
            evaluated one otherwise), the metrics by name, `intervals`, numbers of skipped images (`without_features`,
            `without_image`, `without_label`), `validation_split` (on which the best epoch was selected),
            `selected_on_test` (whether an epoch was selected on the test split of the evaluated datasets),
            `training_images` (evaluated images that are training images), `data_digest` (digest of images and
            references), and the paths of the files: `scores_path`, `images_path`, `page_path` and the task's own paths.
        """
        store = open_store(find_store(run, self.options))

        def open_tables() -> TrainingTables:
            trained = run.open_tables(store)
            return select_held_out_tables(store, trained, self.options.dataset, self.options.caption_table)

        with hold_snapshot(store.path, open_tables) as tables:
            held_out = self.load(run, tables, self.options.split)
            predictions = self._predict_all(run, tables, held_out)
            examined = self.examine(run, tables, held_out)
            evaluated = EvaluatedRun(run, tables, held_out, predictions, self.score(held_out, predictions))
            return self._summarize_and_write(evaluated, examined)

    def _summarize_and_write(
        self, evaluated: EvaluatedRun[AnyRun, AnyPrediction, AnyScores], examined: Mapping[str, Any]
    ) -> dict[str, Any]:
        run, held_out = evaluated.run, evaluated.held_out
        ensemble = [str(path) for path in run.ensemble_paths]
        best = run.best_epoch
        others = [] if set(evaluated.datasets) == set(run.metadata.datasets) else list(evaluated.datasets)
        summary = {
            "model": run.metadata.model,
            **({"ensemble": ensemble} if ensemble else {}),
            "datasets": list(run.metadata.datasets),
            **({"evaluated_datasets": others} if others else {}),
            "split": held_out.split,
            **({"epoch": run.epoch} if run.epoch else {"best_epoch": best} if best else {}),
            **self.summarize(evaluated),
            **held_out.skipped,
            "validation_split": run.metadata.validation_split,
            "selected_on_test": "test" in run.validation_splits and not others,
            "training_images": run.count_training_images(held_out.keys),
            "data_digest": held_out.digest,
            **examined,
        }
        on_others = f"on-{'+'.join(sorted(others))}" if others else ""
        directory = run.path / EVALUATION / run.evaluation_name / on_others / held_out.split
        try:
            paths = self._write(directory, evaluated, summary)
        except OSError as error:
            raise CaptError(f"the results cannot be written: {error.strerror}", location=str(directory)) from None
        return {"run_dir": str(run.path), **summary, **paths}

    def all_notes(self, results: Sequence[Mapping[str, Any]]) -> list[str]:
        """Returns the notes for the results of all runs, without duplicates."""
        notes = [note for summary in results for note in self._notes(summary, summary["run_dir"])]
        if len({summary["data_digest"] for summary in results}) > 1:
            notes.append("The runs were evaluated on different data. Their metrics are not comparable.")
        return list(dict.fromkeys(notes))

    def _notes(self, summary: Mapping[str, Any], name: str) -> list[str]:
        notes, wanted, split = list(self.notes(summary, name)), self.options.split, summary["split"]
        if split != wanted:
            notes.append(f"{name}: the split {wanted} has no references. Evaluated on {split} instead.")
        notes += [f"{name}: {text}: {summary[key]:,}." for key, text in SKIPPED.items() if summary.get(key)]
        if summary["training_images"]:
            share = f"{summary['training_images']:,} of {summary['images']:,} images are training images"
            notes.append(f"{name}: {share}. The metrics are biased upward.")
        if split == "test" and summary["selected_on_test"]:
            notes.append(f"{name}: the best epoch was selected on test. The metrics are biased upward.")
        return notes

    def _predict_all(self, run: AnyRun, tables: TrainingTables, held_out: HeldOutImages) -> list[AnyPrediction]:
        predictions: list[AnyPrediction] = []
        tables.features.ensure_local(held_out.rows)
        with progress_bar(f"evaluating on {held_out.split}", len(held_out.names), "images") as show:
            for start in range(0, len(held_out.names), self.batch_size):
                features = tables.features.read(held_out.rows[start : start + self.batch_size])
                predictions += self.predict(run, features, range(start, start + len(features)))
                show(len(predictions), "")
        return predictions

    def _write(
        self, directory: Path, evaluated: EvaluatedRun[AnyRun, AnyPrediction, AnyScores], summary: Mapping[str, Any]
    ) -> dict[str, Any]:
        write(directory / SCORES, f"{json.dumps(summary, indent=1)}\n".encode())
        names = evaluated.held_out.names
        table = {
            "image": [evaluated.tables.name_image(*name) for name in names],
            "prediction": list(map(self.to_text, evaluated.predictions)),
            "references": [json.dumps(evaluated.held_out.references[name], ensure_ascii=False) for name in names],
            **self.image_columns(evaluated),
        }
        lines = ["\t".join(table), *("\t".join(map(str, row)) for row in zip(*table.values(), strict=True))]
        write(directory / IMAGES, ("\n".join(lines) + "\n").encode())
        paths = self.write_files(directory, evaluated)
        page = directory / self.page
        # The page of an earlier evaluation would not match the other files.
        page.unlink(missing_ok=True)
        has_page = any(self.examples.values())
        if has_page:
            notes = self._notes(summary, evaluated.run.path.name)
            write(page, self.render_page(evaluated, summary, notes).encode())
        return {
            "scores_path": str(directory / SCORES),
            "images_path": str(directory / IMAGES),
            **paths,
            "page_path": str(page) if has_page else None,
        }


def parse_examples(text: str, default: int) -> dict[ExampleKind, int]:
    """Parses `best,worst,random:10`: the number of examples by kind, in order; `default` if a kind has no number.

    Raises:
        UsageError: A kind is unknown or named twice, or its number is not one.
    """
    examples: dict[ExampleKind, int] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        kind = next((one for one in _KINDS if one == name), None)
        if kind is None:
            raise _examples_error(f"{name!r} is not a kind of examples")
        if kind in examples:
            raise _examples_error(f"{kind} is named twice")
        if colon and not (number.isascii() and number.isdecimal()):
            raise _examples_error(f"{number!r} is not a number of examples")
        examples[kind] = int(number) if colon else default
    return examples


def select_random(images: int, count: int, seed: int) -> list[int]:
    """Returns at most `count` distinct numbers below `images`; a larger count adds numbers."""
    order: list[int] = np.random.default_rng(seed).permutation(images)[:count].tolist()
    return order


def _examples_error(problem: str) -> UsageError:
    hint = "Use best, worst and random, each with an optional number, such as best,worst,random:10."
    return UsageError(problem, location="--examples", hint=hint)


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Evaluates runs of one task on the images of a split. With `answers`, grades answer files instead.

    Returns:
        `task`; `runs`, the results of `trainer.evaluation.evaluate.Evaluation.evaluate` per run; `notes`. The result
        of a single run is also merged into the result itself. With `answers`, the result of
        `trainer.evaluation.answers.grade_answers`.

    Raises:
        UsageError: There is no run, the runs have different tasks, an option does not fit, or the store is unknown.
        StoreError: A run cannot be read, or the store lacks one of its tables.
        CaptError: The split has no usable images, or pycocoevalcap is not installed.
    """
    if options.answers:
        return grade_answers(options)
    if not options.runs:
        hint = "Name a run, or grade answer files by --answers FILE --labels FILE."
        raise UsageError("a value is required", location="RUN", hint=hint)
    for flag, value in (("--ids", options.ids), ("--fold-case", options.fold_case)):
        if value:
            raise UsageError("this option is only valid with --answers", location=flag, hint="Omit the option.")
    runs: list[Run] = [load_run(run, options.epoch) for run in options.runs]
    tasks = {run.metadata.task: run for run in runs}
    if len(tasks) > 1:
        found = ", ".join(f"{run.path.name} {run.task.description}" for run in tasks.values())
        raise UsageError(f"the runs have different tasks: {found}", hint="Evaluate the runs of one task at a time.")
    task = find_task(next(iter(tasks)))
    task.check_evaluation(options)
    if options.ensemble:
        if len(runs) > 1:
            message = f"one run is evaluated with the ensemble, got {len(runs)}"
            raise UsageError(message, location="--ensemble", hint="Name the other runs by --ensemble only.")
        runs = [task.combine(runs[0], options.ensemble)]
    evaluation = task.evaluation(options)
    for run in runs:
        find_store(run, options)
        evaluation.check_run(run)
    with evaluation:
        results = [evaluation.evaluate(run) for run in runs]
        notes = evaluation.all_notes(results)
    return {"task": task.name, **(results[0] if len(results) == 1 else {}), "runs": results, "notes": notes}


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Prints the metrics, notes and output directories of `evaluate`."""
    printer = Printer()
    if "answers" in result:
        print_grades(printer, result)
    else:
        find_task(result["task"]).evaluation.print_tables(printer, result["runs"])
    for note in result["notes"]:
        printer.line(note, "yellow")
    for summary in result.get("runs", ()):
        printer.line(f"predictions and scores: {shorten(Path(summary['scores_path']).parent)}")


def read_image_rows(directory: Path) -> list[dict[str, str]]:
    """Reads the images.tsv of an evaluation, one mapping per image; ValueError if a line has other columns.

    Returns an empty list without the file.
    """
    path = directory / IMAGES
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    header, *rows = lines or [[]]
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a line has more or fewer columns than the header")
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_predictions(directory: Path) -> list[ImageRow]:
    """Reads the images.tsv of an evaluation, typed; ValueError if a line is not one of this file."""
    try:
        return [
            ImageRow(row.pop("image"), row.pop("prediction"), tuple(map(str, json.loads(row.pop("references")))), row)
            for row in read_image_rows(directory)
        ]
    except KeyError as error:
        raise ValueError(f"the column {error} is missing") from None


def find_store(run: Run, options: Evaluate) -> Path:
    """Returns the store to evaluate on: `--store`, or that of the run; UsageError if it is unknown or has moved."""
    return parse_location(options.store) if options.store else recorded_store(run.path)


def shorten(path: str | Path) -> str:
    """Returns the path relative to the working directory if the directory contains it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)
