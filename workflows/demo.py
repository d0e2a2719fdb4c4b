"""Runs the whole workflow on synthetic scenes and writes an HTML report: `capt demo`."""

import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from features.extractors.application import find_application
from features.extractors.weights import is_imagenet_available
from features.images.resizer import Resizer
from features.io.atomic_files import write
from features.io.locations import local_path
from features.synthetic.scenes.dataset import load_scenes, make_scenes
from features.synthetic.scenes.grammar import parse_caption
from features.synthetic.scenes.scene import COLORS, SHAPES, Scene
from pipelines.prepare_captions import prepare_captions
from pipelines.prepare_features import prepare_features
from schemas.options.prepare import PrepareCaptions, PrepareFeatures
from schemas.options.training import CaptionerName, TrainCaptioner
from schemas.options.workflows import Demo
from trainer.inference.caption_images import draw_attention
from trainer.runs.captioner_run import Caption
from trainer.runs.directory import LOSS_PLOT
from trainer.runs.run import load_run
from trainer.tasks.captioning import train_captioner
from workflows.html_reports import CaptionedImage, Report, Step, build_demo_page

NUM_SCENES = 400
SEED = 7
EPOCHS = 20
HYPERPARAMETERS = {"embedding_dim": 64, "units": 128, "attention_dim": 128, "output_dim": 128, "dropout": 0.4}
NUM_EXAMPLES = 12
EXTRACTOR = "inception_v3"
MODEL: CaptionerName = "soft_attention"

# As a control, each caption is also compared with the scene that is this many positions away.
_CONTROL_OFFSET = 7
_VOCABULARIES = {"color": frozenset(COLORS), "shape": frozenset(SHAPES)}

_Result = TypeVar("_Result")
_log = logging.getLogger("capt.demo")


@dataclass(frozen=True)
class DemoPaths:
    """The files of a demo."""

    root: Path

    @property
    def scenes(self) -> Path:
        """Images and annotations in COCO layout."""
        return self.root / "scenes"

    @property
    def annotations(self) -> tuple[str, str]:
        """Annotation files of the train and the held-out scenes."""
        directory = self.scenes / "annotations"
        return str(directory / "captions_train2017.json"), str(directory / "captions_val2017.json")

    @property
    def store(self) -> Path:
        """The store."""
        return self.root / "store"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.root / "run"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"


@dataclass(frozen=True)
class CaptionedScene:
    """A held-out scene, its encoded image, and the model's caption."""

    scene: Scene
    image: bytes
    caption: Caption

    def names_only(self, kind: str, scene: Scene) -> bool:
        """Returns whether the caption names a `color` or `shape`, and only those of a scene."""
        present = {getattr(placed.scene_object, kind) for placed in scene.objects}
        named = {word for word in self.caption.words if word in _VOCABULARIES[kind]}
        return bool(named) and named <= present

    def describes(self, scene: Scene) -> bool:
        """Returns whether the caption names all objects of a scene and their relation correctly."""
        description = parse_caption(self.caption.text)
        return description is not None and description.matches(scene)


def demo(options: Demo) -> dict[str, Any]:
    """Generates scenes, prepares them, trains a captioner, captions the held-out scenes, and writes `report.html`.

    Args:
        options: The output directory. An interrupted demo resumes there.

    Returns:
        `scenes` and `held_out` (numbers of images); `correct`, for `colors`, `shapes` and `captions`: `fraction`
        correct and `chance` (the same for another scene's caption); `weights`, `val_loss`, `val_token_accuracy`,
        `seconds`, `examples` (captions), and the paths `report`, `store` and `run_dir`.
    """
    started = time.monotonic()
    paths = DemoPaths(local_path(options.output, "--output").absolute())
    weights, notices = _choose_weights()
    steps: list[Step] = []
    scenes = _run_step(
        steps,
        "generate scenes",
        lambda: make_scenes(paths.scenes, NUM_SCENES, SEED),
        lambda result: f"{result['images']} images with {result['captions']} captions",
    )
    features = _run_step(
        steps,
        "extract features",
        lambda: _prepare_features(paths, weights),
        lambda result: f"{result['ok']} extracted, {result['cached']} already in the store, {result['failed']} failed",
    )
    captions = _run_step(
        steps,
        "tokenize captions",
        lambda: _prepare_captions(paths),
        lambda result: f"{result['ok']} tokenized, {result['cached']} already in the store, {result['words']} words",
    )
    training = _run_step(
        steps,
        "train",
        lambda: _train(paths, features, captions),
        lambda result: f"{result['epochs']} epochs, best validation loss {result['val_loss']:.3f}",
    )
    captioned = _run_step(
        steps, "caption held-out scenes", lambda: _caption(paths), lambda result: f"{len(result)} captions"
    )
    summary = {
        "scenes": scenes["images"],
        "held_out": len(captioned),
        "correct": _score(captioned),
        "weights": weights,
        "val_loss": training["val_loss"],
        "val_token_accuracy": training["val_token_accuracy"],
        "seconds": round(time.monotonic() - started, 1),
        "report": str(paths.report),
        "store": str(paths.store),
        "run_dir": str(paths.run),
        "examples": [one.caption.text for one in captioned[:NUM_EXAMPLES]],
    }
    write(paths.report, _build_page(paths, notices, summary, steps, captioned).encode())
    return summary


def print_demo(summary: dict[str, Any]) -> None:
    """Prints example captions and the result of `demo`."""
    for caption in summary["examples"]:
        print(caption)
    print(f"{_headline(summary['correct'])} Seconds: {summary['seconds']:.0f}. Report: {summary['report']}")


def _run_step(steps: list[Step], name: str, run: Callable[[], _Result], describe: Callable[[_Result], str]) -> _Result:
    _log.info("%s …", name)
    started = time.monotonic()
    result = run()
    steps.append(Step(name, describe(result), time.monotonic() - started))
    _log.info("%s: %s (%.1f s)", name, steps[-1].summary, steps[-1].seconds)
    return result


def _choose_weights() -> tuple[str, tuple[str, ...]]:
    """Returns the extractor weights and the notices about them."""
    if is_imagenet_available(find_application(EXTRACTOR)):
        return "imagenet", ()
    notice = f"The ImageNet weights of {EXTRACTOR} are not available. With random weights, captions are less accurate."
    _log.warning(notice)
    return f"random:{SEED}", (notice,)


def _prepare_features(paths: DemoPaths, weights: str) -> dict[str, Any]:
    return prepare_features(
        PrepareFeatures(
            store=str(paths.store),
            dataset_type="coco",
            dataset_name="scenes",
            images=(str(paths.scenes / "images"),),
            annotations=paths.annotations,
            extractor=EXTRACTOR,
            weights=weights,
        )
    )


def _prepare_captions(paths: DemoPaths) -> dict[str, Any]:
    return prepare_captions(
        PrepareCaptions(
            store=str(paths.store), dataset_type="coco", dataset_name="scenes", annotations=paths.annotations
        )
    )


def _train(paths: DemoPaths, features: dict[str, Any], captions: dict[str, Any]) -> dict[str, Any]:
    return train_captioner(
        TrainCaptioner(
            store=str(paths.store),
            run_dir=str(paths.run),
            model=MODEL,
            feature_table=features["fingerprint"],
            caption_table=captions["fingerprint"],
            seed=SEED,
            epochs=EPOCHS,
            hyperparameters=HYPERPARAMETERS,
        )
    )


def _caption(paths: DemoPaths) -> list[CaptionedScene]:
    held_out = {str(image["id"]) for image in json.loads(Path(paths.annotations[1]).read_bytes())["images"]}
    scenes = [scene for scene in load_scenes(paths.scenes) if str(scene.number) in held_out]
    images = [(paths.scenes / "images" / f"{scene.number:012d}.jpg").read_bytes() for scene in scenes]
    captions = load_run(paths.run).caption_many(images)
    return [
        CaptionedScene(scene, image, caption)
        for scene, image, caption in zip(scenes, images, captions, strict=True)
        if isinstance(caption, Caption)
    ]


def _score(captioned: list[CaptionedScene]) -> dict[str, dict[str, float]]:
    """Returns the fraction of correct captions, and the same for the scenes of other captions."""
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


def _build_page(
    paths: DemoPaths,
    notices: tuple[str, ...],
    summary: dict[str, Any],
    steps: list[Step],
    captioned: list[CaptionedScene],
) -> str:
    resizer = load_run(paths.run).resizer
    correct = {
        f"correct {name}": f"{score['fraction']:.0%} (chance {score['chance']:.0%})"
        for name, score in summary["correct"].items()
    }
    return build_demo_page(
        Report(
            title="capt demo",
            headline=_headline(summary["correct"]),
            notices=notices,
            values={
                **correct,
                "validation loss": f"{summary['val_loss']:.3f}",
                "validation accuracy": f"{summary['val_token_accuracy']:.1%}",
                "seconds": summary["seconds"],
            },
            steps=tuple(steps),
            loss_plot=(paths.run / LOSS_PLOT).read_bytes(),
            images=tuple(
                CaptionedImage(
                    one.image,
                    one.caption.text,
                    one.scene.captions,
                    _draw_attention(one, resizer),
                    one.describes(one.scene),
                )
                for one in captioned[:NUM_EXAMPLES]
            ),
        )
    )


def _draw_attention(one: CaptionedScene, resizer: Resizer) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "attention.png"
        draw_attention(one.image, one.caption, path, resizer)
        return path.read_bytes()


def _headline(correct: dict[str, dict[str, float]]) -> str:
    colors = correct["colors"]
    return (
        f"{colors['fraction']:.0%} of the captions of held-out scenes name only colors in the scene (chance: "
        f"{colors['chance']:.0%}); {correct['captions']['fraction']:.0%} are correct in every word."
    )
