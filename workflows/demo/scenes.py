"""Learns to caption synthetic scenes, and captions scenes of another seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.extractors.scene_network import NAME as EXTRACTOR
from features.synthetic.scenes.dataset import load_scenes, make_scenes
from features.synthetic.scenes.scene import COLORS, SHAPES, Scene
from features.synthetic.scenes.scores import find_error, measure_attention
from trainer.reports.plots import draw_attention_maps
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.directory import LOSS_PLOT
from trainer.runs.run import load_run
from workflows.demo.captioner import ANNOTATIONS, CaptionerData, summarize_training, train_captioner
from workflows.demo.page import CaptionedImage, DemoPart, Measure
from workflows.demo.pictures import draw_word_maps
from workflows.demo.steps import Steps

NUM_SCENES, NUM_UNSEEN = 1500, 200
SEED, UNSEEN_SEED = 7, 8
EPOCHS = 24
HYPERPARAMETERS: dict[str, Any] = {
    "model": "soft_attention",
    "rnn_cell": "lstm",
    "embedding_dim": 64,
    "units": 256,
    "attention_dim": 128,
    "projection_dim": None,
    "output_dim": 128,
    "attention_query": "word",
    "dropout": 0.2,
    "image_dropout": 0.05,
    "learning_rate": 0.003,
    "lr_schedule": "cosine",
    "warmup_steps": 100,
    "weight_decay": 0.1,
    "global_clipnorm": 5.0,
    "label_smoothing": 0.05,
    "num_sample_captions": 0,
    "seed": SEED,
}
_NUM_BEST, _NUM_MORE = 3, 4
# As a control, each caption is also compared with the scene at this distance in the order of scenes.
_CONTROL_OFFSET = 7
_ERRORS = {
    "not in the grammar": "not a sentence",
    "number of objects": "wrong number of objects",
    "colors": "wrong color",
    "shapes": "wrong shape",
    "color-shape combinations": "a color of another shape",
    "sizes": "wrong size",
    "relation": "wrong relation",
}
_VOCABULARIES = {"color": frozenset(COLORS), "shape": frozenset(SHAPES)}


@dataclass(frozen=True)
class CaptionedScene:
    """An unseen scene, its encoded image, and the model's caption."""

    scene: Scene
    image: bytes
    caption: Caption

    @property
    def error(self) -> str | None:
        """What is wrong in the caption; None if it names all objects of the scene and their relation correctly."""
        return find_error(self.caption.text, self.scene)

    def names_only(self, kind: str, scene: Scene) -> bool:
        """Returns whether the caption names a `color` or `shape`, and only those of a scene."""
        named = _VOCABULARIES[kind].intersection(self.caption.words)
        return bool(named) and named <= {getattr(placed.scene_object, kind) for placed in scene.objects}


def demonstrate_scenes(root: Path, store: Path, steps: Steps) -> DemoPart:
    """Runs the captioning part of the demo."""
    directory, unseen, run_dir = root / "scenes", root / "unseen_scenes", root / "captioner"
    scenes = steps.run(
        "generate scenes",
        lambda: _make_scenes(directory, unseen),
        "{images} images with {captions} captions".format_map,
    )
    data = CaptionerData(
        dataset={
            "dataset_type": "coco",
            "dataset_name": "scenes",
            "annotations": [str(directory / ANNOTATIONS.format(split)) for split in ("train", "val")],
        },
        features={"images": str(directory / "images"), "extractor": EXTRACTOR},
    )
    training = train_captioner(data, store, run_dir, {**HYPERPARAMETERS, "epochs": EPOCHS}, steps)
    run = load_run(run_dir)
    captioned = steps.run(
        "caption unseen scenes", lambda: _caption(unseen, run), lambda captions: f"{len(captions)} captions"
    )
    correct, attention = score_captions(captioned), score_attention(captioned)
    summary = {
        "images": scenes["images"],
        "unseen": len(captioned),
        "extractor": EXTRACTOR,
        "correct": correct,
        "attention": attention,
        **summarize_training(training),
        "run_dir": str(run_dir),
        "examples": [one.caption.text for one in captioned[: _NUM_BEST + _NUM_MORE]],
    }
    return _describe(summary, captioned, run)


def score_captions(captioned: Sequence[CaptionedScene]) -> dict[str, dict[str, float]]:
    """Returns the fractions of correct `colors`, `shapes` and `captions`, and by `chance`: for captions of others."""
    others = [one.scene for one in [*captioned[_CONTROL_OFFSET:], *captioned[:_CONTROL_OFFSET]]]

    def count(is_correct: Callable[[CaptionedScene, Scene], bool]) -> dict[str, float]:
        own = sum(is_correct(one, one.scene) for one in captioned)
        control = sum(is_correct(one, other) for one, other in zip(captioned, others, strict=True))
        return {"fraction": own / len(captioned), "chance": control / len(captioned)}

    return {
        "captions": count(lambda one, scene: find_error(one.caption.text, scene) is None),
        "colors": count(lambda one, scene: one.names_only("color", scene)),
        "shapes": count(lambda one, scene: one.names_only("shape", scene)),
    }


def score_attention(captioned: Sequence[CaptionedScene]) -> dict[str, float]:
    """Returns the fraction of the color and shape words at which the attention is greatest in the object's box.

    `chance` is the fraction of the image that the boxes cover; `words` is the number of words.
    """
    looks = [look for one in captioned for look in _measure_looks(one)]
    if not looks:
        return {"fraction": 0.0, "chance": 0.0, "words": 0}
    color, shape, chance = np.mean(looks, axis=0).tolist()
    return {"fraction": (color + shape) / 2, "chance": chance, "words": 2 * len(looks)}


def _measure_looks(one: CaptionedScene) -> list[tuple[bool, bool, float]]:
    if one.caption.attention is None:
        return []
    side = round(one.caption.attention.shape[1] ** 0.5)
    return measure_attention(one.caption.words, one.caption.attention, one.scene, side, side)


def _make_scenes(directory: Path, unseen: Path) -> dict[str, Any]:
    make_scenes(unseen, NUM_UNSEEN, UNSEEN_SEED)
    return make_scenes(directory, NUM_SCENES, SEED)


def _caption(unseen: Path, run: CaptionerRun) -> list[CaptionedScene]:
    scenes = load_scenes(unseen)
    images = [(unseen / "images" / scene.file_name).read_bytes() for scene in scenes]
    captions = run.caption_many(images)
    return [
        CaptionedScene(scene, image, caption)
        for scene, image, caption in zip(scenes, images, captions, strict=True)
        if isinstance(caption, Caption)
    ]


def _describe(summary: dict[str, Any], captioned: Sequence[CaptionedScene], run: CaptionerRun) -> DemoPart:
    correct, attention = summary["correct"], summary["attention"]
    # Scenes with more objects first, because their captions show more.
    right = sorted((one for one in captioned if one.error is None), key=lambda one: -len(one.scene.objects))
    wrong = [one for one in captioned if one.error is not None]
    unseen, captions = summary["unseen"], correct["captions"]
    measures = [
        Measure("captions of unseen scenes that are true in every word", **captions, count=unseen),
        Measure("captions that name only colors in the scene", **correct["colors"], count=unseen),
        Measure("captions that name only shapes in the scene", **correct["shapes"], count=unseen),
        Measure(
            "color and shape words at which the attention is greatest on the named object",
            attention["fraction"],
            attention["chance"],
            int(attention["words"]),
        ),
    ]
    return DemoPart(
        summary=summary,
        headline=f"{captions['fraction']:.1%} of the captions of {unseen} unseen scenes are true in every word.",
        title="Captions of unseen scenes",
        lead="Each map shows where the model looks when it writes the words below it.",
        values={
            "true captions": f"{captions['fraction']:.1%} (chance {captions['chance']:.1%})",
            "attention on the object": f"{attention['fraction']:.1%} (chance {attention['chance']:.1%})",
        },
        measures=measures,
        good=[_to_example(one, run) for one in right[:_NUM_BEST]],
        bad=_to_example(wrong[0], run) if wrong else None,
        more=[_to_example(one, run) for one in captioned[:_NUM_MORE]],
        loss_plot=(Path(summary["run_dir"]) / LOSS_PLOT).read_bytes(),
    )


def _to_example(one: CaptionedScene, run: CaptionerRun) -> CaptionedImage:
    words = one.caption.words
    named = {
        number: f"{words[number - 1]} {word}"
        for number, word in enumerate(words)
        if word in _VOCABULARIES["shape"] and number and words[number - 1] in _VOCABULARIES["color"]
    }
    return CaptionedImage(
        image=one.image,
        caption=one.caption.text,
        references=one.scene.captions,
        maps=draw_word_maps(one.image, one.caption, run.resizer, named),
        attention=draw_attention_maps(one.image, one.caption, run.resizer),
        is_correct=one.error is None,
        error=_ERRORS.get(one.error or ""),
    )
