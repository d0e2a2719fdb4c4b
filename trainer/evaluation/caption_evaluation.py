"""Evaluates captioners: BLEU, METEOR, ROUGE-L and CIDEr-D of generated captions.

Further files in RUN/evaluation/<split>/:

    results.json        captions in the COCO results format; results-NAME.json per dataset if there are several
    predictions.html    the best and the worst captions, or those of `--examples`
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.inputs.file_reference import read_source_image
from features.io.atomic_files import write
from schemas.choices import ExampleKind
from schemas.terminal.console import Printer
from trainer.data.held_out_images import HeldOutImages, ImageName, load_held_out_images
from trainer.data.table_selection import TrainingTables
from trainer.data.word_search import WordUse, search_words
from trainer.evaluation.attention_faithfulness import measure_attention, no_attention
from trainer.evaluation.bootstrap import bootstrap_intervals, sample_captions
from trainer.evaluation.caption_page import CaptionPrediction, find_wrong_words, predictions_page
from trainer.evaluation.evaluate import EvaluatedRun, Evaluation, ImageRow, select_random, shorten
from trainer.evaluation.published import compare_published, find_published
from trainer.evaluation.result_tables import result_tables
from trainer.evaluation.slices import parse_slices, score_slices
from trainer.evaluation.teacher_forcing import (
    MAX_SHOWN,
    ForcedCaption,
    forced_section,
    next_word_accuracy,
    predict_next_words,
    print_forced_captions,
)
from trainer.metrics.caption_metrics import METRICS, TITLES, Scorer, Scores
from trainer.metrics.caption_tokenizer import mark_wrong_words
from trainer.models.model_specs import model_spec
from trainer.reports.markup import Html, mark_wrong
from trainer.reports.plots import draw_attention_maps
from trainer.reports.word_sections import ShownWord
from trainer.runs.captioner_run import Caption, CaptionerRun

RESULTS = "results.json"

_RANKED_BY = ("cider_d", "bleu_4")
# Images per wrong word on the page.
_WORD_EXAMPLES = 2

Evaluated = EvaluatedRun[CaptionerRun, Caption, Scores]


class CaptionEvaluation(Evaluation[CaptionerRun, Caption, Scores]):
    """Evaluates captioners on all captioned images of a split, with all references as published.

    `summarize` adds `references`, `tokenizer`, `skipped_metrics` (reasons by metric) and `decoding`; with `--slice`,
    `slices`, the result of `score_slices`; with `--beside`, `published`, the result of `compare_published`. `examine`
    adds `next_word_accuracy` and `teacher_forced` (`image`, `true` and `predicted` words) with `--teacher-forced`, and
    `attention`, the result of `measure_attention`, with `--attention`; `write_files` adds `results_paths`.
    """

    page = "predictions.html"
    default_examples = "best,worst"
    errors_title = "Worst captions by CIDEr-D"
    error_columns: ClassVar[Mapping[str, str]] = {name: TITLES[name] for name in _RANKED_BY}

    def __enter__(self) -> None:
        self._scorer = Scorer()

    def __exit__(self, *error: object) -> None:
        self._scorer.__exit__(*error)

    def check_run(self, run: CaptionerRun) -> None:
        run.decoding(**self.options.generation())
        if self.options.attention:
            if not model_spec(run.metadata.model, run.metadata.source).spatial:
                raise no_attention(run)
            run.require_extractor()

    def load(self, run: CaptionerRun, tables: TrainingTables, split: str) -> HeldOutImages:
        if self.options.beside:
            find_published(self.options.beside, tables.datasets)
        return load_held_out_images(tables, split)

    def predict(self, run: CaptionerRun, features: NDArray[Any], numbers: range) -> list[Caption]:
        captions = run.caption_features(features, run.decoding(**self.options.generation()), numbers)
        return list(map(_shrink, captions))

    def examine(self, run: CaptionerRun, tables: TrainingTables, held_out: HeldOutImages) -> dict[str, Any]:
        options = self.options
        found: dict[str, Any] = {}
        if options.teacher_forced:
            captions = predict_next_words(run, tables, held_out, options.teacher_forced)
            listed = [caption.to_dict() for caption in captions]
            found |= {"next_word_accuracy": next_word_accuracy(captions), "teacher_forced": listed}
        if options.attention:
            decoding = run.decoding(**options.generation())
            found["attention"] = measure_attention(run, tables, held_out, decoding, options.attention, options.seed)
        return found

    def score(self, held_out: HeldOutImages, predictions: list[Caption]) -> Scores:
        texts = [caption.text for caption in predictions]
        return self._scorer.score(dict(zip(held_out.names, texts, strict=True)), held_out.references)

    def summarize(self, evaluated: Evaluated) -> dict[str, Any]:
        held_out, scores = evaluated.held_out, evaluated.scores
        further: dict[str, Any] = {}
        if self.options.slice:
            references = [held_out.references[name] for name in held_out.names]
            further["slices"] = score_slices(parse_slices(self.options.slice), references, scores)
        if self.options.beside:
            dataset = find_published(self.options.beside, evaluated.tables.datasets)
            further["published"] = compare_published(dataset, evaluated.run.metadata.model, scores)
        return {
            **evaluated.scores.to_dict(),
            "intervals": bootstrap_intervals(sample_captions(evaluated.scores)),
            "decoding": evaluated.run.decoding(**self.options.generation()).model_dump(mode="json"),
            **further,
        }

    def to_text(self, prediction: Caption) -> str:
        return prediction.text

    def image_columns(self, evaluated: Evaluated) -> Mapping[str, Sequence[object]]:
        each = evaluated.scores.per_image
        return {name: [f"{value:.6g}" for value in each[name].tolist()] for name in METRICS if name in each}

    def write_files(self, directory: Path, evaluated: Evaluated) -> dict[str, Any]:
        datasets = evaluated.datasets
        captions = dict(zip(evaluated.held_out.names, evaluated.predictions, strict=True))
        paths = []
        for dataset in datasets:
            own = {image_id: caption.text for (name, image_id), caption in captions.items() if name == dataset}
            if own:
                paths.append(directory / (RESULTS if len(datasets) == 1 else f"results-{dataset}.json"))
                write(paths[-1], json.dumps(to_coco_results(own)).encode())
        return {"results_paths": list(map(str, paths))}

    def render_page(self, evaluated: Evaluated, summary: Mapping[str, Any], notes: Sequence[str]) -> str:
        run, scores = evaluated.run, evaluated.scores
        selected = select_examples(scores, self.examples, self.options.seed)
        shown = {number: _to_prediction(evaluated, number) for number in set(chain.from_iterable(selected.values()))}
        missing = sum(one.image is None for one in shown.values())
        metrics = {TITLES[name]: f"{100 * scores.metrics[name]:.1f}" for name in METRICS if name in scores.metrics}
        return predictions_page(
            f"{_title(run.path.name, summary)}: {run.metadata.model} on {evaluated.held_out.split}",
            [*notes, *([f"Images that cannot be read any more: {missing}."] if missing else [])],
            {**metrics, "images": f"{len(evaluated.predictions):,}"},
            {
                f"{kind.capitalize()} captions": [shown[number] for number in numbers]
                for kind, numbers in selected.items()
            },
            [table.to_html() for table in result_tables(summary)],
            _show_forced(evaluated, summary),
            _show_words(evaluated, find_wrong_words(shown.values())),
        )

    @staticmethod
    def rank_errors(rows: Sequence[ImageRow]) -> list[int]:
        return sorted(
            range(len(rows)), key=lambda number: tuple(float(rows[number].values[name]) for name in _RANKED_BY)
        )

    @staticmethod
    def mark_errors(prediction: str, references: Sequence[str]) -> Html:
        words = prediction.split()
        return mark_wrong(words, mark_wrong_words(words, references))

    def notes(self, summary: Mapping[str, Any], name: str) -> list[str]:
        notes = [
            f"{name}: no image matches the slice {key}."
            for key, one in summary.get("slices", {}).items()
            if not one["images"]
        ]
        if "published" in summary and summary["split"] != "test":
            notes.append(f"{name}: published scores are of test splits, and those of this run of {summary['split']}.")
        notes += [f"{TITLES[name]} is skipped: {reason}" for name, reason in summary["skipped_metrics"].items()]
        if summary["tokenizer"] != "ptb":
            notes.append(f"Tokenized with the {summary['tokenizer']} tokenizer instead of the PTB tokenizer.")
        return notes

    def all_notes(self, results: Sequence[Mapping[str, Any]]) -> list[str]:
        notes = super().all_notes(results)
        if len({summary["tokenizer"] for summary in results}) > 1:
            notes.append("The runs were evaluated with different tokenizers.")
        return notes

    @staticmethod
    def print_tables(printer: Printer, results: Sequence[Mapping[str, Any]]) -> None:
        texts, numbers = ("run", "model", "split", "tokenizer"), (*(TITLES[name] for name in METRICS), "images")
        rows = [
            [
                *(_title(shorten(one["run_dir"]), one), one["model"], one["split"], one["tokenizer"]),
                *(f"{100 * one[name]:.1f}" if name in one else None for name in METRICS),
                one["images"],
            ]
            for one in results
        ]
        printer.table("scores × 100", texts, numbers, rows)
        for one in results:
            name = shorten(one["run_dir"])
            for table in result_tables(one):
                table.print(printer, name)
            if forced := ForcedCaption.from_summary(one):
                print_forced_captions(printer, forced)


def _title(run: str, summary: Mapping[str, Any]) -> str:
    others = len(summary.get("ensemble", ()))
    return f"{run} and {others} more" if others else run


def to_coco_results(captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Converts captions by image ID to the COCO results format; the IDs are integers if all of them can be."""
    are_integers = all(image_id.isdecimal() and str(int(image_id)) == image_id for image_id in captions)
    kind = int if are_integers else str
    return [{"image_id": kind(name), "caption": captions[name]} for name in sorted(captions, key=kind)]


def select_examples(scores: Scores, examples: Mapping[ExampleKind, int], seed: int = 0) -> dict[ExampleKind, list[int]]:
    """Returns the numbers of at most as many images of each kind, ranked by CIDEr-D, then BLEU-4.

    No image is both among the best and the worst. The random images are a sample of all images.
    """
    ranked = np.lexsort((scores.per_image["bleu_4"], scores.per_image["cider_d"]))[::-1].tolist()
    images = len(ranked)
    # If there are too few images for both, each kind gets its half, and what the other leaves.
    best = min(examples.get("best", 0), max(-(-images // 2), images - examples.get("worst", 0)))
    worst = min(examples.get("worst", 0), images - best)
    numbers = {
        "best": ranked[:best],
        "worst": ranked[images - worst :][::-1],
        "random": select_random(images, examples.get("random", 0), seed),
    }
    return {kind: numbers[kind] for kind in examples}


def _shrink(caption: Caption) -> Caption:
    """Returns the caption with half the attention bytes; a slice would keep the array of its whole batch in memory."""
    attention, end = (
        None if weights is None else weights.astype(np.float16)
        for weights in (caption.attention, caption.end_attention)
    )
    return replace(caption, attention=attention, end_attention=end, others=())


def _show_forced(evaluated: Evaluated, summary: Mapping[str, Any]) -> Html:
    captions, held_out = ForcedCaption.from_summary(summary), evaluated.held_out
    shown = {one.image for one in captions[:MAX_SHOWN]}
    names = {evaluated.tables.name_image(*name): name for name in held_out.names}
    return forced_section(captions, {one: read_source_image(held_out.catalog[names[one]]) for one in shown})


def _show_words(evaluated: Evaluated, words: Sequence[str]) -> list[ShownWord]:
    """Returns the use of wrong words in the captions of the store, with example images."""
    if not words:
        return []
    tables = evaluated.tables
    uses = search_words(tables.caption_tables, words, _WORD_EXAMPLES, evaluated.run.vocabulary)
    rows = dict(_find_rows(tables, uses))
    return [
        ShownWord(use, [(one, read_source_image(rows.get((name, one.image_id)))) for name, one in use.examples])
        for use in uses
    ]


def _find_rows(tables: TrainingTables, uses: Sequence[WordUse]) -> Iterator[tuple[ImageName, Mapping[str, Any]]]:
    wanted = {(name, one.image_id) for use in uses for name, one in use.examples}
    for dataset in tables.datasets:
        catalog = dataset.catalog()
        image_ids = pa.array([image_id for name, image_id in wanted if name == dataset.name], pa.string())
        for row in catalog.filter(pc.is_in(catalog["image_id"], value_set=image_ids)).to_pylist():
            yield (dataset.name, row["image_id"]), row


def _to_prediction(evaluated: Evaluated, number: int) -> CaptionPrediction:
    name, caption, each = evaluated.held_out.names[number], evaluated.predictions[number], evaluated.scores.per_image
    image = read_source_image(evaluated.held_out.catalog[name])
    return CaptionPrediction(
        name=evaluated.tables.name_image(*name),
        image=image,
        words=caption.words,
        references=tuple(evaluated.held_out.references[name]),
        scores={TITLES[metric]: float(each[metric][number]) for metric in _RANKED_BY},
        attention=draw_attention_maps(image, caption, evaluated.run.resizer),
    )
