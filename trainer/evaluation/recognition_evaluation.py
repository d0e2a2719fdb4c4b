"""Evaluates CAPTCHA recognizers: exact match and character error rate (CER) of every decoding strategy.

Further files in RUN/evaluation/<split>/:

    confusion.png              how often each character was recognized as another
    coverage.png               exact match by coverage, if labels of low confidence are left open
    recognition_errors.html    the worst recognition errors, or the predictions of `--examples`
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from features.inputs.file_reference import read_source_image
from features.io.atomic_files import write
from features.text.charset import count_characters
from schemas.choices import DecodingStrategy, ExampleKind
from schemas.options.inference import Evaluate
from schemas.terminal.console import Printer
from trainer.data.captcha_data import load_labelled_images
from trainer.data.held_out_images import HeldOutImages
from trainer.data.label_file import read_label_file
from trainer.data.label_limits import list_characters
from trainer.data.table_selection import TrainingTables
from trainer.evaluation.evaluate import EvaluatedRun, Evaluation, ImageRow, select_random, shorten
from trainer.evaluation.recognition_metrics import RecognitionScores, align, rank_correct, rank_errors
from trainer.evaluation.result_tables import result_tables
from trainer.figures.figure_files import encode_figure
from trainer.metrics.calibration import CoverageCurve, expected_calibration_error
from trainer.reports.markup import Html, card, document, element, header, inline_image, join, label, mark_wrong, section
from trainer.reports.plots import confusion_figure, coverage_figure
from trainer.runs.recognizer_run import STRATEGIES, EvaluatedImage, RecognizerRun

CONFUSION = "confusion.png"
COVERAGE = "coverage.png"

# Characters of the confusion matrix; those with the most errors.
_MAX_CONFUSED = 40
_CONFUSION_TITLE = "Confused characters in wrong predictions"
_COVERAGE_TITLE = "Exact match by coverage, if labels of low confidence are left open"
_HEADINGS: dict[ExampleKind, str] = {
    "best": "Correct predictions, the most probable first",
    "worst": "Worst recognition errors: most character errors first",
    "random": "Random predictions",
}
_TITLES = {"greedy": "greedy", "beam": "beam search", "lexicon": "lexicon"}

Evaluated = EvaluatedRun[RecognizerRun, EvaluatedImage, dict[str, RecognitionScores]]


class RecognitionEvaluation(Evaluation[RecognizerRun, EvaluatedImage, dict[str, RecognitionScores]]):
    """Evaluates recognizers on all labeled images of a split, with every decoding strategy.

    `summarize` returns `images`, `exact_match` and `cer` (greedy decoding), `exact_match_beam` and
    `exact_match_lexicon`; `greedy`, `beam` and `lexicon` with `RecognitionScores.to_dict`; `outside_lexicon` (images
    whose label is not in the lexicon); `unknown_characters` (occurrences in labels of characters that the recognizer
    cannot output, by character); `by_length` and `by_character` (`correct` and `total`). Of the confidence of greedy
    labels: `temperature`, the expected calibration errors `ece`, `ece_uncalibrated`, `character_ece` and
    `character_ece_uncalibrated`, and `coverage_by_exact_match` and `coverage_curve` of `CoverageCurve`. `greedy`,
    `beam` and `lexicon` have an `ece`, too. `write_files` adds `confusion_path` and `coverage_path`.
    """

    batch_size = 256
    page = "recognition_errors.html"
    default_examples = "worst"
    figures: ClassVar[Mapping[str, str]] = {CONFUSION: _CONFUSION_TITLE, COVERAGE: _COVERAGE_TITLE}
    errors_title = _HEADINGS["worst"]
    error_columns: ClassVar[Mapping[str, str]] = {
        "beam": "beam search",
        "lexicon": "lexicon",
        "score": "log-probability",
    }

    def __init__(self, options: Evaluate) -> None:
        super().__init__(options)
        self._labels = read_label_file(options.labels) if options.labels else None

    def load(self, run: RecognizerRun, tables: TrainingTables, split: str) -> HeldOutImages:
        return load_labelled_images(tables, split, run.metadata.folds_case, self._labels)

    def predict(self, run: RecognizerRun, features: NDArray[Any], numbers: range) -> list[EvaluatedImage]:
        return run.evaluate_pixels(features)

    def score(self, held_out: HeldOutImages, predictions: list[EvaluatedImage]) -> dict[str, RecognitionScores]:
        return {
            strategy: RecognitionScores(held_out.labels, tuple(each.by(strategy).text for each in predictions))
            for strategy in STRATEGIES
        }

    def summarize(self, evaluated: Evaluated) -> dict[str, Any]:
        scores, labels = evaluated.scores, evaluated.held_out.labels
        errors: dict[str, float] = {
            strategy: expected_calibration_error(_confidence(evaluated, strategy), scores[strategy].correct)
            for strategy in STRATEGIES
        }
        each = {strategy: {**one.to_dict(), "ece": errors[strategy]} for strategy, one in scores.items()}
        by_length = {strategy: one.by_length() for strategy, one in scores.items()}
        lexicon = set(evaluated.run.labels)
        known = set(evaluated.run.metadata.config.characters.characters)
        names = {"greedy": "exact_match", "beam": "exact_match_beam", "lexicon": "exact_match_lexicon"}
        return {
            "images": len(labels),
            **{name: each[strategy]["exact_match"] for strategy, name in names.items()},
            "cer": each["greedy"]["cer"],
            "intervals": {name: each[strategy]["interval"] for strategy, name in names.items()},
            **each,
            "outside_lexicon": sum(label not in lexicon for label in labels),
            "unknown_characters": {one: count for one, count in count_characters(labels).items() if one not in known},
            "by_length": {
                str(length): {strategy: by_length[strategy][length] for strategy in STRATEGIES}
                for length in by_length["greedy"]
            },
            "by_character": scores["greedy"].by_character(),
            **_summarize_confidence(evaluated),
        }

    def to_text(self, prediction: EvaluatedImage) -> str:
        return prediction.greedy.text

    def image_columns(self, evaluated: Evaluated) -> Mapping[str, Sequence[object]]:
        predictions = evaluated.predictions
        return {
            "beam": [one.beam.text for one in predictions],
            "lexicon": [one.lexicon.text for one in predictions],
            "score": [f"{one.greedy.score:.4f}" for one in predictions],
            "exact_match": evaluated.scores["greedy"].correct.astype(int).tolist(),
        }

    def write_files(self, directory: Path, evaluated: Evaluated) -> dict[str, Any]:
        write(directory / CONFUSION, _plot_confusion(evaluated))
        write(directory / COVERAGE, _plot_coverage(evaluated))
        return {"confusion_path": str(directory / CONFUSION), "coverage_path": str(directory / COVERAGE)}

    def render_page(self, evaluated: Evaluated, summary: Mapping[str, Any], notes: Sequence[str]) -> str:
        edits = evaluated.scores["greedy"].edits.tolist()
        scores = [one.greedy.score for one in evaluated.predictions]
        ranked: dict[ExampleKind, list[int]] = {
            "best": rank_correct(scores, edits),
            "worst": rank_errors(scores, edits),
            "random": select_random(len(edits), len(edits), self.options.seed),
        }
        rates = {_TITLES[name]: _percent(one.exact_match) for name, one in evaluated.scores.items()}
        metrics = {**rates, "images": f"{len(edits):,}", "errors": f"{sum(map(bool, edits)):,}"}
        title = f"{evaluated.run.path.name}: recognition errors on {evaluated.held_out.split}"
        marked = element("span", "marked", class_="wrong")
        lead = join(["Wrong and missing characters are ", marked, "."])
        plot = element(
            "div", inline_image(_plot_confusion(evaluated), "confusion matrix of the characters"), class_="plot"
        )
        examples = [
            section(_HEADINGS[kind], *(_build_card(evaluated, number) for number in ranked[kind][:count]))
            for kind, count in self.examples.items()
        ]
        confusion = section(_CONFUSION_TITLE, plot)
        curve = element("div", inline_image(_plot_coverage(evaluated), "exact match by coverage"), class_="plot")
        coverage = [section(_COVERAGE_TITLE, curve), *(one.to_html() for one in result_tables(summary))]
        return document(title, header(title, lead, notes, metrics), element("main", *examples, *coverage, confusion))

    @staticmethod
    def rank_errors(rows: Sequence[ImageRow]) -> list[int]:
        scores = RecognitionScores(tuple(row.references[0] for row in rows), tuple(row.prediction for row in rows))
        return rank_errors([float(row.values["score"]) for row in rows], scores.edits.tolist())

    @staticmethod
    def mark_errors(prediction: str, references: Sequence[str]) -> Html:
        pairs = align(references[0], prediction)
        return mark_wrong([got or "·" for _, got in pairs], [want != got for want, got in pairs], "")

    def notes(self, summary: Mapping[str, Any], name: str) -> list[str]:
        notes = ["greedy and beam search allow any text; lexicon allows the labels of the train split only."]
        if summary["outside_lexicon"]:
            notes.append(f"{name}: images whose label is not in the train split: {summary['outside_lexicon']:,}.")
        if unknown := summary["unknown_characters"]:
            found, count = list_characters(list(unknown)), sum(unknown.values())
            notes.append(f"{name}: characters that the run cannot output, and their number: {found}; {count:,}.")
        return notes

    @staticmethod
    def print_tables(printer: Printer, results: Sequence[Mapping[str, Any]]) -> None:
        titles = ("greedy", "95% interval", "beam search", "lexicon", "CER", "images")
        rows = []
        for one in results:
            low, high = one["greedy"]["interval"]
            rates = [_percent(one[strategy]["exact_match"]) for strategy in STRATEGIES]
            interval = f"{_percent(low)}–{_percent(high)}"
            name = [shorten(one["run_dir"]), one["split"]]
            rows.append([*name, rates[0], interval, *rates[1:], _percent(one["cer"]), one["images"]])
        printer.table("exact match, %", ("run", "split"), titles, rows)
        for one in results:
            lengths = []
            for length, row in one["by_length"].items():
                rates = [_percent(row[strategy]["correct"] / row[strategy]["total"]) for strategy in STRATEGIES]
                lengths.append([length, *rates, row["greedy"]["total"]])
            title = f"{shorten(one['run_dir'])} by label length, %"
            printer.table(title, ("characters",), (*_TITLES.values(), "images"), lengths)
        for one in results:
            for result in result_tables(one):
                result.print(printer, shorten(one["run_dir"]))


def _confidence(evaluated: Evaluated, strategy: DecodingStrategy) -> NDArray[np.float64]:
    return np.array([one.by(strategy).confidence for one in evaluated.predictions])


def _summarize_confidence(evaluated: Evaluated) -> dict[str, Any]:
    greedy, predictions = evaluated.scores["greedy"], evaluated.predictions
    confidence, plain = _confidence(evaluated, "greedy"), [one.uncalibrated for one in predictions]
    return {
        "temperature": evaluated.run.temperature,
        "ece": expected_calibration_error(confidence, greedy.correct),
        "ece_uncalibrated": expected_calibration_error(np.array([one.confidence for one in plain]), greedy.correct),
        "character_ece": greedy.measure_characters([one.greedy.character_confidence for one in predictions]),
        "character_ece_uncalibrated": greedy.measure_characters([one.character_confidence for one in plain]),
        **CoverageCurve(confidence, greedy.correct).to_dict(),
    }


def _plot_coverage(evaluated: Evaluated) -> bytes:
    curve = CoverageCurve(_confidence(evaluated, "greedy"), evaluated.scores["greedy"].correct)
    return encode_figure(coverage_figure(curve.points), "png")


def _plot_confusion(evaluated: Evaluated) -> bytes:
    charset = evaluated.run.metadata.config.characters.characters
    characters, counts = evaluated.scores["greedy"].confusion(charset, _MAX_CONFUSED)
    return encode_figure(confusion_figure(counts, characters), "png")


def _build_card(evaluated: Evaluated, number: int) -> Html:
    """Builds the card of one wrong prediction, with the predictions of all decoding strategies."""
    name, prediction = evaluated.held_out.names[number], evaluated.predictions[number]
    (expected,) = evaluated.held_out.references[name]
    parts: list[Html] = []
    for strategy in STRATEGIES:
        marked = RecognitionEvaluation.mark_errors(prediction.by(strategy).text, [expected])
        parts += [label(_TITLES[strategy]), element("blockquote", marked or "(empty)", dir="auto")]
    image = element("code", evaluated.tables.name_image(*name))
    return card(
        read_source_image(evaluated.held_out.catalog[name]),
        expected,
        label(image, f" log-probability {prediction.greedy.score:.2f}"),
        label("label"),
        element("blockquote", expected, dir="auto"),
        *parts,
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
