"""Results: what an evaluation leaves of captions: COCO's result format, and a page of the best and the worst."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.io.atomic_files import write
from features.references.reference import read_source_image
from trainer.data.held_out_images import HeldOutImages, ImageName
from trainer.evaluation.prediction_pages import CaptionPrediction, draw_attention_maps, predictions_page
from trainer.metrics import METRICS, TITLES, Scores
from trainer.runs.captioner_run import Caption, CaptionerRun

RESULTS = "results.json"
IMAGE_SCORES = "images.tsv"
PAGE = "predictions.html"

Captions = Mapping[ImageName, Caption]


def write_results(place: Path, datasets: Sequence[str], captions: Captions) -> list[Path]:
    """The captions in COCO's result format, a file a dataset, for ids are the datasets' own.

    Args:
        place: Path. The directory.
        datasets: sequence of str. Of a single one the file is `results.json`, of several `results-NAME.json`.
        captions: mapping of (dataset, image id) to Caption.

    Returns:
        list of Path. The files.
    """
    paths = []
    for dataset in datasets:
        own = {image_id: made.text for (name, image_id), made in captions.items() if name == dataset}
        if own:
            paths.append(place / (RESULTS if len(datasets) == 1 else f"results-{dataset}.json"))
            write(paths[-1], json.dumps(coco_results(own)).encode())
    return paths


def coco_results(captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Captions in COCO's result format, by image id; ids are ints where all of them are.

    Args:
        captions: mapping of image id to caption.
    """
    whole = all(image_id.isdecimal() and str(int(image_id)) == image_id for image_id in captions)
    kind = int if whole else str
    return [{"image_id": kind(name), "caption": captions[name]} for name in sorted(captions, key=kind)]


def write_each(path: Path, datasets: Sequence[str], names: Sequence[ImageName], scores: Scores) -> None:
    """A line an image: its id and its own scores, tab-separated; of several datasets, ids are `NAME/ID`.

    Args:
        path: Path. The file.
        datasets: sequence of str. Those that the run learned from.
        names: sequence of (dataset, image id). In the order of the scores.
        scores: Scores. Of the captions.
    """
    metrics = [metric for metric in METRICS if metric in scores.each]
    table = np.column_stack([scores.each[metric] for metric in metrics])
    lines = ["\t".join(("image", *metrics))]
    for name, row in zip(names, table.tolist(), strict=True):
        image = "/".join(name) if len(datasets) > 1 else name[1]
        lines.append("\t".join((image, *(f"{value:.6g}" for value in row))))
    write(path, ("\n".join(lines) + "\n").encode())


def write_page(
    path: Path,
    run: CaptionerRun,
    held: HeldOutImages,
    captions: Captions,
    scores: Scores,
    notices: Sequence[str],
    count: int,
) -> None:
    """A page of the best and the worst captions.

    Args:
        path: Path. The file.
        run: CaptionerRun. Whose captions they are.
        held: HeldOutImages. The images, with what people said of them.
        captions: mapping of (dataset, image id) to Caption.
        scores: Scores. Of the captions, in the order of `held.names`.
        notices: sequence of str. What a reader must know to judge them.
        count: int. Captions of each kind at most.
    """
    best, worst = best_and_worst(scores, count)
    each = {number: _prediction(number, run, held, captions, scores) for number in (*best, *worst)}
    lost = sum(one.image is None for one in each.values())
    page = predictions_page(
        f"{run.path.name}: {run.metadata.model} on {held.split}",
        [*notices, *([f"images that are not at hand any more: {lost}"] if lost else [])],
        {**_figures(scores), "images": f"{len(held.names):,}"},
        [each[number] for number in best],
        [each[number] for number in worst],
    )
    write(path, page.encode())


def best_and_worst(scores: Scores, count: int) -> tuple[list[int], list[int]]:
    """Numbers of the images with the best captions, best first, and with the worst, worst first; none is in both.

    Captions are ranked by CIDEr-D, equals by BLEU-4.

    Args:
        scores: Scores. Of all images.
        count: int. Images of each kind at most.
    """
    ranked = np.lexsort((scores.each["bleu_4"], scores.each["cider_d"]))[::-1].tolist()
    best = ranked[: min(count, -(-len(ranked) // 2))]
    return best, ranked[len(best) :][::-1][:count]


def _figures(scores: Scores) -> dict[str, str]:
    return {TITLES[name]: f"{100 * scores.metrics[name]:.1f}" for name in METRICS if name in scores.metrics}


def _prediction(
    number: int, run: CaptionerRun, held: HeldOutImages, captions: Captions, scores: Scores
) -> CaptionPrediction:
    name = held.names[number]
    image, made = read_source_image(held.catalog[name]), captions[name]
    return CaptionPrediction(
        name="/".join(name) if len(run.metadata.datasets) > 1 else name[1],
        image=image,
        words=made.words,
        references=tuple(held.references[name]),
        scores={TITLES[metric]: float(scores.each[metric][number]) for metric in ("cider_d", "bleu_4")},
        attention=draw_attention_maps(image, made, run.resizer),
    )
