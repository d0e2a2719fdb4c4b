"""Writes small experiments: small extractors on noise images, and small models."""

from pathlib import Path
from typing import Any

import yaml

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


def write_yaml(path: Path, entries: dict[str, Any]) -> Path:
    """Writes the entries as a YAML file."""
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path
