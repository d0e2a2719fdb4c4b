"""Learns to caption a user's images, and captions those of the test split."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.extractors.application import APPLICATIONS
from features.extractors.weights import IMAGENET, is_imagenet_available
from features.inputs.file_reference import read_source_image
from features.store import open_store
from pipelines.datasets import EMBEDDED
from schemas.errors import CaptError, UsageError
from schemas.options.workflows import DEMO_LIMIT, Demo
from schemas.table_config import compute_digest
from trainer.data.held_out_images import load_held_out_images
from trainer.evaluation.word_classes import classify_word
from trainer.metrics.caption_metrics import TITLES, Scorer
from trainer.reports.plots import draw_attention_maps
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.directory import LOSS_PLOT, read_training_images
from trainer.runs.run import load_run
from workflows.demo.captioner import CaptionerData, summarize_training, train_captioner
from workflows.demo.page import CaptionedImage, DemoPart
from workflows.demo.pictures import draw_word_maps
from workflows.demo.steps import Steps

DEFAULT_EXTRACTOR = "inception_v3"
SEED = 7
# A dataset of any size is trained for as many steps.
EPOCHS, STEPS_PER_EPOCH = 8, 120
MIN_COUNT = 3
# Below this number of training images, the page says that they are too few.
ENOUGH_IMAGES = 500
HYPERPARAMETERS: dict[str, Any] = {
    "model": "soft_attention",
    "embedding_dim": 128,
    "units": 256,
    "attention_dim": 256,
    "output_dim": 256,
    "dropout": 0.4,
    "lr_schedule": "cosine",
    "warmup_steps": 50,
    "global_clipnorm": 5.0,
    "num_sample_captions": 0,
    "seed": SEED,
}
_BATCH_SIZE = 64
_DIGEST_LENGTH = 8
_log = logging.getLogger("capt.demo")
_NUM_BEST, _NUM_MORE, _NUM_MAPS = 3, 4, 3
# Words of these classes get a map on the page, the first classes preferred.
_MAPPED_CLASSES = ("nouns", "other", "background", "verbs", "colours")


@dataclass(frozen=True)
class CaptionedPhotograph:
    """An unseen image with its caption, and CIDEr-D, if it could be computed; `row` is its row of the catalog."""

    row: Mapping[str, Any]
    caption: Caption
    references: tuple[str, ...]
    cider_d: float | None


def check_own_images(options: Demo) -> None:
    """Raises UsageError if a dataset type lacks its images, or an option requires a dataset type."""
    if options.dataset_type is not None:
        if not options.images:
            raise UsageError("the option is required with --dataset-type", location="--images")
        return
    names = ("images", "annotations", "extractor", "weights", "layer", "preprocess", "limit_images")
    given = [name for name in names if getattr(options, name) not in (None, ())]
    if given:
        location = f"--{given[0].replace('_', '-')}"
        hint = "Add --dataset-type flickr8k, for example, or omit the option."
        raise UsageError("the option requires --dataset-type", location=location, hint=hint)


def demonstrate_own_images(options: Demo, root: Path, store: Path, steps: Steps) -> tuple[DemoPart, tuple[str, ...]]:
    """Runs the captioning part of the demo on a user's images. Returns also notices that limit the result."""
    weights, notices = _choose_weights(options)
    data = describe_data(options, weights)
    run_dir = root / data.dataset["dataset_name"]
    training = train_captioner(
        data, store, run_dir, {**HYPERPARAMETERS, "epochs": EPOCHS, "steps_per_epoch": STEPS_PER_EPOCH}, steps
    )
    run = load_run(run_dir)
    captioned, metrics, problems = steps.run(
        "caption unseen images", lambda: _caption(run, store), lambda result: f"{len(result[0])} captions"
    )
    images = len(read_training_images(run_dir))
    summary = {
        "dataset_type": options.dataset_type,
        "images": images,
        "limit_images": data.dataset["limit_images"],
        "unseen": len(captioned),
        "extractor": data.features["extractor"],
        "weights": weights,
        "metrics": metrics,
        **summarize_training(training),
        "run_dir": str(run_dir),
        "examples": [one.caption.text for one in captioned[: _NUM_BEST + _NUM_MORE]],
    }
    return _describe(summary, captioned, run), (*notices, *_warn_of_few_images(images), *problems)


def _warn_of_few_images(images: int) -> tuple[str, ...]:
    if images >= ENOUGH_IMAGES:
        return ()
    notice = (
        f"The model was trained on {images} images only. They teach it frequent words, but hardly their looks. "
        "Use more images."
    )
    _log.warning(notice)
    return (notice,)


def describe_data(options: Demo, weights: str | None) -> CaptionerData:
    """Returns the data. Each choice of options has a dataset and a run directory of its own, with the same name."""
    dataset = {
        "dataset_type": options.dataset_type,
        "annotations": options.annotations or (options.images if options.dataset_type in EMBEDDED else ()),
        "limit_images": options.limit_images or DEMO_LIMIT,
        "seed": SEED,
    }
    features = {
        "images": options.images,
        "extractor": options.extractor or DEFAULT_EXTRACTOR,
        "weights": weights,
        "layer": options.layer,
        "preprocess": options.preprocess,
    }
    name = f"{options.dataset_type}_{compute_digest([dataset, features])[:_DIGEST_LENGTH]}"
    return CaptionerData({**dataset, "dataset_name": name}, features, {"min_count": MIN_COUNT})


def _choose_weights(options: Demo) -> tuple[str | None, tuple[str, ...]]:
    """Returns the extractor weights, and the notices about them: random ones if the default is not available."""
    extractor = options.extractor or DEFAULT_EXTRACTOR
    if options.weights is not None or extractor not in APPLICATIONS:
        return options.weights, ()
    if is_imagenet_available(APPLICATIONS[extractor]):
        return IMAGENET, ()
    notice = (
        f"The ImageNet weights of {extractor} are not available. With random weights, captions describe the images "
        "poorly. Use --weights FILE, or --extractor custom:FILE.keras."
    )
    _log.warning(notice)
    return f"random:{SEED}", (notice,)


def _caption(run: CaptionerRun, store: Path) -> tuple[list[CaptionedPhotograph], dict[str, float], tuple[str, ...]]:
    """Captions the test split, or val if test has no captions. Returns also metrics, and why some are missing."""
    tables = run.open_tables(open_store(store))
    held_out = load_held_out_images(tables, "test")
    captions: list[Caption] = []
    for start in range(0, len(held_out.rows), _BATCH_SIZE):
        captions += run.caption_features(tables.features.read(held_out.rows[start : start + _BATCH_SIZE]))
    references = [tuple(held_out.references[name]) for name in held_out.names]
    metrics, cider_d, problems = _score(captions, references)
    if held_out.split == run.metadata.validation_split:
        problems = (*problems, f"The best epoch was selected on these images of {held_out.split}: there are no others.")
    captioned = [
        CaptionedPhotograph(held_out.catalog[name], caption, texts, value)
        for name, caption, texts, value in zip(held_out.names, captions, references, cider_d, strict=True)
    ]
    return captioned, metrics, problems


def _score(
    captions: Sequence[Caption], references: Sequence[tuple[str, ...]]
) -> tuple[dict[str, float], Sequence[float | None], tuple[str, ...]]:
    try:
        with Scorer() as scorer:
            scores = scorer.score([caption.text for caption in captions], references)
    except CaptError as error:
        return {}, [None] * len(captions), (f"The captions are not scored: {error}",)
    skipped = tuple(f"{TITLES[name]} is not computed: {reason}" for name, reason in scores.skipped_metrics.items())
    return scores.metrics, scores.per_image["cider_d"].tolist(), skipped


def _describe(summary: dict[str, Any], captioned: Sequence[CaptionedPhotograph], run: CaptionerRun) -> DemoPart:
    ranked = [one for one in captioned if one.cider_d is not None]
    ranked.sort(key=lambda one: -(one.cider_d or 0.0))
    best, worst = (ranked[:_NUM_BEST], ranked[-1:]) if ranked else (captioned[:_NUM_BEST], [])
    metrics, count = summary["metrics"], len(captioned)
    cider_d = f" CIDEr-D × 100: {100 * metrics['cider_d']:.1f}." if metrics else ""
    order = "Those with the highest CIDEr-D." if ranked else ""
    return DemoPart(
        summary=summary,
        headline=f"{count} unseen images of a {summary['dataset_type']} dataset are captioned.{cider_d}",
        title="Captions of unseen images",
        lead=f"{order} Each map shows where the model looks when it writes the word below it.".strip(),
        values={
            "training images": f"{summary['images']:,}",
            "images, at most": summary["limit_images"],
            "extractor": Path(summary["extractor"]).name,
        },
        scores={TITLES[name]: value for name, value in metrics.items()},
        good=[_to_example(one, run) for one in best],
        bad=_to_example(worst[0], run) if worst else None,
        bad_title="The caption with the lowest CIDEr-D",
        more=[_to_example(one, run) for one in captioned[:_NUM_MORE]],
        loss_plot=(Path(summary["run_dir"]) / LOSS_PLOT).read_bytes(),
    )


def _to_example(one: CaptionedPhotograph, run: CaptionerRun) -> CaptionedImage:
    image = read_source_image(one.row)
    return CaptionedImage(
        image=image,
        caption=one.caption.text,
        references=one.references,
        maps=draw_word_maps(image, one.caption, run.resizer, _select_words(one.caption.words)) if image else (),
        attention=draw_attention_maps(image, one.caption, run.resizer),
    )


def _select_words(words: Sequence[str]) -> dict[int, str]:
    """Returns the words that say most, by their positions."""
    classes = [classify_word(word) for word in words]
    named = [number for number, kind in enumerate(classes) if kind in _MAPPED_CLASSES]
    named.sort(key=lambda number: _MAPPED_CLASSES.index(classes[number]))
    return {number: words[number] for number in sorted(named[:_NUM_MAPS])}
