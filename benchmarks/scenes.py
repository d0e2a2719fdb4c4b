"""Benchmark: fraction of correct captions of held-out scenes per captioner, with shuffled images as control.

    python benchmarks/scenes.py [--out DIR] [--models soft_attention,merge] [--json]

Generates 3,000 scenes of two or three objects, trains a small extractor on attributes of other scenes, extracts
features through `capt prepare features --extractor custom:FILE.keras`, prepares the captions, trains each captioner
with `benchmarks/configs/scenes_MODEL.yaml`, captions the held-out scenes and prints one table. Data and runs in DIR are
reused. docs/benchmarks/scenes.md explains the results.
"""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import yaml
from cost import timed
from scene_network import GRID, LOCATIONS_LAYER, SCENE_LAYER, train_network

import capt
from features.store import open_store
from features.synthetic.scenes.dataset import load_scenes, make_scenes
from features.synthetic.scenes.generator import SceneDatasetConfig
from features.synthetic.scenes.scene import Scene
from features.synthetic.scenes.scores import find_error, measure_attention
from trainer.data.held_out_images import load_held_out_images
from trainer.metrics.caption_metrics import Scorer
from trainer.models.model_specs import MODELS, model_spec
from trainer.runs.captioner_run import Caption
from trainer.runs.run import load_run

SCENES, SEED = 3000, 1
NETWORK_SCENES, NETWORK_SEED, NETWORK_EPOCHS = 12000, 1001, 12
RULES = SceneDatasetConfig(object_counts=(2, 3), held_out_fraction=0.125)
SPLIT = "test"
CONFIGS = Path(__file__).parent / "configs"
CORES = 2
_DATASET = "scenes"
_SHIFT = 7  # number of scenes by which the control's captions are shifted


@dataclass(frozen=True)
class Bench:
    """The directory and sizes of the benchmark.

    Args:
        out: Output directory.
        scenes: Number of scenes.
        network_scenes: Number of scenes that the extractor is trained on.
        network_epochs: Number of epochs of the extractor.
    """

    out: Path
    scenes: int = SCENES
    network_scenes: int = NETWORK_SCENES
    network_epochs: int = NETWORK_EPOCHS

    @property
    def dataset(self) -> Path:
        """The scenes in COCO's layout."""
        return self.out / "scenes"

    @property
    def annotations(self) -> list[str]:
        """The annotation files of all splits."""
        return sorted(map(str, (self.dataset / "annotations").glob("captions_*.json")))

    @property
    def network(self) -> Path:
        """The extractor."""
        return self.out / "network.keras"

    @property
    def store(self) -> Path:
        """The store."""
        return self.out / "store"

    def run(self, model: str) -> Path:
        """Returns the run directory of a model."""
        return self.out / "runs" / model


@dataclass(frozen=True)
class CaptionedScene:
    """A scene and its predicted caption."""

    scene: Scene
    caption: Caption
    references: tuple[str, ...]


# === Steps ===


def prepare(bench: Bench) -> dict[str, Any]:
    """Prepares scenes, extractor and tables; returns the extractor's metrics and cost, and the fingerprints."""
    make_scenes(bench.dataset, bench.scenes, SEED, RULES)
    network = _once(bench.out / "network.json", lambda: _network(bench))
    captions = capt.prepare_captions(
        store=str(bench.store), dataset_type="coco", dataset_name=_DATASET, annotations=bench.annotations
    )
    return {
        "network": network,
        "locations": _features(bench, LOCATIONS_LAYER),
        "scene": _features(bench, SCENE_LAYER),
        "captions": captions["fingerprint"],
        "words": captions["vocab_size"],
    }


def train(bench: Bench, tables: dict[str, Any], model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Trains a captioner or resumes it; returns its metrics, and the cost including earlier attempts."""
    keras.utils.clear_session()
    spent = bench.out / "runs" / f"{model}.json"
    with timed(spent) as idle:
        trained = capt.train_captioner(
            store=bench.store,
            run_dir=bench.run(model),
            model=model,
            feature_table=tables["locations" if model_spec(model).spatial else "scene"],
            caption_table=tables["captions"],
            hyperparameters=options,
        )
        if trained["resumed_at"] == trained["steps"]:
            idle.append("already trained")
    return {**{name: trained[name] for name in ("epochs", "best_epoch", "val_loss")}, **json.loads(spent.read_text())}


def caption_scenes(bench: Bench, model: str) -> list[CaptionedScene]:
    """Returns the captions of the held-out scenes by a trained captioner, sorted by scene number."""
    run, store = load_run(bench.run(model)), open_store(bench.store)
    tables = run.metadata.open_tables(store)
    held_out = load_held_out_images(tables, SPLIT)
    captions = run.caption_features(tables.features.read(held_out.rows))
    scenes = {str(scene.number): scene for scene in load_scenes(bench.dataset)}
    captioned = [
        CaptionedScene(scenes[name[1]], caption, tuple(held_out.references[name]))
        for name, caption in zip(held_out.names, captions, strict=True)
    ]
    return sorted(captioned, key=lambda one: one.scene.number)


def compute_metrics(captioned: Sequence[CaptionedScene], scorer: Scorer) -> dict[str, Any]:
    """Returns metrics, fractions of correct captions, errors, attention, and the control."""
    others = [*captioned[_SHIFT:], *captioned[:_SHIFT]]
    shuffled = [
        CaptionedScene(one.scene, other.caption, one.references) for one, other in zip(captioned, others, strict=True)
    ]
    seen = [one for one in captioned if not RULES.describes_held_out(one.scene.number)]
    unseen = [one for one in captioned if RULES.describes_held_out(one.scene.number)]
    faults = Counter(fault for one in captioned if (fault := find_error(one.caption.text, one.scene)))
    return {
        "scenes": len(captioned),
        "unseen_scenes": len(unseen),
        "true": _correct_fraction(captioned),
        "true_seen": _correct_fraction(seen),
        "true_unseen": _correct_fraction(unseen),
        "true_of_objects": {
            count: _correct_fraction([one for one in captioned if len(one.scene.objects) == count])
            for count in RULES.object_counts
        },
        "faults": dict(faults.most_common()),
        **_scores(captioned, scorer),
        "shuffled": {"true": _correct_fraction(shuffled), **_scores(shuffled, scorer)},
        "attention": _attention(captioned),
    }


def _network(bench: Bench) -> dict[str, Any]:
    bench.out.mkdir(parents=True, exist_ok=True)
    spent = bench.out / "network.seconds.json"
    with timed(spent):
        reached = train_network(bench.network, NETWORK_SEED, bench.network_scenes, bench.network_epochs, RULES)
    return {**reached, **json.loads(spent.read_text())}


def _features(bench: Bench, layer: str) -> str:
    prepared = capt.prepare_features(
        store=str(bench.store),
        dataset_type="coco",
        dataset_name=_DATASET,
        images=[str(bench.dataset / "images")],
        annotations=bench.annotations,
        extractor=f"custom:{bench.network}",
        layer=layer,
        precision="float32",
    )
    return str(prepared["fingerprint"])


def _correct_fraction(captioned: Sequence[CaptionedScene]) -> float | None:
    return float(np.mean([find_error(one.caption.text, one.scene) is None for one in captioned])) if captioned else None


def _scores(captioned: Sequence[CaptionedScene], scorer: Scorer) -> dict[str, Any]:
    scores = scorer.score([one.caption.text for one in captioned], [one.references for one in captioned])
    return {**scores.metrics, "skipped_metrics": scores.skipped_metrics}


def _attention(captioned: Sequence[CaptionedScene]) -> dict[str, float] | None:
    """Returns how often the attention at color and shape words peaks in the object's box, and by chance."""
    looks = [
        look
        for one in captioned
        if one.caption.attention is not None
        for look in measure_attention(one.caption.words, one.caption.attention, one.scene, GRID.rows, GRID.columns)
    ]
    if not looks:
        return None
    color, shape, chance = np.mean(looks, axis=0).tolist()
    return {"at_color": color, "at_shape": shape, "chance": chance, "objects": len(looks)}


def _once(path: Path, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the result of `do`, which is stored as JSON and computed once."""
    if not path.is_file():
        done = do()
        path.write_text(json.dumps(done))
    return dict(json.loads(path.read_text()))


# === Report ===


def load_options(model: str) -> dict[str, Any]:
    """Returns the committed hyperparameters of a model."""
    return dict(yaml.safe_load((CONFIGS / f"scenes_{model}.yaml").read_text(encoding="utf-8")))


def measure(bench: Bench, models: Sequence[str], options: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Returns the results of the extractor and of each model."""
    tables = prepare(bench)
    figures: dict[str, Any] = {}
    with Scorer() as scorer:
        for model in models:
            chosen = options(model)
            trained = train(bench, tables, model, chosen)
            figures[model] = {
                "options": chosen,
                "training": trained,
                **compute_metrics(caption_scenes(bench, model), scorer),
            }
            print(f"{model}: {figures[model]['true']:.1%} true", file=sys.stderr, flush=True)
    return {"network": tables["network"], "words": tables["words"], "models": figures}


def table(figures: dict[str, Any]) -> str:
    """Formats the results as a Markdown table, one row per model."""
    columns = (
        "true",
        "seen",
        "unseen",
        "BLEU-4",
        "METEOR",
        "ROUGE-L",
        "CIDEr-D",
        "shuffled: true",
        "shuffled: CIDEr-D",
    )
    head = (
        "model",
        *columns,
        "color: attention in box",
        "shape: attention in box",
        "chance",
        "wall s",
        "CPU s",
        f"min on {CORES} cores",
    )
    rows = [head, ("---",) * len(head), *(_row(model, one) for model, one in figures["models"].items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(model: str, one: dict[str, Any]) -> tuple[str, ...]:
    shares = [one["true"], one["true_seen"], one["true_unseen"]]
    scores = [one.get(name) for name in ("bleu_4", "meteor", "rouge_l", "cider_d")]
    shuffled, looks, spent = one["shuffled"], one["attention"], one["training"]
    return (
        f"`{model}`",
        *map(_percent, shares),
        *("–" if score is None else f"{score:.3f}" for score in scores),
        _percent(shuffled["true"]),
        f"{shuffled['cider_d']:.3f}",
        *(map(_percent, (looks["at_color"], looks["at_shape"], looks["chance"])) if looks else ("–",) * 3),
        f"{spent['seconds']:.0f}",
        f"{spent['cpu_seconds']:.0f}",
        f"{spent['cpu_seconds'] / CORES / 60:.1f}",
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _print_results(figures: dict[str, Any]) -> None:
    network = figures["network"]
    print(
        f"extractor: {network['scenes']} scenes, {network['epochs']} epochs, {network['seconds']:.0f} s, "
        f"{network['cpu_seconds']:.0f} CPU s; scenes with all objects right: "
        f"{network['objects']:.1%}, also with all relations right: {network['relations']:.1%}\n"
    )
    print(table(figures), end="\n\n")
    for model, one in figures["models"].items():
        faults = ", ".join(f"{fault} {count}" for fault, count in one["faults"].items())
        print(f"{model}: errors of {one['scenes']} captions: {faults or 'none'}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scenes"), help="output directory")
    parser.add_argument("--models", default=",".join(MODELS), help="models, comma-separated")
    parser.add_argument("--json", action="store_true", help="also print the results as one line of JSON")
    options = parser.parse_args()
    models = [model_spec(name).name for name in options.models.split(",")]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("capt").setLevel(logging.INFO)
    figures = measure(Bench(options.out.absolute()), models, load_options)
    _print_results(figures)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
