"""Writes the images whose label is left open to a directory, for labelling.

DIR/a3.png …       copies of the images; a name that occurs twice has a number: a3.2.png
DIR/labels.csv     image, label (the predicted one, to be corrected) and confidence

`capt prepare captcha --images DIR --labels DIR/labels.csv` reads the corrected labels.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath

from features.inputs.image_files import is_image_name
from features.inputs.image_urls import is_image_url
from features.io.atomic_files import write_directory
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError, to_record_error
from trainer.decoding.label_decoder import Prediction
from trainer.inference.image_inputs import ImageInput

LABELS_FILE = "labels.csv"

# Everything but letters and digits of any script, and _ - .
_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_STEM = 50  # characters; a file name has at most 255 bytes


@dataclass(frozen=True)
class OpenImage:
    """An image whose label is left open, with the prediction that is too uncertain."""

    image: ImageInput
    prediction: Prediction


def check_open_dir(open_dir: str | None, min_confidence: float | None) -> Path | None:
    """Returns the path of `--open-dir`, None without one; UsageError if it exists or `--min-confidence` is missing."""
    if open_dir is None:
        return None
    if min_confidence is None:
        raise UsageError("this option requires --min-confidence", location="--open-dir", hint="Set --min-confidence.")
    path = local_path(open_dir, "--open-dir")
    if path.exists():
        hint = "Choose a new directory."
        raise UsageError("the directory already exists", location=f"--open-dir {open_dir}", hint=hint)
    return path


def write_open_images(path: Path | None, images: Iterable[OpenImage]) -> dict[str, str]:
    """Writes a directory with copies of the images, and their predicted labels; it appears when it is complete.

    Returns:
        `open_dir`, the path; nothing without a path or an open image.

    Raises:
        CaptError: An image cannot be read any more.
    """
    images = tuple(images)
    if path is None or not images:
        return {}

    def write_into(directory: Path) -> None:
        with (directory / LABELS_FILE).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("image", "label", "confidence"))
            for name, one in _name_images(images):
                (directory / name).write_bytes(_read(one.image))
                rows.writerow((name, one.prediction.text, f"{one.prediction.confidence:.4f}"))

    write_directory(path, "open images", lambda _: False, write_into)
    return {"open_dir": str(path)}


def _name_images(images: Iterable[OpenImage]) -> Iterator[tuple[str, OpenImage]]:
    """Yields a file name for each image, distinct also where case does not count."""
    used = {LABELS_FILE}
    for one in images:
        plain = PurePosixPath(make_safe_name(one.image.name))
        numbers = chain([""], map(".{}".format, count(2)))
        names = (f"{plain.stem}{number}{plain.suffix}" for number in numbers)
        name = next(each for each in names if each.casefold() not in used)
        used.add(name.casefold())
        yield name, one


def make_safe_name(name: str) -> str:
    """Returns a file name for the image at a path or URL: its last part, without special characters.

    A suffix that is not that of an image becomes a part of the name. The file is then an image by its first bytes.
    """
    last = PurePosixPath(name.split("?")[0].split("#")[0] if is_image_url(name) else name).name
    safe = _UNSAFE.sub("_", last)
    if not is_image_name(safe):
        safe = safe.replace(".", "_")
    path = PurePosixPath(safe or "image")
    return f"{path.stem[-_MAX_STEM:].strip('.') or 'image'}{path.suffix}"


def _read(image: ImageInput) -> bytes:
    try:
        return image.read()
    except Exception as error:
        message = f"the image cannot be copied: {to_record_error('read', error)}"
        raise CaptError(message, location=image.name) from error
