"""`capt demo`: the whole chain on scenes it makes: features, tokens, training, captions, and one page that shows it."""

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
from features.synthetic.scenes import COLORS, SHAPES, Scene, load_scenes, make_scenes, parse_caption
from pipelines.prepare_captions import prepare_captions
from pipelines.prepare_features import prepare_features
from schemas.options.prepare import PrepareCaptions, PrepareFeatures
from schemas.options.training import CaptionerName, TrainCaptioner
from schemas.options.workflows import Demo
from trainer.inference.caption_images import draw_attention
from trainer.runs.captioner_run import Caption
from trainer.runs.directory import LOSS_PLOT
from trainer.runs.run import load_run
from trainer.tasks.train_captioner import train_captioner
from workflows.html_reports import CaptionedImage, Report, Step, report_page

SCENES = 400
SEED = 7
EPOCHS = 20
SIZES = {"embedding_dim": 64, "units": 128, "attention_dim": 128, "output_dim": 128, "dropout": 0.4}
SHOWN = 12
NETWORK = "inception_v3"
MODEL: CaptionerName = "soft_attention"

Done = TypeVar("Done")

# How far captions are shifted against scenes for the control.
_SHIFT = 7
_VALUES = {"color": frozenset(COLORS), "shape": frozenset(SHAPES)}

_log = logging.getLogger("capt.demo")


@dataclass(frozen=True)
class DemoPaths:
    """Where the demo leaves its things.

    Args:
        out: Path. The demo's directory.
    """

    out: Path

    @property
    def scenes(self) -> Path:
        """Pictures and annotations, in COCO's layout."""
        return self.out / "scenes"

    @property
    def annotations(self) -> tuple[str, str]:
        """The captions of the train and of the held-out scenes."""
        directory = self.scenes / "annotations"
        return str(directory / "captions_train2017.json"), str(directory / "captions_val2017.json")

    @property
    def store(self) -> Path:
        """Features and tokens."""
        return self.out / "store"

    @property
    def run(self) -> Path:
        """The trained captioner."""
        return self.out / "run"

    @property
    def report(self) -> Path:
        """The page that shows it all."""
        return self.out / "report.html"


def demo(options: Demo) -> dict[str, Any]:
    """Make scenes, prepare them, train on them, caption the held-out ones, and write `report.html`.

    Args:
        options: The output directory; an interrupted demo resumes there.

    Returns:
        The figures that `--json` prints.
    """
    started = time.monotonic()
    paths = DemoPaths(local_path(options.output, "--output").absolute())
    weights, notices = _weights()
    steps: list[Step] = []
    made = _timed(steps, "make scenes", lambda: make_scenes(paths.scenes, SCENES, SEED), _say_scenes)
    features = _timed(steps, "extract features", lambda: _prepare_features(paths, weights), _say_features)
    captions = _timed(steps, "tokenize captions", lambda: _prepare_captions(paths), _say_captions)
    trained = _timed(steps, "train", lambda: _train(paths, features, captions), _say_training)
    told = _timed(steps, "caption held-out scenes", lambda: _tell(paths), _say_told)
    figures = {
        "scenes": made["images"],
        "held_out": len(told),
        "right": _shares(told),
        "weights": weights,
        "val_loss": trained["val_loss"],
        "val_accuracy": trained["val_accuracy"],
        "seconds": round(time.monotonic() - started, 1),
        "report": str(paths.report),
        "store": str(paths.store),
        "run": str(paths.run),
        "examples": [one.caption.text for one in told[:SHOWN]],
    }
    write(paths.report, _page(paths, notices, figures, steps, told).encode())
    return figures


def show_demo(figures: dict[str, Any]) -> None:
    """Print what the demo reached."""
    for caption in figures["examples"]:
        print(caption)
    print(f"{_headline(figures['right'])} It took {figures['seconds']:.0f} s; open {figures['report']}")


def _timed(steps: list[Step], name: str, do: Callable[[], Done], say: Callable[[Done], str]) -> Done:
    _log.info("%s …", name)
    started = time.monotonic()
    done = do()
    steps.append(Step(name, say(done), time.monotonic() - started))
    _log.info("%s: %s (%.1f s)", name, steps[-1].done, steps[-1].seconds)
    return done


def _weights() -> tuple[str, tuple[str, ...]]:
    if is_imagenet_available(find_application(NETWORK)):
        return "imagenet", ()
    notice = (
        f"The ImageNet weights of {NETWORK} could not be had, so seeded random weights stand in: the features carry "
        "less, and the captions are worse than they would be."
    )
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
            extractor=NETWORK,
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
            hyperparameters=SIZES,
        )
    )


@dataclass(frozen=True)
class CaptionedScene:
    """A held-out scene, its picture, and what the captioner said of it."""

    scene: Scene
    image: bytes
    caption: Caption

    def names_rightly(self, kind: str, scene: Scene) -> bool:
        """Whether the caption names a `colour` or `shape`, and each that it names is in the scene."""
        there = {getattr(drawn.scene_object, kind) for drawn in scene.objects}
        said = {word for word in self.caption.words if word in _VALUES[kind]}
        return bool(said) and said <= there

    def is_true(self, scene: Scene) -> bool:
        """Whether the caption names every object of the scene, and one relation, all right."""
        description = parse_caption(self.caption.text)
        return description is not None and description.matches(scene)


def _tell(paths: DemoPaths) -> list[CaptionedScene]:
    run = load_run(paths.run)
    held_out = {str(image["id"]) for image in json.loads(Path(paths.annotations[1]).read_bytes())["images"]}
    scenes = [scene for scene in load_scenes(paths.scenes) if str(scene.number) in held_out]
    images = [(paths.scenes / "images" / f"{scene.number:012d}.jpg").read_bytes() for scene in scenes]
    captions = run.caption_many(images)
    return [
        CaptionedScene(scene, image, made)
        for scene, image, made in zip(scenes, images, captions, strict=True)
        if isinstance(made, Caption)
    ]


def _shares(told: list[CaptionedScene]) -> dict[str, tuple[float, float]]:
    """Share of captions with right colours, right shapes, and true in all; and the same against another's scene."""
    others = [one.scene for one in told[_SHIFT:] + told[:_SHIFT]]

    def share(is_right: Callable[[CaptionedScene, Scene], bool]) -> tuple[float, float]:
        own = sum(is_right(one, one.scene) for one in told)
        control = sum(is_right(one, other) for one, other in zip(told, others, strict=True))
        return own / len(told), control / len(told)

    return {
        "colours": share(lambda one, scene: one.names_rightly("color", scene)),
        "shapes": share(lambda one, scene: one.names_rightly("shape", scene)),
        "everything": share(CaptionedScene.is_true),
    }


def _attention(image: bytes, made: Caption, fitting: Resizer) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "attention.png"
        draw_attention(image, made, path, fitting)
        return path.read_bytes()


def _page(
    paths: DemoPaths, notices: tuple[str, ...], figures: dict[str, Any], steps: list[Step], told: list[CaptionedScene]
) -> str:
    right, fitting = figures["right"], load_run(paths.run).resizer
    return report_page(
        Report(
            title="capt demo",
            headline=_headline(right),
            notices=notices,
            figures={
                **{f"{message} right": f"{own:.0%} (chance {chance:.0%})" for message, (own, chance) in right.items()},
                "validation loss": f"{figures['val_loss']:.3f}",
                "validation accuracy": f"{figures['val_accuracy']:.1%}",
                "seconds": figures["seconds"],
            },
            steps=tuple(steps),
            loss_curve=(paths.run / LOSS_PLOT).read_bytes(),
            tellings=tuple(_telling(one, fitting) for one in told[:SHOWN]),
        )
    )


def _telling(one: CaptionedScene, fitting: Resizer) -> CaptionedImage:
    drawn = _attention(one.image, one.caption, fitting)
    return CaptionedImage(one.image, one.caption.text, one.scene.captions, drawn, one.is_true(one.scene))


def _headline(right: dict[str, tuple[float, float]]) -> str:
    (colours, chance), (everything, _) = right["colours"], right["everything"]
    return (
        f"Of captions for scenes it never saw, {colours:.0%} name only colours that are there (another scene's: "
        f"{chance:.0%}), and {everything:.0%} are right in every word."
    )


def _say_scenes(made: dict[str, Any]) -> str:
    return f"{made['images']} pictures with {made['captions']} captions"


def _say_features(done: dict[str, Any]) -> str:
    return f"{done['ok']} extracted, {done['cached']} found in the store, {done['failed']} failed"


def _say_captions(done: dict[str, Any]) -> str:
    return f"{done['ok']} tokenized, {done['cached']} found in the store, {done['words']} words"


def _say_training(done: dict[str, Any]) -> str:
    return f"{done['epochs']} epochs, best validation loss {done['val_loss']:.3f}"


def _say_told(told: list[CaptionedScene]) -> str:
    return f"{len(told)} captions"
