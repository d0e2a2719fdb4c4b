"""Runs the whole workflow on synthetic scenes and writes an HTML report: `capt demo`."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from features.extractors.application import find_application
from features.extractors.weights import is_imagenet_available
from features.io.atomic_files import write
from features.io.locations import local_path
from features.synthetic.scenes.dataset import load_scenes, make_scenes
from features.synthetic.scenes.grammar import parse_caption
from features.synthetic.scenes.scene import COLORS, SHAPES, Scene
from schemas.options.workflows import Demo
from trainer.reports.plots import draw_attention_maps
from trainer.runs.captioner_run import Caption
from trainer.runs.directory import LOSS_PLOT
from trainer.runs.run import load_run
from workflows.example_pages import CaptionedImage, Step, build_demo_page
from workflows.prepared_tasks import find_prepared_task

NUM_SCENES = 400
SEED = 7
EPOCHS = 20
HYPERPARAMETERS = {"embedding_dim": 64, "units": 128, "attention_dim": 128, "output_dim": 128, "dropout": 0.4}
NUM_EXAMPLES = 12
EXTRACTOR = "inception_v3"
MODEL = "soft_attention"

# As a control, each caption is also compared with the scene at this distance in the order of scenes.
_CONTROL_OFFSET = 7
_ANNOTATIONS = "annotations/captions_{}2017.json"
_VOCABULARIES = {"color": frozenset(COLORS), "shape": frozenset(SHAPES)}

_Result = TypeVar("_Result")
_log = logging.getLogger("capt.demo")


@dataclass(frozen=True)
class CaptionedScene:
    """A held-out scene, its encoded image, and the model's caption."""

    scene: Scene
    image: bytes
    caption: Caption

    def names_only(self, kind: str, scene: Scene) -> bool:
        """Returns whether the caption names a `color` or `shape`, and only those of a scene."""
        named = _VOCABULARIES[kind].intersection(self.caption.words)
        return bool(named) and named <= {getattr(placed.scene_object, kind) for placed in scene.objects}

    def describes(self, scene: Scene) -> bool:
        """Returns whether the caption names all objects of a scene and their relation correctly."""
        description = parse_caption(self.caption.text)
        return description is not None and description.matches(scene)


def demo(options: Demo) -> dict[str, Any]:
    """Generates scenes, prepares them, trains a captioner, captions the held-out scenes, and writes `report.html`.

    An interrupted demo resumes in its output directory.

    Returns:
        `scenes` and `held_out` (numbers of images); `correct`, for `colors`, `shapes` and `captions`: `fraction`
        of correct captions, and `chance` (the fraction for captions of other scenes); `weights`, `val_loss`,
        `val_token_accuracy`, `seconds`, `examples` (captions), and the paths `report`, `store` and `run_dir`.
    """
    started = time.monotonic()
    root = local_path(options.output, "--output").absolute()
    store, scene_dir, run_dir, report = root / "store", root / "scenes", root / "run", root / "report.html"
    annotations = [str(scene_dir / _ANNOTATIONS.format(split)) for split in ("train", "val")]
    dataset = {"dataset_type": "coco", "dataset_name": "scenes", "annotations": annotations}
    task = find_prepared_task("captioner")
    weights, notices = _choose_weights()
    extractor = {"images": str(scene_dir / "images"), "extractor": EXTRACTOR, "weights": weights}
    steps: list[Step] = []

    def run_step(name: str, run: Callable[[], _Result], summarize: Callable[[_Result], str]) -> _Result:
        _log.info("%s …", name)
        begin = time.monotonic()
        result = run()
        steps.append(Step(name, summarize(result), time.monotonic() - begin))
        _log.info("%s: %s (%.1f s)", name, steps[-1].summary, steps[-1].seconds)
        return result

    scenes = run_step(
        "generate scenes",
        lambda: make_scenes(scene_dir, NUM_SCENES, SEED),
        "{images} images with {captions} captions".format_map,
    )
    features = run_step(
        "extract features",
        lambda: task.preparations["features"].prepare(store, {**dataset, **extractor}),
        "{ok} extracted, {cached} already in the store, {failed} failed".format_map,
    )
    captions = run_step(
        "tokenize captions",
        lambda: task.preparations["captions"].prepare(store, dataset),
        "{ok} tokenized, {cached} already in the store, {vocab_size} words".format_map,
    )
    tables = {"features": features["fingerprint"], "captions": captions["fingerprint"]}
    hyperparameters = {"model": MODEL, "seed": SEED, "epochs": EPOCHS, **HYPERPARAMETERS}
    training = run_step(
        "train",
        lambda: task.train(store, run_dir, hyperparameters, tables),
        "{epochs} epochs, best validation loss {val_loss:.3f}".format_map,
    )
    captioned = run_step(
        "caption held-out scenes", lambda: _caption(scene_dir, run_dir), lambda result: f"{len(result)} captions"
    )
    correct = _score(captioned)
    seconds = round(time.monotonic() - started, 1)
    resizer = load_run(run_dir).resizer
    page = build_demo_page(
        title="capt demo",
        headline=_headline(correct),
        notices=notices,
        values={
            **{
                f"correct {name}": f"{one['fraction']:.0%} (chance {one['chance']:.0%})"
                for name, one in correct.items()
            },
            "validation loss": f"{training['val_loss']:.3f}",
            "validation accuracy": f"{training['val_token_accuracy']:.1%}",
            "seconds": seconds,
        },
        steps=steps,
        loss_plot=(run_dir / LOSS_PLOT).read_bytes(),
        images=[
            CaptionedImage(
                image=one.image,
                caption=one.caption.text,
                references=one.scene.captions,
                attention=draw_attention_maps(one.image, one.caption, resizer),
                is_correct=one.describes(one.scene),
            )
            for one in captioned[:NUM_EXAMPLES]
        ],
    )
    write(report, page.encode())
    return {
        "scenes": scenes["images"],
        "held_out": len(captioned),
        "correct": correct,
        "weights": weights,
        "val_loss": training["val_loss"],
        "val_token_accuracy": training["val_token_accuracy"],
        "seconds": seconds,
        "report": str(report),
        "store": str(store),
        "run_dir": str(run_dir),
        "examples": [one.caption.text for one in captioned[:NUM_EXAMPLES]],
    }


def print_demo(summary: dict[str, Any]) -> None:
    """Prints example captions and the result of `demo`."""
    for caption in summary["examples"]:
        print(caption)
    print(f"{_headline(summary['correct'])} Seconds: {summary['seconds']:.0f}. Report: {summary['report']}")


def _choose_weights() -> tuple[str, tuple[str, ...]]:
    """Returns the extractor weights and the notices about them."""
    if is_imagenet_available(find_application(EXTRACTOR)):
        return "imagenet", ()
    notice = f"The ImageNet weights of {EXTRACTOR} are not available. With random weights, captions are less accurate."
    _log.warning(notice)
    return f"random:{SEED}", (notice,)


def _caption(scene_dir: Path, run_dir: Path) -> list[CaptionedScene]:
    annotations = json.loads((scene_dir / _ANNOTATIONS.format("val")).read_bytes())
    held_out = {str(image["id"]) for image in annotations["images"]}
    scenes = [scene for scene in load_scenes(scene_dir) if str(scene.number) in held_out]
    images = [(scene_dir / "images" / f"{scene.number:012d}.jpg").read_bytes() for scene in scenes]
    captions = load_run(run_dir).caption_many(images)
    return [
        CaptionedScene(scene, image, caption)
        for scene, image, caption in zip(scenes, images, captions, strict=True)
        if isinstance(caption, Caption)
    ]


def _score(captioned: list[CaptionedScene]) -> dict[str, dict[str, float]]:
    """Returns the fraction of correct captions, and the fraction if captions and scenes are shuffled."""
    others = [one.scene for one in captioned[_CONTROL_OFFSET:] + captioned[:_CONTROL_OFFSET]]

    def count(is_correct: Callable[[CaptionedScene, Scene], bool]) -> dict[str, float]:
        own = sum(is_correct(one, one.scene) for one in captioned)
        control = sum(is_correct(one, other) for one, other in zip(captioned, others, strict=True))
        return {"fraction": own / len(captioned), "chance": control / len(captioned)}

    return {
        "colors": count(lambda one, scene: one.names_only("color", scene)),
        "shapes": count(lambda one, scene: one.names_only("shape", scene)),
        "captions": count(CaptionedScene.describes),
    }


def _headline(correct: dict[str, dict[str, float]]) -> str:
    colors = correct["colors"]
    return (
        f"{colors['fraction']:.0%} of the captions of held-out scenes name only colors in the scene (chance: "
        f"{colors['chance']:.0%}); {correct['captions']['fraction']:.0%} are correct in every word."
    )
