"""Writes small experiments: small extractors on noise images, and small models."""

from pathlib import Path
from typing import Any

import yaml
from PIL import Image

NETWORK = {"extractor": "mobilenet_v3_small", "weights": "random:7", "height": 64, "width": 64}
MERGE = {"model": "merge", "embedding_dim": 8, "units": 8}


def captions_experiment(root: Path, images: Path, annotations: Path, **entries: Any) -> dict[str, Any]:
    """Returns an experiment with one small trial; `entries` replace its keys."""
    return {
        "store": str(root / "store"),
        "output_dir": str(root / "out"),
        "data": {
            "dataset_type": "coco",
            "images": str(images),
            "annotations": [str(annotations)],
            "split_ratios": "0.6,0.2,0.2",
        },
        "features": {"pooled": {**NETWORK, "pooling": "avg"}},
        "captions": {"words": None},
        "models": {"merge": MERGE},
        "train": {"epochs": 2, "num_sample_captions": 0},
        "evaluate": {"num_examples": 0},
        **entries,
    }


def captchas_of_two_sizes(root: Path) -> dict[str, dict[str, str]]:
    """Writes images of 50×100 and of 50×200 pixels, named by their labels, and returns the options of each dataset."""
    for name, width in (("short", 100), ("long", 200)):
        (root / name).mkdir()
        for label in ("ab", "cd", "efg"):
            image = Image.new("RGB", (width, 50), "white")
            image.paste((0, 0, 0), (20, 10, 29, 30 + ord(label[0]) % 7))
            image.save(root / name / f"{label}.png")
    return {name: {"images": str(root / name)} for name in ("short", "long")}


def write_yaml(path: Path, entries: dict[str, Any]) -> Path:
    """Writes the entries as a YAML file."""
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path
