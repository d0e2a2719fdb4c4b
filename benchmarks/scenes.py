"""How many captions of unseen scenes are true, captioner by captioner, beside a control with shuffled images.

    python benchmarks/scenes.py [--out DIR] [--models soft_attention,merge] [--json]

Makes 3,000 scenes of two or three objects, trains a small network on attributes of other scenes, extracts features with
it through `capt prepare features --extractor custom:FILE.keras`, prepares the captions, trains every captioner as
`benchmarks/configs/scenes_MODEL.yaml` says, captions the held-out scenes and prints one table. What is in DIR already
is not made or trained again. The figures and what they mean are in docs/benchmarks/scenes.md.
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
from scene_network import COLUMNS, PLACES_LAYER, ROWS, SCENE_LAYER, train_network
from scene_scores import fault_of, looks_of
from spending import timed

import capt
from features.store import open_store
from features.synthetic.scenes.dataset import load_scenes, make_scenes
from features.synthetic.scenes.dataset_config import SceneDatasetConfig
from features.synthetic.scenes.scene import Scene
from trainer.data.held_out_images import load_held_out_images, run_tables
from trainer.metrics import Scorer
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
_SHIFT = 7  # by how many scenes the control's captions are moved


@dataclass(frozen=True)
class Bench:
    """The benchmark's directory and sizes.

    Args:
        out: Path. Where everything is left.
        scenes: int. Scenes to make.
        network_scenes: int. Scenes that the network learns from.
        network_epochs: int. Passes over them.
    """

    out: Path
    scenes: int = SCENES
    network_scenes: int = NETWORK_SCENES
    network_epochs: int = NETWORK_EPOCHS

    @property
    def pictures(self) -> Path:
        """The scenes, in COCO's layout."""
        return self.out / "scenes"

    @property
    def annotations(self) -> list[str]:
        """The captions of all splits."""
        return sorted(map(str, (self.pictures / "annotations").glob("captions_*.json")))

    @property
    def network(self) -> Path:
        """The network."""
        return self.out / "network.keras"

    @property
    def store(self) -> Path:
        """Features and tokens."""
        return self.out / "store"

    def run(self, model: str) -> Path:
        """The run of a model."""
        return self.out / "runs" / model


@dataclass(frozen=True)
class Told:
    """A scene, and what a captioner said of it."""

    scene: Scene
    caption: Caption
    references: tuple[str, ...]


# === Steps ===


def prepare(bench: Bench) -> dict[str, Any]:
    """Scenes, network, features and tokens; what the network reached and took, and the tables' fingerprints."""
    make_scenes(bench.pictures, bench.scenes, SEED, RULES)
    network = _once(bench.out / "network.json", lambda: _network(bench))
    captions = capt.prepare_captions(
        store=str(bench.store), dataset_type="coco", dataset_name=_DATASET, annotations=bench.annotations
    )
    return {
        "network": network,
        "places": _features(bench, PLACES_LAYER),
        "scene": _features(bench, SCENE_LAYER),
        "captions": captions["fingerprint"],
        "words": captions["vocab_size"],
    }


def train(bench: Bench, tables: dict[str, Any], model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Train a captioner, or go on with it; its figures and what the training took, earlier attempts included."""
    keras.utils.clear_session()
    spent = bench.out / "runs" / f"{model}.json"
    with timed(spent) as idle:
        trained = capt.train_captioner(
            store=bench.store,
            run_dir=bench.run(model),
            model=model,
            feature_table=tables["places" if model_spec(model).spatial else "scene"],
            caption_table=tables["captions"],
            hyperparameters=options,
        )
        if trained["resumed_at"] == trained["steps"]:
            idle.append("trained already")
    return {**{name: trained[name] for name in ("epochs", "best_epoch", "val_loss")}, **json.loads(spent.read_text())}


def tell(bench: Bench, model: str) -> list[Told]:
    """What a trained captioner says of the held-out scenes, in the order of their numbers."""
    run, store = load_run(bench.run(model)), open_store(bench.store)
    tables = run_tables(store, run.metadata)
    held = load_held_out_images(tables, SPLIT)
    captions = run.caption_features(tables.features.read(held.rows))
    scenes = {str(scene.number): scene for scene in load_scenes(bench.pictures)}
    told = [
        Told(scenes[name[1]], caption, tuple(held.references[name]))
        for name, caption in zip(held.names, captions, strict=True)
    ]
    return sorted(told, key=lambda one: one.scene.number)


def judge(told: Sequence[Told], scorer: Scorer) -> dict[str, Any]:
    """Scores, shares of true captions with their faults, where was looked, and the control."""
    others = [*told[_SHIFT:], *told[:_SHIFT]]
    shuffled = [Told(one.scene, other.caption, one.references) for one, other in zip(told, others, strict=True)]
    seen = [one for one in told if not RULES.describes_held_out(one.scene.number)]
    unseen = [one for one in told if RULES.describes_held_out(one.scene.number)]
    faults = Counter(fault for one in told if (fault := fault_of(one.caption.text, one.scene)))
    return {
        "scenes": len(told),
        "unseen_scenes": len(unseen),
        "true": _share_true(told),
        "true_seen": _share_true(seen),
        "true_unseen": _share_true(unseen),
        "true_of_objects": {
            count: _share_true([one for one in told if len(one.scene.objects) == count])
            for count in RULES.object_counts
        },
        "faults": dict(faults.most_common()),
        **_scores(told, scorer),
        "shuffled": {"true": _share_true(shuffled), **_scores(shuffled, scorer)},
        "attention": _attention(told),
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
        images=[str(bench.pictures / "images")],
        annotations=bench.annotations,
        extractor=f"custom:{bench.network}",
        layer=layer,
        precision="float32",
    )
    return str(prepared["fingerprint"])


def _share_true(told: Sequence[Told]) -> float | None:
    return float(np.mean([fault_of(one.caption.text, one.scene) is None for one in told])) if told else None


def _scores(told: Sequence[Told], scorer: Scorer) -> dict[str, Any]:
    scores = scorer.score([one.caption.text for one in told], [one.references for one in told])
    return {**scores.metrics, "skipped_metrics": scores.skipped_metrics}


def _attention(told: Sequence[Told]) -> dict[str, float] | None:
    """How often the looks at an object's colour and shape peak in its box, and how often any place would."""
    looks = [
        look
        for one in told
        if one.caption.attention is not None
        for look in looks_of(one.caption.words, one.caption.attention, one.scene, ROWS, COLUMNS)
    ]
    if not looks:
        return None
    color, shape, chance = np.mean(looks, axis=0).tolist()
    return {"at_colour": color, "at_shape": shape, "chance": chance, "objects": len(looks)}


def _once(path: Path, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `do` gave when it was last done to its end, kept as JSON."""
    if not path.is_file():
        done = do()
        path.write_text(json.dumps(done))
    return dict(json.loads(path.read_text()))


# === Report ===


def options_of(model: str) -> dict[str, Any]:
    """The committed options of a model."""
    return dict(yaml.safe_load((CONFIGS / f"scenes_{model}.yaml").read_text(encoding="utf-8")))


def measure(bench: Bench, models: Sequence[str], options: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """All figures: of the network, and of every model."""
    tables = prepare(bench)
    figures: dict[str, Any] = {}
    with Scorer() as scorer:
        for model in models:
            chosen = options(model)
            trained = train(bench, tables, model, chosen)
            figures[model] = {"options": chosen, "training": trained, **judge(tell(bench, model), scorer)}
            print(f"{model}: {figures[model]['true']:.1%} true", file=sys.stderr, flush=True)
    return {"network": tables["network"], "words": tables["words"], "models": figures}


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table, a row a model."""
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
        "colour: look in box",
        "shape: look in box",
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
        *(map(_percent, (looks["at_colour"], looks["at_shape"], looks["chance"])) if looks else ("–",) * 3),
        f"{spent['seconds']:.0f}",
        f"{spent['cpu_seconds']:.0f}",
        f"{spent['cpu_seconds'] / CORES / 60:.1f}",
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _say(figures: dict[str, Any]) -> None:
    network = figures["network"]
    print(
        f"network: {network['scenes']} scenes of its own, {network['epochs']} epochs, {network['seconds']:.0f} s, "
        f"{network['cpu_seconds']:.0f} s of CPU; scenes with all objects right: "
        f"{network['objects']:.1%}, with all relations too: {network['relations']:.1%}\n"
    )
    print(table(figures), end="\n\n")
    for model, one in figures["models"].items():
        faults = ", ".join(f"{fault} {count}" for fault, count in one["faults"].items())
        print(f"{model}: of {one['scenes']} captions wrong in {faults or 'nothing'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scenes"), help="directory to leave everything in")
    parser.add_argument("--models", default=",".join(MODELS), help="some of the models, with commas between")
    parser.add_argument("--json", action="store_true", help="print all figures as one line of JSON at the end")
    options = parser.parse_args()
    models = [model_spec(name).name for name in options.models.split(",")]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("capt").setLevel(logging.INFO)
    figures = measure(Bench(options.out.absolute()), models, options_of)
    _say(figures)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
