"""Builds further tables of an evaluation.

captioners     by subject, beside published scores, and tests of attention
recognizers    exact match and coverage, if labels of low confidence are left open
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.terminal.console import Printer
from trainer.evaluation import published
from trainer.metrics.caption_metrics import TITLES
from trainer.reports.markup import Html, element, row, section, table

# The other metrics are in the JSON.
_SLICE_METRICS = ("bleu_1", "bleu_4", "rouge_l", "cider_d")


@dataclass(frozen=True)
class ResultTable:
    """A table: its title, a note, and its rows, whose cells of `texts` come before those of `numbers`."""

    title: str
    note: str
    texts: Sequence[str]
    numbers: Sequence[str]
    rows: Sequence[Sequence[object]]

    def print(self, printer: Printer, run: str) -> None:
        """Prints the table of a run."""
        printer.table(f"{run}: {self.title}", self.texts, self.numbers, self.rows)
        printer.line(self.note)
        printer.line("")

    def to_html(self) -> Html:
        """Returns the table as a section of a page."""
        rows = [row(*("–" if value is None else str(value) for value in one)) for one in self.rows]
        body = table((*self.texts, *self.numbers), rows)
        return section(self.title, body, element("p", self.note, class_="quiet"))


def result_tables(summary: Mapping[str, Any]) -> list[ResultTable]:
    """Returns the tables that a summary of `CaptionEvaluation` or `RecognitionEvaluation` contains."""
    tables = []
    if "slices" in summary:
        tables.append(_slice_table(summary))
    if "published" in summary:
        tables.append(_published_table(summary["published"]))
    if "attention" in summary:
        tables.append(_attention_table(summary["attention"]))
    if "coverage_by_exact_match" in summary:
        tables.append(_coverage_table(summary))
    return tables


def _slice_table(summary: Mapping[str, Any]) -> ResultTable:
    named = {"all images": summary, **summary["slices"]}
    rows = [(name, *(_score(one, metric) for metric in _SLICE_METRICS), one["images"]) for name, one in named.items()]
    return ResultTable(
        "scores × 100 by subject, with 95% intervals",
        "An image belongs to a subject if at least one of its references matches.",
        ("subject",),
        (*(TITLES[metric] for metric in _SLICE_METRICS), "images"),
        rows,
    )


def _score(one: Mapping[str, Any], metric: str) -> str | None:
    if metric not in one:
        return None
    low, high = one["intervals"][metric]
    return f"{100 * one[metric]:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _published_table(beside: Mapping[str, Any]) -> ResultTable:
    return ResultTable(
        f"scores × 100 beside published scores of {beside['dataset']}",
        "Compare BLEU only between rows of one convention. Papers may use other splits and tokenizers.",
        ("model", "source", "BLEU convention"),
        [TITLES[metric] for metric in published.METRICS],
        [
            (one["model"], one["source"], one["bleu"], *_decimals(one[metric] for metric in published.METRICS))
            for one in beside["rows"]
        ],
    )


def _attention_table(measured: Mapping[str, Any]) -> ResultTable:
    region, images = f"{measured['region']}×{measured['region']}", measured["images"]
    unreadable = f" Images that cannot be captioned again: {measured['unreadable']}." if measured["unreadable"] else ""
    return ResultTable(
        "drop of a word's log-probability if a region is blanked",
        f"Regions of {region} of {measured['grid']}×{measured['grid']} locations in {images} images; 95% intervals "
        f"over images. Wrong words are in no reference of their image.{unreadable}",
        ("words",),
        ("most attended region", "random region", "difference", "attended > random", "number"),
        [(name, *_drops(one), one["words"]) for name, one in measured["words"].items()],
    )


def _coverage_table(summary: Mapping[str, Any]) -> ResultTable:
    found = summary["coverage_by_exact_match"].items()
    return ResultTable(
        "coverage by required exact match, %",
        "Coverage is the percentage of images that keep their label with this --min-confidence: off if all do, – if "
        f"no confidence reaches the exact match. Temperature {summary['temperature']:g}; expected calibration error "
        f"{100 * summary['ece']:.2f}%, without the temperature {100 * summary['ece_uncalibrated']:.2f}%.",
        ("exact match",),
        ("coverage", "--min-confidence"),
        [
            (f"{100 * float(name):g}", *_decimals([point and 100 * point["coverage"]]), _format_threshold(point))
            for name, point in found
        ],
    )


def _format_threshold(point: Mapping[str, float] | None) -> str | None:
    """Returns the `--min-confidence` of a point, `off` if no label is left open."""
    if point is None:
        return None
    return "off" if point["coverage"] == 1 else str(point["min_confidence"])


def _drops(one: Mapping[str, Any]) -> Sequence[str | None]:
    if not one["words"]:
        return [None] * 4
    low, high = one["interval"]
    return (
        f"{one['attended_drop']:.2f}",
        f"{one['random_drop']:.2f}",
        f"{one['difference']:.2f} ({low:.2f} to {high:.2f})",
        f"{one['attended_greater']:.0%}",
    )


def _decimals(values: Iterable[float | None]) -> Iterable[str | None]:
    return (None if value is None else f"{value:.1f}" for value in values)
