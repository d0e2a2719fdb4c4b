"""Writes the weekly data of a model: scenes of one object, and a small extractor of colors."""

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import yaml

from features.synthetic.scenes.dataset import make_scenes
from features.synthetic.scenes.generator import SceneDatasetConfig

SEED = 5
TRAIN = {
    "model": "soft_attention",
    "embedding_dim": 16,
    "units": 32,
    "attention_dim": 16,
    "output_dim": 32,
    "epochs": 4,
    "learning_rate": 0.01,
    "batch_size": 32,
    "num_sample_captions": 0,
}


def save_network(path: Path) -> Path:
    """Writes an extractor without weights that averages the colors of a grid of cells."""
    image = keras.Input((48, 64, 3))
    cells = keras.layers.AveragePooling2D(8, name="cells")(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, cells).save(path)
    return path


def scenes(directory: Path, count: int) -> Path:
    """Writes `count` scenes of one object in COCO layout. A larger number keeps the first scenes."""
    shutil.rmtree(directory, ignore_errors=True)
    make_scenes(directory, count, SEED, SceneDatasetConfig(object_counts=(1,)))
    return directory


def spoil(directory: Path, images: int) -> None:
    """Corrupts every second one of the last images, and replaces the captions of all of them by unknown words."""
    paths = sorted((directory / "images").iterdir())[-images:]
    for path in paths[::2]:
        path.write_bytes(b"no image")
    spoiled = {int(path.stem) for path in paths}
    for path in (directory / "annotations").glob("captions_*.json"):
        annotations = json.loads(path.read_text())
        for caption in annotations["annotations"]:
            if caption["image_id"] in spoiled:
                caption["caption"] = f"xq{caption['id']} zzv{caption['id']} "
        path.write_text(json.dumps(annotations))


def settings(root: Path, **changes: Any) -> dict[str, Any]:
    """Returns a retraining on `root/scenes` with the extractor `root/network.keras`."""
    annotations = [str(root / "scenes/annotations" / f"captions_{split}2017.json") for split in ("train", "val")]
    return {
        "store": str(root / "store"),
        "name": "shapes",
        "data": [
            {
                "dataset_type": "coco",
                "dataset_name": "scenes",
                "images": [str(root / "scenes/images")],
                "annotations": annotations,
            }
        ],
        "features": {"extractor": f"custom:{root / 'network.keras'}", "layer": "cells", "storage_dtype": "float32"},
        "train": TRAIN,
        **changes,
    }


def write_config(root: Path, **changes: Any) -> Path:
    """Writes the settings to `root/retrain.yaml`."""
    path = root / "retrain.yaml"
    path.write_text(yaml.safe_dump(settings(root, **changes)))
    return path
