"""Implements `capt report`: describes a run on one HTML page. It trains and evaluates nothing.

run directory → settings, curves, scores, errors, machine
store of the run → records by split, failed records, training images, images of the errors
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from features.inputs.file_reference import read_source_image
from features.io.locations import parse_location
from features.store import Dataset, Store, open_store
from features.store.leases import hold_snapshot
from features.store.run_reports import latest_reports, summarize_report
from schemas.errors import CaptError, CorruptFileError, StoreError, UsageError, to_record_error
from schemas.manifests import FeatureMetadata
from schemas.options.inference import Evaluate, Report
from schemas.strict_json import parse_json
from schemas.tables import SPLITS
from schemas.terminal.console import Printer
from trainer.config import Hyperparameters
from trainer.data.table_selection import TrainingTables
from trainer.evaluation.evaluate import IMAGES, SCORES, ImageRow, read_predictions, shorten
from trainer.figures.figure_files import encode_figure
from trainer.models.layer_graph import LayerGraph, trace_layers
from trainer.reports.layer_figure import layer_figure
from trainer.reports.page_files import check_page_path, write_page
from trainer.runs.directory import (
    EVALUATION,
    LEARNING_CURVE,
    LEARNING_CURVE_FIGURE,
    LEARNING_CURVE_RESULT,
    MACHINE,
    REPORT,
    recorded_store,
)
from trainer.runs.run import Run, load_run
from workflows.example_pages import Example, ExampleCaption
from workflows.run_report_page import (
    EvaluationResult,
    Preparation,
    RunReport,
    Setting,
    StoreContent,
    WrongPrediction,
    build_run_report,
)

_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?")
_SPLIT_ORDER = ("test", "val", "train", "unused")


def report_run(options: Report) -> dict[str, Any]:
    """Writes the report of a run.

    Returns:
        `run_dir`, `page_path`, `task`, `model`, `datasets`; `epochs` (finished), `is_finished` and `best_epoch`;
        `records` (numbers of images and captions by split) and `failed` (failed records of the last preparations),
        null if the store cannot be read; `changed_settings` (`value` and `default` by name), `weights` (number, null if
        the layers cannot be listed), `evaluations` (`split`, `epoch`, `datasets`, `ensemble` (other runs),
        `images` and `metrics` each), `errors` (`split`,
        `wrong` or ranked predictions, and `shown`; null without an evaluation), `samples` (shown training images), and
        `notes`.

    Raises:
        UsageError: The output is a directory, or the run was not evaluated on `split`.
        StoreError: The directory does not contain a run, or `store` cannot be read.
        CorruptFileError: The run has no checkpoint yet, or one of its files is corrupt.
        CaptError: No epoch is finished yet, or the page cannot be written.
    """
    run: Run = load_run(options.run)
    path = check_page_path(options.output or run.path / REPORT, "--output")
    evaluations = _read_evaluations(run)
    chosen = _choose_evaluation(run, evaluations, options.split)
    progress = run.read_progress()
    if progress.best is None:
        hint = "Repeat the training command until it ends."
        raise CaptError("no epoch of the run is finished yet", location=str(run.path), hint=hint)
    rows, ranked = _read_errors(run, chosen)
    notes = []
    content: StoreContent | None = None
    shown = [rows[number] for number in ranked[: options.num_examples]]
    try:
        content = _read_store(run, options, chosen, [row.name for row in shown])
    except CaptError as error:
        if options.store:
            raise
        notes.append(f"The data of the run cannot be shown. {error}")
    graph, problem = _trace(run)
    notes += [*_list_notes(run, content), *_list_outdated(evaluations, progress.best.epoch)]
    notes += [problem] if problem else []
    settings = _list_settings(run)
    report = RunReport(
        run=run,
        progress=progress,
        content=content,
        settings=settings,
        defaults=run.task.default_training(run.metadata)[0],
        graph=graph,
        model_figure=encode_figure(layer_figure(graph, run.metadata.model), "png") if graph else None,
        curves=_plot_curves(run, progress.history),
        evaluations=evaluations,
        chosen=chosen,
        errors=[_describe_error(run, content, row) for row in shown],
        num_errors=len(ranked),
        evaluate_command=f"capt evaluate {shlex.quote(shorten(run.path))}",
        machine=_read_json(run.path / MACHINE),
        learning_curve=_read_learning_curve(run),
        notes=notes,
    )
    write_page(path, build_run_report(report))
    return _summarize(report, path)


def print_report(result: Mapping[str, Any]) -> None:
    """Prints the notes of `report_run`, and the path of the page."""
    printer = Printer()
    for note in result["notes"]:
        printer.line(note, "yellow")
    printer.line(f"report of {shorten(result['run_dir'])}: {shorten(result['page_path'])}")


def _summarize(report: RunReport, path: Path) -> dict[str, Any]:
    run, content, best = report.run, report.content, report.progress.best
    assert best is not None
    return {
        "run_dir": str(run.path),
        "page_path": str(path),
        "task": run.task.name,
        "model": run.metadata.model,
        "datasets": list(run.metadata.datasets),
        "epochs": report.progress.epoch,
        "is_finished": report.is_finished,
        "best_epoch": best.epoch,
        "records": {split: dict(counts) for split, counts in content.records.items()} if content else None,
        "failed": sum(one.counts["failed"] for one in content.preparations) if content else None,
        "changed_settings": {
            one.name: {"value": one.value, "default": one.default} for one in report.settings if one.is_changed
        },
        "weights": sum(layer.weights for layer in report.graph.layers) if report.graph else None,
        "evaluations": [
            {
                "split": one.split,
                "epoch": one.epoch,
                "datasets": list(one.other_datasets or run.metadata.datasets),
                "ensemble": list(one.ensemble),
                "images": one.summary["images"],
                "metrics": {name: score.value for name, score in one.scores.items()},
            }
            for one in report.evaluations
        ],
        "errors": {"split": report.chosen.split, "ranked": report.num_errors, "shown": len(report.errors)}
        if report.chosen
        else None,
        "samples": len(content.samples) if content else 0,
        "notes": list(report.notes),
    }


# === Run directory ===


def _list_settings(run: Run) -> list[Setting]:
    metadata = run.metadata
    values = Hyperparameters({}, metadata.model, metadata.training, metadata.config).to_dict(resolve=False)
    _, defaults = run.task.default_training(metadata)
    architecture = type(metadata.config).model_fields
    try:
        config = metadata.default_config
    except ValidationError:  # A model of one's own may have hyperparameters without a default.
        config = metadata.config
    config = config.model_copy(update={name: value for name, value in defaults.items() if name in architecture})
    training = type(metadata.training)(**{name: value for name, value in defaults.items() if name not in architecture})
    default = Hyperparameters({}, metadata.model, training, config).to_dict(resolve=False)
    return [Setting(name, value, default[name], name in architecture) for name, value in values.items()]


def _trace(run: Run) -> tuple[LayerGraph | None, str]:
    """Returns the layers of the model; or None, and the reason."""
    from features.runtime.keras_settings import compute_in

    try:
        with compute_in("float32"):
            return trace_layers(run.metadata.build(run.path), run.metadata.features.shape), ""
    except CaptError as error:
        return None, f"The layers cannot be listed. {error}"
    except Exception as error:  # The model may be the user's: any error is possible.
        return None, f"The layers cannot be listed. {to_record_error('trace', error)}"


def _plot_curves(run: Run, history: Sequence[Any]) -> bytes:
    plot = run.task.job_class().plot
    return encode_figure(plot(history, from_zero=run.metadata.training.plot_from_zero), "png")


def _read_json(path: Path) -> dict[str, Any] | None:
    """Reads a file of the run directory; None if it does not exist."""
    try:
        return dict(parse_json(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise CorruptFileError(f"the file is corrupt: {error}", location=str(path)) from None


def _read_learning_curve(run: Run) -> tuple[dict[str, Any], bytes] | None:
    """Returns the result and the figure of `--learning-curve`; None without one."""
    directory = run.path / LEARNING_CURVE
    curve = _read_json(directory / LEARNING_CURVE_RESULT)
    return (curve, (directory / LEARNING_CURVE_FIGURE).read_bytes()) if curve else None


def _list_notes(run: Run, content: StoreContent | None) -> list[str]:
    notes = []
    if run.metadata.validation_split is None:
        notes.append("The run had no validation data. The best epoch was selected by training metrics.")
    if run.metadata.validation_split == "test":
        notes.append("The best epoch was selected on test. Scores on test are biased upward.")
    if content and content.is_changed:
        notes.append("The store has changed since the training. Data and training images are those of today.")
    return notes


# === Evaluations ===


def _list_outdated(results: Sequence[EvaluationResult], best: int) -> list[str]:
    """Returns a note for each evaluation of an epoch that was the best one then, and is not any more."""
    return [
        f"The run was trained after its evaluation on {one.title}: its best epoch was {one.summary['best_epoch']}, and "
        f"is {best} now. Repeat the `capt evaluate` command."
        for one in results
        if one.summary.get("best_epoch", best) != best
    ]


def _read_evaluations(run: Run) -> list[EvaluationResult]:
    """Reads the results of all evaluations of the run: those of the best epoch first, and test before other splits.

    Evaluations of an ensemble and on other datasets are last.
    """
    results = [_read_evaluation(run, path) for path in sorted((run.path / EVALUATION).rglob(SCORES))]
    return sorted(
        results, key=lambda one: (one.ensemble, one.other_datasets, one.epoch or 0, _SPLIT_ORDER.index(one.split))
    )


def _read_evaluation(run: Run, path: Path) -> EvaluationResult:
    try:
        summary = dict(parse_json(path.read_bytes()))
        evaluation = run.task.evaluation(Evaluate(runs=(str(run.path),), split=summary["split"]))
        notes = evaluation.all_notes([{**summary, "run_dir": run.path.name}])
        scores = run.task.read_scores(summary)
        return EvaluationResult(
            directory=path.parent,
            split=summary["split"],
            epoch=summary.get("epoch"),
            other_datasets=tuple(summary.get("evaluated_datasets", ())),
            ensemble=tuple(summary.get("ensemble", ())),
            summary=summary,
            scores=scores,
            notes=notes,
        )
    except (ValueError, KeyError, TypeError) as error:
        hint = "Repeat the `capt evaluate` command."
        raise CorruptFileError(f"the file is corrupt: {error}", location=str(path), hint=hint) from None


def _choose_evaluation(run: Run, results: Sequence[EvaluationResult], split: str | None) -> EvaluationResult | None:
    """Returns the evaluation whose errors are shown; None without one, UsageError if there is none of `split`."""
    fitting = [one for one in results if split in (None, one.split)]
    if split and not fitting:
        found = ", ".join(dict.fromkeys(one.split for one in results)) or "none"
        raise UsageError(
            f"the run was not evaluated on {split} (evaluated splits: {found})",
            location="--split",
            hint=f"Run `capt evaluate {shlex.quote(shorten(run.path))} --split {split}`, or omit the option.",
        )
    return fitting[0] if fitting else None


def _read_errors(run: Run, chosen: EvaluationResult | None) -> tuple[list[ImageRow], list[int]]:
    """Returns the predictions of an evaluation, and the numbers of the wrong ones, the worst first."""
    if chosen is None:
        return [], []
    try:
        rows = read_predictions(chosen.directory)
        return rows, run.task.evaluation.rank_errors(rows)
    except (ValueError, KeyError, IndexError) as error:
        location, hint = str(chosen.directory / IMAGES), "Repeat the `capt evaluate` command."
        raise CorruptFileError(f"the file is corrupt: {error}", location=location, hint=hint) from None


def _describe_error(run: Run, content: StoreContent | None, row: ImageRow) -> WrongPrediction:
    evaluation = run.task.evaluation
    marked = evaluation.mark_errors(row.prediction, row.references)
    image = content.images.get(row.name) if content else None
    values = {title: _round(row.values.get(name, "–")) for name, title in evaluation.error_columns.items()}
    return WrongPrediction(row.name, image, marked, row.references, values)


def _round(text: str) -> str:
    """Rounds a number; a label such as `nan` is not one."""
    return f"{float(text):.3f}" if _NUMBER.fullmatch(text) else text


# === Store ===


def _read_store(run: Run, options: Report, chosen: EvaluationResult | None, names: Sequence[str]) -> StoreContent:
    """Reads the data of the run, and the images of an evaluation with these names."""
    store = open_store(parse_location(options.store) if options.store else recorded_store(run.path))
    task = run.task
    with hold_snapshot(store.path, lambda: run.metadata.open_tables(store)) as tables:
        data, unit = task.load_data(tables), task.job_class().unit
        train = task.evaluation(Evaluate(runs=(str(run.path),))).load(run, tables, "train")
        samples = [
            Example(
                read_source_image(train.catalog[name]),
                run.name_image(*name),
                "train",
                tuple(map(ExampleCaption, train.references[name])),
            )
            for name in train.names[: options.num_examples]
        ]
        facts = [one.facts for one in tables.features.manifests if isinstance(one.facts, FeatureMetadata)]
        return StoreContent(
            path=store.path,
            records={
                split: {"images": len(data.splits[split].keys), unit: len(data.splits[split])}
                for split in SPLITS
                if split in data.splits
            },
            skipped=data.skipped,
            preparations=_read_preparations(tables),
            samples=samples,
            images=_read_images(_find_evaluated(store, tables, chosen), names),
            numerics=tuple(dict.fromkeys(one.numerics for one in facts)),
            toolchain=dict(facts[-1].toolchain) if facts else {},
            is_changed=data.train.digest != run.metadata.train_digest,
        )


def _read_preparations(tables: TrainingTables) -> list[Preparation]:
    preparations = []
    for dataset in tables.datasets:
        for path in latest_reports(dataset.root):
            summary = summarize_report(path)
            failures = {f"{one['stage']}: {one['reason']}": one["count"] for one in summary.pop("failures")}
            preparations.append(Preparation(dataset.name, path.stem, summary, failures))
    return preparations


def _find_evaluated(store: Store, tables: TrainingTables, chosen: EvaluationResult | None) -> Sequence[Dataset]:
    """Returns the datasets of an evaluation; none if it was on others, and one of them was removed."""
    others = chosen.other_datasets if chosen else ()
    try:
        return tuple(map(store.dataset, others)) or tables.datasets
    except StoreError:
        return ()


def _read_images(datasets: Sequence[Dataset], names: Sequence[str]) -> dict[str, bytes | None]:
    """Returns encoded images by their names in results; None if an image is missing or has changed."""
    images: dict[str, bytes | None] = {}
    for dataset in datasets:
        prefix, catalog = f"{dataset.name}/" if len(datasets) > 1 else "", dataset.catalog()
        image_ids = pa.array([name.removeprefix(prefix) for name in names if name.startswith(prefix)], pa.string())
        for row in catalog.filter(pc.is_in(catalog["image_id"], value_set=image_ids)).to_pylist():
            images[f"{prefix}{row['image_id']}"] = read_source_image(row)
    return images
