"""Pages: an experiment on one HTML page, from its table of scores to what differs between any two trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.reports.markup import document, escaped, inline, picture, section, spoken, tiles
from workflows.experiments.caption_comparison import ComparedImage, TrialPrediction
from workflows.experiments.comparison import TrialComparison
from workflows.experiments.differences import Change, Settings, changes, own, varying
from workflows.html_reports import duration
from workflows.tasks import Score

_LESS_IS_BETTER = ("character_error_rate",)


@dataclass(frozen=True)
class TableCost:
    """A table of the store: what the file calls it, who learns from it, its rows, bytes and seconds of making."""

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
        name: str. What it is called.
        settings: mapping. All that decides it.
        state: str. `done`, `failed` or `not run yet`.
        reason: str. Why it failed.
        scores: mapping of Score. By name; empty where it is not done.
        images: int. Images that it was scored on.
        epochs, best_epoch: int. Epochs it was trained for, and the one whose weights answer.
        seconds: mapping. `training` and `evaluation`.
        bytes: int. Of its run directory.
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
    """What the page of an experiment shows, from top to bottom.

    Args:
        title: str. The page's name.
        headline: str. What came of it, in a sentence.
        notices: sequence of str. What a reader must know to judge it.
        figures: mapping. Label to value, a few numbers to take away.
        titles: mapping of str. What scores are called, by name, the telling one first.
        comparison: Comparison. The trials held against each other in the telling one.
        trials: sequence of TrialEntry. The best first, then those that failed or were not run yet.
        curves: bytes or None. A PNG of how they learned.
        tables: sequence of TableCost. What they learned from.
        seen: sequence of Seen. Images with what each trial says of them.
    """

    title: str
    headline: str
    notices: Sequence[str]
    figures: Mapping[str, object]
    titles: Mapping[str, str]
    comparison: TrialComparison
    trials: Sequence[TrialEntry]
    curves: bytes | None
    tables: Sequence[TableCost]
    seen: Sequence[ComparedImage]


def experiment_page(page: ExperimentPage) -> str:
    """The page of an experiment.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    parts = [
        f'<header><h1>{escaped(page.title)}</h1><p class="lead">{escaped(page.headline)}</p></header>',
        *(f'<p class="notice" role="note">{escaped(notice)}</p>' for notice in page.notices),
        tiles(page.figures),
        "<main>",
        section("Scores × 100, with intervals of 95 %", _scores(page)),
        section("Trials without scores", _unscored(page.trials)),
        section("Learning curves", _curves(page.curves)),
        section("Time and disk", _costs(page)),
        section("The same images, side by side", "".join(map(_seen, page.seen))),
        section("What the trials differ in", _varying(page.trials)),
        section("What changed between any two", _pairs(page)),
        "</main>",
    ]
    return document(page.title, "".join(parts))


def find_best(trials: Sequence[TrialEntry], name: str) -> float | None:
    """The best value of a score; None where no trial has it."""
    values = [trial.scores[name].value for trial in trials if trial.scores and name in trial.scores]
    if not values:
        return None
    return min(values) if name in _LESS_IS_BETTER else max(values)


def hundredths(score: Score) -> str:
    """A score times 100, with its interval where there is one."""
    if score.interval is None:
        return f"{100 * score.value:.1f}"
    low, high = score.interval
    return f"{100 * score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def is_certain(difference: Score) -> bool:
    """Whether a difference is one on other images of the same kind too: its interval does not hold 0."""
    return difference.interval is not None and not difference.interval[0] <= 0 <= difference.interval[1]


# === Parts ===


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{escaped(each)}</th>" for each in heads)
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, cells: Sequence[object]) -> str:
    return f"<tr><th scope='row'>{escaped(name)}</th>{''.join(f'<td>{escaped(cell)}</td>' for cell in cells)}</tr>"


def _scores(page: ExperimentPage) -> str:
    scored = [trial for trial in page.trials if trial.scores]
    names = [name for name in page.titles if any(name in (trial.scores or ()) for trial in scored)]
    best = {name: find_best(scored, name) for name in names if _differs(scored, name)}
    rows = []
    for trial in scored:
        cells = "".join(_score(trial, name, best.get(name)) for name in names)
        rows.append(f"<tr><th scope='row'>{escaped(trial.name)}</th>{cells}<td>{trial.images:,}</td></tr>")
    return _table(("trial", *(page.titles[name] for name in names), "images"), rows)


def _differs(trials: Sequence[TrialEntry], name: str) -> bool:
    return len({trial.scores[name].value for trial in trials if trial.scores and name in trial.scores}) > 1


def _score(trial: TrialEntry, name: str, best: float | None) -> str:
    score = (trial.scores or {}).get(name)
    if score is None:
        return "<td>–</td>"
    mark = ' class="best"' if score.value == best else ""
    return f"<td{mark}>{hundredths(score)}</td>"


def _unscored(trials: Sequence[TrialEntry]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escaped(trial.name)}</th><td>{escaped(trial.state)}</td>"
        f"<td>{escaped(trial.reason)}</td></tr>"
        for trial in trials
        if not trial.scores
    )
    return f'<table class="said"><tbody>{rows}</tbody></table>' if rows else ""


def _curves(curves: bytes | None) -> str:
    if curves is None:
        return ""
    drawn = inline(curves, "loss and accuracy of every trial by epoch")
    note = "Validation in full lines, training in dots."
    return f'<figure class="plot">{drawn}<figcaption class="quiet">{note}</figcaption></figure>'


def _costs(page: ExperimentPage) -> str:
    trials = [
        _row(
            trial.name,
            [
                f"{trial.best_epoch} of {trial.epochs}",
                duration(trial.seconds["training"]),
                duration(trial.seconds["evaluation"]),
                _megabytes(trial.bytes),
            ],
        )
        for trial in page.trials
        if trial.seconds
    ]
    tables = [
        _row(
            f"{table.kind}: {table.name}",
            [table.fingerprint, table.trials, _count(table.rows), duration(table.seconds), _megabytes(table.bytes)],
        )
        for table in page.tables
    ]
    return _table(("trial", "best epoch", "trained for", "scored in", "run directory"), trials) + _table(
        ("table", "fingerprint", "trials", "rows", "prepared in", "in the store"), tables
    )


def _megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.1f} MB"


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _seen(seen: ComparedImage) -> str:
    truth = "".join(f"<li>{spoken(text)}</li>" for text in seen.truth)
    rows = "".join(f"<tr><th scope='row'>{escaped(one.trial)}</th><td>{_marked(one)}</td></tr>" for one in seen.said)
    return (
        f'<article class="card wide"><div class="side">{picture(seen.image, f"image {seen.name}")}'
        f'<div class="words"><p class="label"><code>{escaped(seen.name)}</code></p>'
        f'<ul class="captions">{truth}</ul><table class="said"><tbody>{rows}</tbody></table></div></div></article>'
    )


def _marked(one: TrialPrediction) -> str:
    words = [
        f'<span class="wrong">{escaped(word)}</span>' if is_wrong else escaped(word)
        for word, is_wrong in zip(one.words, one.wrong, strict=True)
    ]
    return f'<span dir="auto">{" ".join(words)}</span>' if words else '<span class="quiet">nothing</span>'


def _varying(trials: Sequence[TrialEntry]) -> str:
    names = varying([trial.settings for trial in trials])
    rows = [_row(trial.name, [_value(trial.settings.get(name)) for name in names]) for trial in trials]
    return _table(("trial", *names), rows) if names else ""


def _pairs(page: ExperimentPage) -> str:
    """For each trial a table of what every other one has otherwise, folded away; it works without a script."""
    if len(page.trials) < 2:
        return ""
    return "".join(_compared(trial, page) for trial in page.trials)


def _compared(trial: TrialEntry, page: ExperimentPage) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escaped(other.name)}</th><td>{_told(trial, other, page)}</td></tr>"
        for other in page.trials
        if other is not trial
    )
    return (
        f'<details class="changes"><summary>from <b>{escaped(trial.name)}</b> to …</summary>'
        f'<table class="changes"><tbody>{rows}</tbody></table></details>'
    )


def _told(old: TrialEntry, new: TrialEntry, page: ExperimentPage) -> str:
    told = [_change(change) for change in changes(old.settings, new.settings)] or ["the same settings"]
    for trial, other in ((old, new), (new, old)):
        if alone := own(trial.settings, other.settings):
            told.append(f'<span class="quiet">only {escaped(trial.name)} has {escaped(", ".join(alone))}</span>')
    if old.scores and new.scores:
        told.append(_gained(old.scores, new.scores, page, page.comparison.difference(old.name, new.name)))
    return "<br>".join(told)


def _gained(old: Mapping[str, Score], new: Mapping[str, Score], page: ExperimentPage, difference: Score | None) -> str:
    """The telling score of two trials, and how far they are apart; in bold where that is certain."""
    telling, title = next(iter(page.titles.items()))
    told = _change(Change(title, hundredths(old[telling]), hundredths(new[telling])))
    if difference is None:
        return told
    told = f"{told}, difference {escaped(hundredths(difference))}"
    return f"<b>{told}</b>" if is_certain(difference) else told


def _change(change: Change) -> str:
    return f"<code>{escaped(change.name)}</code>: {escaped(_value(change.old))} → {escaped(_value(change.new))}"


def _value(value: Any) -> str:
    return "–" if value is None else str(value)
