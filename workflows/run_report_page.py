"""Builds the HTML page of `capt report`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.table_config import SHORT_FINGERPRINT
from trainer.evaluation.bootstrap import Score
from trainer.evaluation.result_tables import result_tables
from trainer.models.layer_graph import LayerGraph
from trainer.reports.layer_figure import format_shape
from trainer.reports.markup import (
    Html,
    caption_list,
    card,
    document,
    element,
    escape,
    header,
    label,
    plot,
    row,
    section,
    table,
)
from trainer.runs.metadata import RunMetadata
from trainer.runs.run import Run
from workflows.example_pages import Example, build_example, format_duration
from workflows.experiments.report_page import format_score

if TYPE_CHECKING:
    from trainer.runs.checkpoints import Progress

_COUNTS = ("input", "ok", "cached", "duplicate", "failed")
_TABLE_FIELDS = {
    "extractor": "extractor",
    "weights": "weights",
    "layer": "output layer",
    "pooling": "pooling",
    "resize": "resize method",
    "fit": "resize mode",
    "precision": "precision of the features",
    "dtype": "storage dtype",
}
_NOT_IN_TABLE = {"epoch", "monitored"}


@dataclass(frozen=True)
class Setting:
    """A hyperparameter of a run with its default; `of_model` tells whether it is one of the model or of training."""

    name: str
    value: Any
    default: Any
    of_model: bool

    @property
    def is_changed(self) -> bool:
        """Whether the value differs from its default. `auto` stands for several values."""
        return bool(self.value != self.default and self.default != "auto")


@dataclass(frozen=True)
class Preparation:
    """The last run of a `capt prepare` command on a dataset: records by status, and failed ones by reason."""

    dataset: str
    command: str
    counts: Mapping[str, int]
    failures: Mapping[str, int]


@dataclass(frozen=True)
class StoreContent:
    """The data of a run in its store.

    Args:
        path: The store.
        records: Numbers of images and captions by split.
        skipped: Numbers of unusable records by reason and split.
        preparations: The last runs of the preparing commands.
        samples: Training images with their captions or labels.
        images: Encoded images of shown errors by name; None if an image cannot be read.
        numerics: Numerics classes of the features.
        toolchain: Library versions that computed the features.
        is_changed: Whether the train split differs from that of the training.
    """

    path: Path
    records: Mapping[str, Mapping[str, int]]
    skipped: Mapping[str, Mapping[str, int]]
    preparations: Sequence[Preparation]
    samples: Sequence[Example]
    images: Mapping[str, bytes | None]
    numerics: Sequence[str]
    toolchain: Mapping[str, str]
    is_changed: bool


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an earlier `capt evaluate`.

    Args:
        directory: Directory of its files.
        split: The split.
        epoch: The epoch; None for the best one.
        other_datasets: The datasets, if they are not those of the training.
        ensemble: The other runs of an ensemble.
        summary: Content of scores.json.
        scores: The metrics by name.
        notes: Facts that are needed to interpret them.
    """

    directory: Path
    split: str
    epoch: int | None
    other_datasets: tuple[str, ...]
    ensemble: tuple[str, ...]
    summary: Mapping[str, Any]
    scores: Mapping[str, Score]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """The split, and what differs from an evaluation of the best epoch on the dataset of the training."""
        datasets = f" of {', '.join(self.other_datasets)}" if self.other_datasets else ""
        epoch = f", epoch {self.epoch}" if self.epoch else ""
        ensemble = f", ensemble of {len(self.ensemble) + 1} runs" if self.ensemble else ""
        return f"{self.split}{datasets}{epoch}{ensemble}"


@dataclass(frozen=True)
class WrongPrediction:
    """A prediction with its image, its marked text, its references, and columns of images.tsv by title."""

    name: str
    image: bytes | None
    marked: Html
    references: tuple[str, ...]
    values: Mapping[str, str]


@dataclass(frozen=True)
class RunReport:
    """The content of the page.

    Args:
        run: The run.
        progress: Its training, with the metrics of at least one epoch.
        content: Its data; None if the store cannot be read.
        settings: Its hyperparameters.
        defaults: Name of the defaults of the settings.
        graph: The layers of its model; None if they cannot be listed.
        model_figure: A figure of the layers (PNG).
        curves: The metrics by epoch (PNG).
        evaluations: Results of all evaluations.
        chosen: The evaluation of `errors`.
        errors: The shown errors, the worst first.
        num_errors: Number of all errors.
        evaluate_command: The command that evaluates the run.
        machine: The machine of the last training command; None if unknown.
        learning_curve: The result and the figure (PNG) of `--learning-curve`; None without one.
        notes: Facts that limit the report.
    """

    run: Run
    progress: "Progress"
    content: StoreContent | None
    settings: Sequence[Setting]
    defaults: str
    graph: LayerGraph | None
    model_figure: bytes | None
    curves: bytes
    evaluations: Sequence[EvaluationResult]
    chosen: EvaluationResult | None
    errors: Sequence[WrongPrediction]
    num_errors: int
    evaluate_command: str
    machine: Mapping[str, Any] | None
    learning_curve: tuple[Mapping[str, Any], bytes] | None
    notes: Sequence[str]

    @property
    def is_finished(self) -> bool:
        """Whether training has reached its last epoch, or has stopped early."""
        training = self.run.metadata.training
        return self.progress.epoch >= training.num_epochs or self.progress.stops_early(training.early_stopping_patience)


def build_run_report(report: RunReport) -> str:
    """Builds the page as an HTML document."""
    title = f"Report: {report.run.path.name}"
    return document(
        title,
        header(title, _headline(report), [*_progress_notice(report), *report.notes], _tiles(report)),
        element(
            "main",
            section("Data", *_build_data(report)),
            section("Training images", _build_samples(report)),
            section("Model", *_build_model(report)),
            section("Settings", *_build_settings(report)),
            section("Curves", *_build_curves(report)),
            *_build_learning_curve(report),
            section("Scores", *_build_scores(report)),
            section("Errors", *_build_errors(report)),
            section("Machine and versions", _build_machine(report)),
            class_="report",
        ),
    )


def _headline(report: RunReport) -> str:
    metadata, task = report.run.metadata, report.run.task
    about = f"The model {metadata.model} {task.description}. Dataset: {', '.join(metadata.datasets)}."
    metric = next(iter(task.metrics))
    if report.chosen and metric in report.chosen.scores:
        score = format_score(report.chosen.scores[metric])
        return f"{about} On {report.chosen.title}, {task.metrics[metric]} × 100 is {score}."
    return about


def _progress_notice(report: RunReport) -> Iterator[str]:
    if not report.is_finished:
        yield f"Training is not finished: {report.progress.epoch} of {report.run.metadata.training.num_epochs} epochs."


def _tiles(report: RunReport) -> dict[str, object]:
    best = report.progress.best
    assert best is not None
    train = report.content.records["train"] if report.content else {"images": len(report.run.training_images)}
    tiles: dict[str, object] = {f"training {name}": f"{count:,}" for name, count in train.items()}
    if report.graph:
        tiles["weights"] = f"{sum(layer.weights for layer in report.graph.layers):,}"
    tiles["epochs"] = f"{report.progress.epoch} (best: {best.epoch})"
    tiles["training time"] = format_duration(_training_seconds(report))
    return tiles


def _training_seconds(report: RunReport) -> float:
    return sum(epoch.seconds + (epoch.val_seconds or 0) for epoch in report.progress.history)


# === Data ===


def _build_data(report: RunReport) -> Iterator[Html]:
    metadata, content = report.run.metadata, report.content
    if content:
        units = tuple(next(iter(content.records.values())))
        reasons = [reason for reason, counts in content.skipped.items() if any(counts.values())]
        rows = [
            row(
                split,
                *(f"{counts[unit]:,}" for unit in units),
                *(f"{content.skipped[reason].get(split, 0):,}" for reason in reasons),
            )
            for split, counts in content.records.items()
        ]
        yield table(("split", *units, *(reason.replace("_", " ") for reason in reasons)), rows)
        yield _note(f"Validation after each epoch: {metadata.validation_split or 'none'}.")
        yield from _build_preparations(content.preparations)
    else:
        yield _note(f"Training images: {len(report.run.training_images):,}. The store is not available.")
    yield _subtitle("Inputs")
    yield _pairs(_describe_inputs(metadata))


def _build_preparations(preparations: Sequence[Preparation]) -> Iterator[Html]:
    if not preparations:
        return
    yield _subtitle("Records of the last preparation")
    rows = [
        row(f"{one.dataset}, {one.command}", *(f"{one.counts[name]:,}" for name in _COUNTS)) for one in preparations
    ]
    yield table(("dataset, command", *_COUNTS), rows)
    failures = [
        f"{count:,} of {one.dataset}, {one.command}: {reason}"
        for one in preparations
        for reason, count in one.failures.items()
    ]
    yield element("p", "Failed records:", class_="label") if failures else Html()
    yield caption_list(failures) if failures else Html()


def _describe_inputs(metadata: RunMetadata) -> dict[str, object]:
    features, config = metadata.features, metadata.features.table_config
    described = {title: getattr(config, name) for name, title in _TABLE_FIELDS.items()}
    return {
        "image size": f"{config.height}×{config.width}",
        **{name: value for name, value in described.items() if value not in ("", None)},
        "features of an image": "×".join(map(str, features.shape)),
        "feature table": features.fingerprint[:SHORT_FINGERPRINT],
        **{
            f"captions of {origin.table_config.dataset}": f"{origin.table_config.standardization}, table "
            f"{origin.fingerprint[:SHORT_FINGERPRINT]}"
            for origin in metadata.caption_tables
        },
        **{title: f"{count:,}" for title, count in metadata.target_counts.items()},
    }


def _build_samples(report: RunReport) -> Html:
    if report.content is None:
        return _note("The store is not available, so no training images are shown.")
    cards = map(build_example, report.content.samples)
    return element("div", *cards, class_="grid") if report.content.samples else Html()


# === Model and settings ===


def _build_model(report: RunReport) -> Iterator[Html]:
    if report.graph is None or report.model_figure is None:
        yield _note("The layers cannot be listed.")
        return
    layers = report.graph.layers
    total, trainable = (sum(getattr(one, name) for one in layers) for name in ("weights", "trainable_weights"))
    yield _note(f"{len(layers)} layers, {total:,} weights, {total - trainable:,} of them not trainable.")
    yield element("div", plot(report.model_figure, "layers of the model"), class_="layers")
    rows = [
        row(one.name, one.kind, format_shape(one.output_shape) or "–", f"{one.weights:,}" if one.weights else "–")
        for one in layers
    ]
    heads = ("layer", "class", "output of one image and token", "weights")
    yield element("div", table(heads, rows), class_="listed")


def _build_settings(report: RunReport) -> Iterator[Html]:
    changed = [one.name for one in report.settings if one.is_changed]
    listed = f": {', '.join(changed)}" if changed else ""
    yield _note(
        f"{len(changed)} of {len(report.settings)} hyperparameters differ from the defaults of {report.defaults}"
        f"{listed}. They are marked by ≠."
        if changed
        else f"All hyperparameters have the defaults of {report.defaults}."
    )
    for title, of_model in (("Model", True), ("Training", False)):
        yield _subtitle(title)
        yield _pairs(dict(_describe_setting(one) for one in report.settings if one.of_model == of_model))


def _describe_setting(one: Setting) -> tuple[str, Html]:
    """Returns name and value of a hyperparameter; its default only if it differs."""
    if not one.is_changed:
        return one.name, escape(_format(one.value))
    value = element("strong", f"{_format(one.value)} (default: {_format(one.default)})")
    return f"≠ {one.name}", value


def _format(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_format, value)) or "none"
    return str(value)


# === Training and scores ===


def _build_curves(report: RunReport) -> Iterator[Html]:
    history, best = report.progress.history, report.progress.best
    assert best is not None
    yield plot(report.curves, "metrics by epoch")
    names = [name for name in history[-1].model_dump() if name not in _NOT_IN_TABLE]
    shown = {one.epoch: one for one in (history[0], best, history[-1])}
    rows = [
        row(
            f"{number} (best)" if number == best.epoch else str(number),
            *(_format_metric(getattr(one, name, None)) for name in names),
        )
        for number, one in sorted(shown.items())
    ]
    yield table(("epoch", *(name.replace("_", " ") for name in names)), rows)
    if note := report.run.confidence_note:
        yield _note(note)


def _build_learning_curve(report: RunReport) -> Iterator[Html]:
    if report.learning_curve is None:
        return
    curve, figure = report.learning_curve
    rows = [
        row(
            one["fraction"],
            f"{one['labels']:,}",
            f"{one['errors']:,} of {one['evaluated']:,}",
            format_score(Score.build(one["exact_match"], one["interval"])),
        )
        for one in curve["sizes"]
    ]
    heads = ("fraction", "labels", f"errors on {curve['split']}", "exact match × 100")
    image = plot(figure, "errors by the number of labels")
    yield section("Learning curve", _note(curve["statement"]), image, table(heads, rows))


def _format_metric(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _build_scores(report: RunReport) -> Iterator[Html]:
    if not report.evaluations:
        yield _missing_evaluation(report)
        return
    titles = report.run.task.metrics
    names = [name for name in titles if any(name in one.scores for one in report.evaluations)]
    rows = [
        row(
            one.title,
            *(format_score(one.scores[name]) if name in one.scores else "–" for name in names),
            f"{one.summary['images']:,}",
        )
        for one in report.evaluations
    ]
    yield table(("split", *(titles[name] for name in names), "images"), rows)
    yield _note("Scores × 100, with 95% confidence intervals.")
    for note in dict.fromkeys(note for one in report.evaluations for note in one.notes):
        yield _note(note)
    for one in report.evaluations:
        yield from (result.to_html() for result in result_tables(one.summary))


def _build_errors(report: RunReport) -> Iterator[Html]:
    chosen, evaluation = report.chosen, report.run.task.evaluation
    if chosen is None:
        yield _missing_evaluation(report)
        return
    images = chosen.summary["images"]
    yield _note(
        f"{evaluation.errors_title}. Shown: {len(report.errors):,} of {report.num_errors:,}, "
        f"of {images:,} images of {chosen.title}."
    )
    yield from (_build_error(one) for one in report.errors)
    for name, title in evaluation.figures.items():
        path = chosen.directory / name
        if path.exists():
            yield _subtitle(title)
            yield plot(path.read_bytes(), title)


def _build_error(one: WrongPrediction) -> Html:
    values = " · ".join(f"{title} {value}" for title, value in one.values.items())
    return card(
        one.image,
        one.name,
        label(element("code", one.name), f" {values}"),
        element("blockquote", one.marked or "(empty)", dir="auto"),
        label("references" if len(one.references) > 1 else "reference"),
        caption_list(one.references),
    )


def _missing_evaluation(report: RunReport) -> Html:
    command = element("code", report.evaluate_command)
    return element("p", "The run was not evaluated yet. Run ", command, ", then repeat this command.", class_="notice")


# === Machine ===


def _build_machine(report: RunReport) -> Html:
    machine, metadata = report.machine or {}, report.run.metadata
    described: dict[str, object] = {"training time": format_duration(_training_seconds(report))}
    if machine:
        memory = machine.get("memory_gib")
        described |= {
            "processor": f"{machine.get('processor')}, {machine.get('cores')} cores",
            **({"memory": f"{memory} GiB"} if memory else {}),
            "accelerators": ", ".join(machine.get("accelerators", ())) or "none",
            "system": machine.get("system"),
            "Python": machine.get("python"),
        }
    described |= {f"{name} of the training": version for name, version in metadata.libraries.items()}
    if report.content:
        versions = ", ".join(f"{name} {version}" for name, version in report.content.toolchain.items())
        described |= {
            "numerics of the features": ", ".join(report.content.numerics) or "unknown",
            **({"libraries of the features": versions} if versions else {}),
        }
    if not machine:
        described["machine"] = "not recorded by the run"
    return _pairs(described)


def _pairs(values: Mapping[str, object]) -> Html:
    """Builds a list of names and values in columns."""
    items = (element("div", element("dt", name), element("dd", value)) for name, value in values.items())
    return element("dl", *items, class_="pairs")


def _subtitle(text: str) -> Html:
    return element("h3", text)


def _note(text: object) -> Html:
    return element("p", escape(text), class_="quiet")
