"""Writes small recipes with their data: noise images in the layout of Flickr8k, a small extractor and a small model."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import noise_image
from tests.workflows.experiments.files import NETWORK

NUM_IMAGES = 16
LISTS = {"train": range(10), "dev": range(10, 13), "test": range(13, 16)}
MERGE = {"model": "merge", "embedding_dim": 8, "units": 8, "epochs": 2, "batch_size": 16, "num_sample_captions": 0}


def write_data(root: Path) -> Path:
    """Writes images, captions and split lists; returns their directory."""
    images = root / "photos"
    images.mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(NUM_IMAGES)]
    for number, name in enumerate(names):
        noise_image(number).save(images / name, quality=90)
    captions = [
        f"{name}#{other}\ta thing number {number} seen {other}" for number, name in enumerate(names) for other in (0, 1)
    ]
    (root / "Flickr8k.token.txt").write_text("\n".join(captions))
    for split, numbers in LISTS.items():
        (root / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{number}.jpg\n" for number in numbers))
    return root


def write_recipe(path: Path, directory: Path, /, **entries: Any) -> Path:
    """Writes a recipe with the checksums of the data in a directory; `entries` replace its keys."""
    pinned = [directory / "photos" / f"{number}.jpg" for number in range(NUM_IMAGES - len(LISTS["test"]))]
    lines = [f"{_digest(image)}  {image.name}\n" for image in pinned]
    path.with_name("tiny.sha256").write_text("".join(lines))
    files = ["Flickr8k.token.txt", "Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt"]
    recipe = {
        "description": "A small model on noise.",
        "data": {
            "title": "16 images of noise",
            "options": {"dataset_type": "flickr8k"},
            "checksums": "tiny.sha256",
            "files": {name: _digest(directory / name) for name in files},
            "split_files": {"test": "Flickr_8k.testImages.txt"},
        },
        "features": {**NETWORK, "pooling": "avg"},
        "train": MERGE,
        "evaluate": {"num_examples": 1},
        "not_run": "It is a test.",
        **entries,
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def expect(**bands: list[float]) -> dict[str, Any]:
    """Returns the entry `expected` of a recipe with these bands."""
    return {"scores": bands, "derivation": "a guess"}


def given(data: Path, *splits: str) -> dict[str, Any]:
    """Returns the options that give the data, with the lists of these splits only, by default of train and dev."""
    lists = [str(data / f"Flickr_8k.{split}Images.txt") for split in splits or ("train", "dev")]
    return {"images": [str(data / "photos")], "annotations": [str(data / "Flickr8k.token.txt"), *lists]}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
