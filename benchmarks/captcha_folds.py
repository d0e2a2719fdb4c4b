"""Divides a set of images with text into folds: each is the test split once, and the other images are train and val.

The set is prepared by `capt prepare captcha`, which decides what is an image and what is a label. A fold is a label
table with a column `split`, so that every recognizer has the same splits.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capt
from features.inputs.file_reference import read_source_image
from features.io.atomic_files import write
from features.io.uris import is_uri
from schemas.errors import CaptError

SPLITS = ("train", "val", "test")
# Every tenth image that is not in the test split, for early stopping and the choice of the best epoch.
_VAL = 10
_DATASET = "captcha"


@dataclass(frozen=True)
class LabelledImage:
    """An image of a prepared set: its path in the set, its label, and its row of the dataset catalog."""

    name: str
    label: str
    row: Mapping[str, Any]

    @property
    def split(self) -> str:
        """The split in the store."""
        return str(self.row["split"])

    def read(self) -> bytes:
        """Returns the encoded image."""
        data = read_source_image(self.row)
        if data is None:
            raise CaptError("the image is missing or has changed", location=self.name, hint="Use another OUT.")
        return data


def assign_split(name: str, fold: int, folds: int) -> str:
    """Returns the split of an image in a fold from 1; a function of the image's name, stable as a set grows."""
    if _hash(f"fold:{name}") % folds == fold - 1:
        return "test"
    return "val" if _hash(f"val:{name}") % _VAL == 0 else "train"


def write_label_table(path: Path, images: Sequence[LabelledImage], fold: int, folds: int) -> None:
    """Writes the labels and splits of a fold. Raises CaptError if a split has no image."""
    splits = [assign_split(image.name, fold, folds) for image in images]
    counts = Counter(splits)
    if missing := [split for split in SPLITS if not counts[split]]:
        message = f"fold {fold} of {folds} has no {' and no '.join(missing)} image"
        raise CaptError(message, hint="Use a larger set or fewer --folds.")
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("image", "label", "split"))
    table.writerows((image.name, image.label, split) for image, split in zip(images, splits, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.getvalue().encode())


def read_images(store: Path, root: str) -> list[LabelledImage]:
    """Returns the labelled images that `capt prepare captcha` has written to a store from a directory or archive."""
    dataset = capt.open_store(store).dataset(_DATASET)
    labels = {row["image_id"]: row["word"] for row in dataset.labels().to_pylist()}
    rows = [row for row in dataset.catalog().to_pylist() if row["image_id"] in labels]
    start = root if is_uri(root) else str(Path(root).absolute())
    return [LabelledImage(_find_name(row, start), labels[row["image_id"]], row) for row in rows]


def _find_name(row: Mapping[str, Any], start: str) -> str:
    """Returns the path of an image in the set; IDs of some layouts are not names that a label table can have."""
    return str(row["member"] or row["location"].removeprefix(start).lstrip("/"))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
