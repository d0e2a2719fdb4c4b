"""Builds the HTML page of an experiment: scores, curves, costs, captions side by side, and differences of trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.evaluation.bootstrap import Score
from trainer.reports.markup import (
    Html,
    caption_list,
    card,
    document,
    element,
    header,
    join,
    label,
    mark_wrong,
    plot,
    row,
    section,
    table,
)
from workflows.example_pages import format_duration
from workflows.experiments.caption_comparison import ComparedImage, TrialPrediction
from workflows.experiments.comparison import (
    Change,
    Settings,
    TrialComparison,
    list_changes,
    list_missing,
    list_varying,
)

_LOWER_IS_BETTER = ("cer",)


@dataclass(frozen=True)
class TableCost:
    """The size of a table in the store, and the duration of its preparation in seconds.

    Args:
        kind: Command of `capt prepare`.
        name: Name in the experiment file.
        fingerprint: Beginning of the fingerprint.
        trials: Number of trials that use the table.
        rows: Number of rows; None if the table is not available.
        bytes: Size in the store; None if the table is not available.
        seconds: Duration of the preparation.
    """

    kind: str
    name: str
    fingerprint: str
    trials: int
    rows: int | None
    bytes: int | None
    seconds: float


@dataclass(frozen=True)
class TrialEntry:
    """A trial on the page.

    Args:
        name: Name of the trial.
        settings: All settings by name.
        state: `done`, `failed` or `pending`.
        reason: Reason of the failure.
        scores: Scores by name; None if the trial is not done.
        images: Number of images in the evaluation.
        epochs: Number of epochs.
        best_epoch: Epoch whose weights are used.
        seconds: Durations: `training` and `evaluation`.
        bytes: Size of the run directory.
    """

    name: str
    settings: Settings
    state: str
    reason: str = ""
    scores: Mapping[str, Score] | None = None
    images: int = 0
    epochs: int = 0
    best_epoch: int = 0
    seconds: Mapping[str, float] | None = None
    bytes: int = 0


@dataclass(frozen=True)
class ExperimentPage:
    """The content of the page, from top to bottom.

    Args:
        title: Title of the page.
        headline: The result in one sentence.
        notices: Facts that limit the result.
        values: Labeled values.
        titles: Titles of the metrics by name, the primary metric first.
        comparison: The primary metric of all trials per image.
        trials: The trials: best first, then those without scores.
        curves: PNG of the learning curves.
        tables: The tables.
        images: Images with the predictions of all trials.
    """

    title: str
    headline: str
    notices: Sequence[str]
    values: Mapping[str, object]
    titles: Mapping[str, str]
    comparison: TrialComparison
    trials: Sequence[TrialEntry]
    curves: bytes | None
    tables: Sequence[TableCost]
    images: Sequence[ComparedImage]


def build_experiment_page(page: ExperimentPage) -> str:
    """Builds the page.

    Returns:
        A complete HTML document, to be written as UTF-8.
    """
    curves = "Full lines: validation. Dotted lines: training."
    return document(
        page.title,
        header(page.title, page.headline, page.notices, page.values),
        element(
            "main",
            section("Scores × 100 with 95% confidence intervals", _build_scores(page)),
            section("Trials without scores", _build_unscored(page.trials)),
            section("Learning curves", plot(page.curves, "loss and accuracy by epoch", curves) if page.curves else ""),
            section("Durations and sizes", _build_trial_costs(page.trials), _build_table_costs(page.tables)),
            section("Predictions for the same images", *map(_build_image, page.images)),
            section("Settings that vary", _build_varying(page.trials)),
            section("Differences between two trials", _build_differences(page)),
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


def _build_scores(page: ExperimentPage) -> Html:
    scored = {trial.name: trial.scores for trial in page.trials if trial.scores}
    names = [name for name in page.titles if any(name in scores for scores in scored.values())]
    best = {
        name: _find_best([scores[name].value for scores in scored.values() if name in scores], name) for name in names
    }
    rows = []
    for trial in page.trials:
        if trial.scores:
            cells = [_build_score(trial.scores.get(name), best[name]) for name in names]
            rows.append(row(trial.name, *cells, f"{trial.images:,}"))
    return table(("trial", *(page.titles[name] for name in names), "images"), rows)


def _find_best(values: Sequence[float], name: str) -> float | None:
    """Returns the best value; None if all are equal."""
    if len(set(values)) < 2:
        return None
    return min(values) if name in _LOWER_IS_BETTER else max(values)


def _build_score(score: Score | None, best: float | None) -> Html:
    if score is None:
        return element("td", "–")
    text = format_score(score)
    return element("td", text, class_="best") if score.value == best else element("td", text)


def _build_unscored(trials: Sequence[TrialEntry]) -> Html:
    rows = [row(trial.name, trial.state, trial.reason) for trial in trials if not trial.scores]
    return element("table", element("tbody", *rows), class_="predictions") if rows else Html()


def _build_trial_costs(trials: Sequence[TrialEntry]) -> Html:
    rows = [
        row(
            trial.name,
            f"{trial.best_epoch} of {trial.epochs}",
            format_duration(trial.seconds["training"]),
            format_duration(trial.seconds["evaluation"]),
            _format_size(trial.bytes),
        )
        for trial in trials
        if trial.seconds
    ]
    return table(("trial", "best epoch", "training", "evaluation", "run directory"), rows)


def _build_table_costs(tables: Sequence[TableCost]) -> Html:
    rows = [
        row(
            f"{one.kind}: {one.name}",
            one.fingerprint,
            one.trials,
            "–" if one.rows is None else f"{one.rows:,}",
            format_duration(one.seconds),
            _format_size(one.bytes),
        )
        for one in tables
    ]
    return table(("table", "fingerprint", "trials", "rows", "preparation", "size in the store"), rows)


def _format_size(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.1f} MB"


# === Images ===


def _build_image(image: ComparedImage) -> Html:
    rows = [row(one.trial, _build_prediction(one)) for one in image.predictions]
    return card(
        image.image,
        f"image {image.name}",
        label(element("code", image.name)),
        caption_list(image.references),
        element("table", element("tbody", *rows), class_="predictions"),
    )


def _build_prediction(one: TrialPrediction) -> Html:
    if not one.words:
        return element("td", element("span", "(empty)", class_="quiet"))
    return element("td", element("span", mark_wrong(one.words, one.wrong), dir="auto"))


# === Differences of trials ===


def _build_varying(trials: Sequence[TrialEntry]) -> Html:
    names = list_varying([trial.settings for trial in trials])
    rows = [row(trial.name, *(_format_value(trial.settings.get(name)) for name in names)) for trial in trials]
    return table(("trial", *names), rows) if names else Html()


def _build_differences(page: ExperimentPage) -> Html:
    """Builds a foldable table per trial with its differences from all others, without a script."""
    if len(page.trials) < 2:
        return Html()
    return join(_build_differences_from(trial, page) for trial in page.trials)


def _build_differences_from(trial: TrialEntry, page: ExperimentPage) -> Html:
    rows = [row(other.name, _build_difference(trial, other, page)) for other in page.trials if other is not trial]
    summary = element("summary", "from ", element("b", trial.name), " to …")
    return element("details", summary, element("table", element("tbody", *rows), class_="changes"), class_="changes")


def _build_difference(old: TrialEntry, new: TrialEntry, page: ExperimentPage) -> Html:
    lines: list[object] = [_build_change(change) for change in list_changes(old.settings, new.settings)]
    lines = lines or ["equal settings"]
    for trial, other in ((old, new), (new, old)):
        if names := list_missing(trial.settings, other.settings):
            lines.append(element("span", f"only {trial.name} has {', '.join(names)}", class_="quiet"))
    if old.scores and new.scores:
        lines.append(_build_score_difference(old.name, old.scores, new.name, new.scores, page))
    return element("td", join(lines, "<br>"))


def _build_score_difference(
    old: str, old_scores: Mapping[str, Score], new: str, new_scores: Mapping[str, Score], page: ExperimentPage
) -> Html:
    """Builds the primary metric of two trials and its difference, in bold if it is significant."""
    metric, title = next(iter(page.titles.items()))
    line = _build_change(Change(title, format_score(old_scores[metric]), format_score(new_scores[metric])))
    difference = page.comparison.difference(old, new)
    if difference is None:
        return line
    line = join([line, f", difference {format_score(difference)}"])
    return element("b", line) if is_significant(difference) else line


def _build_change(change: Change) -> Html:
    return join([element("code", change.name), f": {_format_value(change.old)} → {_format_value(change.new)}"])


def _format_value(value: Any) -> str:
    return "–" if value is None else str(value)
