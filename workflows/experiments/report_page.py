"""Builds the HTML page of an experiment: scores, curves, costs, captions side by side, and differences of trials."""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from features.store import Store
from schemas.errors import StoreError
from schemas.table_config import SHORT_FINGERPRINT
from trainer.evaluation.bootstrap import Score
from trainer.figures.figure_files import encode_figure
from trainer.reports.markup import (
    Html,
    caption_list,
    card,
    document,
    element,
    header,
    join,
    label,
    plot,
    row,
    section,
    table,
)
from trainer.tasks.task import Task
from workflows.example_pages import format_duration
from workflows.experiments.comparison import ComparedImage, TrialComparison
from workflows.experiments.planning import list_tables
from workflows.experiments.records import (
    CAPTIONS,
    ExperimentDirectory,
    ExperimentRecord,
    TableRecord,
    TrialResult,
    read_record,
)

_COLORS, _MANY_COLORS = "tab10", "tab20"
_REWARD = "reward"  # a metric of `objective: cider_d`
_NOT_PLOTTED = {"epoch", "loss", "seconds", "val_seconds"}
_LINE_INCHES = 0.22

Epochs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class TrialEntry:
    """A trial on the page: its settings, defaults included; its result, unless it is pending; its scores, if any."""

    name: str
    settings: Mapping[str, Any]
    result: TrialResult | None
    scores: Mapping[str, Score]

    @property
    def state(self) -> str:
        """`done`, `failed` or `pending`."""
        return self.result.status if self.result else "pending"

    @property
    def reason(self) -> str:
        """Reason of the failure."""
        return self.result.reason if self.result else ""


def build_experiment_page(
    title: str,
    headline: str,
    notices: Sequence[str],
    values: Mapping[str, object],
    task: Task,
    comparison: TrialComparison,
    trials: Sequence[TrialEntry],
    curves: bytes | None,
    table_costs: Html,
    images: Sequence[ComparedImage],
) -> str:
    """Builds the page, to be written as UTF-8.

    Notices limit the result. The trials are sorted: best first, then those without scores. `curves` and `table_costs`
    are results of `plot_curves` and `build_table_costs`.
    """
    note = "Full lines: validation. Dotted lines: training."
    unscored = [row(trial.name, trial.state, trial.reason) for trial in trials if not trial.scores]
    return document(
        title,
        header(title, headline, notices, values),
        element(
            "main",
            section("Scores × 100 with 95% confidence intervals", _build_scores(trials, task)),
            section("Trials without scores", _build_rows(unscored) if unscored else ""),
            section("Learning curves", plot(curves, "loss and accuracy by epoch", note) if curves else ""),
            section("Durations and sizes", _build_trial_costs(trials), table_costs),
            section("Predictions for the same images", *(_build_image(image, task) for image in images)),
            section("Settings that vary", _build_varying(trials)),
            section("Differences between two trials", _build_differences(trials, comparison, task.metrics)),
        ),
    )


def format_score(score: Score) -> str:
    """Returns a score times 100 with its confidence interval."""
    if score.interval is None:
        return f"{100 * score.value:.1f}"
    low, high = score.interval
    return f"{100 * score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def is_significant(difference: Score) -> bool:
    """Returns whether the confidence interval of a difference excludes 0."""
    return difference.interval is not None and not difference.interval[0] <= 0 <= difference.interval[1]


# === Scores and costs ===


def _build_scores(trials: Sequence[TrialEntry], task: Task) -> Html:
    scored = [trial for trial in trials if trial.scores]
    names = [name for name in task.metrics if any(name in trial.scores for trial in scored)]
    best: dict[str, float | None] = {}
    for name in names:
        values = {trial.scores[name].value for trial in scored if name in trial.scores}
        best[name] = None if len(values) < 2 else min(values) if name in task.lower_is_better else max(values)
    rows = [
        row(
            trial.name,
            *(_build_score(trial.scores.get(name), best[name]) for name in names),
            f"{trial.result.evaluated['images']:,}",
        )
        for trial in scored
        if trial.result
    ]
    return table(("trial", *(task.metrics[name] for name in names), "images"), rows)


def _build_score(score: Score | None, best: float | None) -> Html:
    if score is None:
        return element("td", "–")
    text = format_score(score)
    return element("td", text, class_="best") if score.value == best else element("td", text)


def _build_rows(rows: Sequence[Html]) -> Html:
    return element("table", element("tbody", *rows), class_="predictions")


def _build_trial_costs(trials: Sequence[TrialEntry]) -> Html:
    rows = [
        row(
            trial.name,
            f"{result.trained['best_epoch']} of {result.trained['epochs']}",
            format_duration(result.seconds["training"]),
            format_duration(result.seconds["evaluation"]),
            _format_size(result.bytes),
        )
        for trial in trials
        if (result := trial.result) and result.seconds
    ]
    return table(("trial", "best epoch", "training", "evaluation", "run directory"), rows)


def build_table_costs(directory: ExperimentDirectory, record: ExperimentRecord, store: Store | None) -> Html:
    """Builds a table of the prepared tables: durations of their preparations, and rows and sizes if they exist."""
    config, rows = record.config, []
    for key, trials in Counter(key for trial in record.trials for key in list_tables(config, trial)).items():
        command = config.training_task.preparations[key.kind].command
        label = config.label_table(key.name, key.dataset, key.vocabulary)
        prepared = read_record(directory.table(command, label), TableRecord)
        if not prepared:
            continue
        found: Any = None
        if store:
            find = store.caption_table if key.kind == CAPTIONS else store.feature_table
            with contextlib.suppress(StoreError):
                found = find(prepared.fingerprint)
        cells = (
            prepared.fingerprint[:SHORT_FINGERPRINT],
            trials,
            f"{sum(shard.rows for shard in found.shards):,}" if found else "–",
            format_duration(prepared.seconds),
            _format_size(found.bytes) if found else "–",
        )
        rows.append(row(f"{command}: {label}", *cells))
    return table(("table", "fingerprint", "trials", "rows", "preparation", "size in the store"), rows)


def _format_size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


# === Learning curves ===


def plot_curves(trials: Mapping[str, Epochs]) -> bytes | None:
    """Plots the loss and the first other metric of all trials as PNG, one color each; None if no epoch is finished.

    Full lines show validation, dotted lines training. The training loss of `objective: cider_d` is omitted, because it
    is not a cross-entropy.
    """
    started = {name: epochs for name, epochs in trials.items() if epochs}
    if not started:
        return None
    figure = Figure(figsize=(11, 4.2 + _LINE_INCHES * len(started)), layout="constrained")
    panels = [figure.add_subplot(1, 2, number) for number in (1, 2)]
    names = [{name.removeprefix("val_"): None for name in epochs[0]} for epochs in started.values()]
    metrics = [name for name in names[0] if name not in _NOT_PLOTTED]
    metric = next((name for name in metrics if all(name in one for one in names)), metrics[0])
    for axes, name, title in zip(panels, ("loss", metric), ("loss (nats)", metric.replace("_", " ")), strict=True):
        axes.set(xlabel="epoch", ylabel=title)
        _plot_metric(axes, started, name)
    lines, labels = panels[0].get_legend_handles_labels()
    # Matplotlib would parse a dollar sign as the beginning of a formula.
    figure.legend(lines, [label.replace("$", r"\$") for label in labels], loc="outside lower left", frameon=False)
    return encode_figure(figure, "png")


def _plot_metric(axes: Axes, trials: Mapping[str, Epochs], name: str) -> None:
    few = colormaps[_COLORS]
    colors = few if len(trials) <= few.N else colormaps[_MANY_COLORS]
    for number, (trial, epochs) in enumerate(trials.items()):
        color = colors(number % colors.N)
        validation = [(one["epoch"], one[f"val_{name}"]) for one in epochs if one.get(f"val_{name}") is not None]
        is_comparable = name != "loss" or _REWARD not in epochs[0]
        training = [(one["epoch"], one[name]) for one in epochs if name in one and is_comparable]
        # A trial without the metric has a curve without a point, so that the legend lists it.
        axes.plot(*zip(*(validation or training or [(1, math.nan)]), strict=True), marker=".", color=color, label=trial)
        if validation and training:
            axes.plot(*zip(*training, strict=True), linestyle=":", color=color)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


# === Images ===


def _build_image(image: ComparedImage, task: Task) -> Html:
    rows = []
    for trial, text in image.predictions.items():
        marked = task.evaluation.mark_errors(text, image.references) if image.references else text
        shown = element("span", marked, dir="auto") if text else element("span", "(empty)", class_="quiet")
        rows.append(row(trial, element("td", shown)))
    return card(
        image.image,
        f"image {image.image_id}",
        label(element("code", image.image_id)),
        caption_list(image.references),
        _build_rows(rows),
    )


# === Differences of trials ===


def _build_varying(trials: Sequence[TrialEntry]) -> Html:
    settings = [trial.settings for trial in trials]
    names = dict.fromkeys(name for one in settings for name in one)
    varying = [name for name in names if any(one.get(name) != settings[0].get(name) for one in settings)]
    rows = [row(trial.name, *(_format_value(trial.settings.get(name)) for name in varying)) for trial in trials]
    return table(("trial", *varying), rows) if varying else Html()


def _build_differences(trials: Sequence[TrialEntry], comparison: TrialComparison, titles: Mapping[str, str]) -> Html:
    """Builds a foldable table per trial with its differences from all others, without a script."""
    parts = []
    for trial in trials if len(trials) > 1 else ():
        rows = [
            row(other.name, _build_difference(trial, other, comparison, titles))
            for other in trials
            if other is not trial
        ]
        summary = element("summary", "from ", element("b", trial.name), " to …")
        changes = element("table", element("tbody", *rows), class_="changes")
        parts.append(element("details", summary, changes, class_="changes"))
    return join(parts)


def _build_difference(old: TrialEntry, new: TrialEntry, comparison: TrialComparison, titles: Mapping[str, str]) -> Html:
    """Builds the settings that differ, and the primary metric, in bold if its difference is significant."""
    lines: list[object] = [
        _build_change(name, old.settings[name], new.settings[name])
        for name in old.settings
        if name in new.settings and old.settings[name] != new.settings[name]
    ]
    lines = lines or ["equal settings"]
    for trial, other in ((old, new), (new, old)):
        if names := [name for name in trial.settings if name not in other.settings]:
            lines.append(element("span", f"only {trial.name} has {', '.join(names)}", class_="quiet"))
    if old.scores and new.scores:
        metric, title = next(iter(titles.items()))
        line = _build_change(title, format_score(old.scores[metric]), format_score(new.scores[metric]))
        difference = comparison.difference(old.name, new.name)
        if difference:
            line = join([line, f", difference {format_score(difference)}"])
        lines.append(element("b", line) if difference and is_significant(difference) else line)
    return element("td", join(lines, "<br>"))


def _build_change(name: str, old: Any, new: Any) -> Html:
    return join([element("code", name), f": {_format_value(old)} → {_format_value(new)}"])


def _format_value(value: Any) -> str:
    return "–" if value is None else str(value)
