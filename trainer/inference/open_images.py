"""Writes the images whose label is left open to a directory, for labelling.

DIR/a3.png …       copies of the images; a name that occurs twice has a number: a3.2.png
DIR/labels.csv     image, label (the predicted one, to be corrected) and confidence

`capt prepare captcha --images DIR --labels DIR/labels.csv` reads the corrected labels.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath

from features.inputs.image_files import is_image_name
from features.inputs.image_urls import is_image_url
from features.io.atomic_files import write_directory
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError, to_record_error
from trainer.decoding.label_decoder import Prediction
from trainer.inference.image_inputs import ImageInput

LABELS_FILE = "labels.csv"

_CHOOSE = "Choose a new directory."

# Everything but letters and digits of any script, and _ - .
_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_STEM = 50  # characters; a file name has at most 255 bytes


@dataclass(frozen=True)
class OpenImage:
    """An image whose label is left open, with the prediction that is too uncertain."""

    image: ImageInput
    prediction: Prediction


def check_open_dir(
    open_dir: str | None, min_confidence: float | None, images: Sequence[str], output: Path | None = None
) -> Path | None:
    """Returns the path of `--open-dir`, None without one.

    Args:
        open_dir: The option.
        min_confidence: `--min-confidence`.
        images: The images that the user named.
        output: The file that the command writes besides, if any.

    Raises:
        UsageError: `--min-confidence` is missing, or the directory is among the images, or contains the output.
    """
    if open_dir is None:
        return None
    if min_confidence is None:
        raise UsageError("this option requires --min-confidence", location="--open-dir", hint="Set --min-confidence.")
    path = local_path(open_dir, "--open-dir")
    for directory in images:
        if Path(directory).is_dir() and path.resolve().is_relative_to(Path(directory).resolve()):
            message = f"the directory is in {directory}, so a later command would read the copies as well"
            raise UsageError(message, location=f"--open-dir {open_dir}", hint=_CHOOSE)
    if output is not None and output.resolve().is_relative_to(path.resolve()):
        raise UsageError(f"{output} would be in the directory", location=f"--open-dir {open_dir}", hint=_CHOOSE)
    return path


def refuse_existing(path: Path | None) -> None:
    """Raises UsageError if the directory for open images exists."""
    if path is not None and path.exists():
        raise UsageError("the directory already exists", location=f"--open-dir {path}", hint=_CHOOSE)


def write_open_images(path: Path | None, images: Iterable[OpenImage]) -> dict[str, str]:
    """Writes a directory with copies of the images, and their predicted labels; it appears when it is complete.

    If the directory has these images and labels already, it stays.

    Returns:
        `open_dir`, the path; nothing without a path or an open image.

    Raises:
        CaptError: An image cannot be read any more, or the directory cannot be written.
    """
    named = dict(_name_images(images))
    if path is None or not named:
        return {}
    labels = _format_labels(named)

    def is_same(directory: Path) -> bool:
        return (
            {one.name for one in directory.iterdir()} == {LABELS_FILE, *named}
            and (directory / LABELS_FILE).read_bytes() == labels
            and all((directory / name).read_bytes() == _read(one.image) for name, one in named.items())
        )

    def write_into(directory: Path) -> None:
        (directory / LABELS_FILE).write_bytes(labels)
        for name, one in named.items():
            (directory / name).write_bytes(_read(one.image))

    try:
        write_directory(path, "open images", is_same, write_into)
    except OSError as error:
        message = f"the directory cannot be written: {error.strerror or error}"
        raise CaptError(message, location=f"--open-dir {path}", hint=_CHOOSE) from error
    return {"open_dir": str(path)}


def _format_labels(named: Mapping[str, OpenImage]) -> bytes:
    """Returns the table of the predicted labels as CSV."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "label", "confidence"))
    rows.writerows((name, one.prediction.text, f"{one.prediction.confidence:.4f}") for name, one in named.items())
    return text.getvalue().encode()


def _name_images(images: Iterable[OpenImage]) -> Iterator[tuple[str, OpenImage]]:
    """Yields a file name for each image, distinct also where case does not count."""
    used, numbers = {LABELS_FILE}, Counter[str]()
    for one in images:
        name = make_safe_name(one.image.name)
        plain, key = PurePosixPath(name), name.casefold()
        while name.casefold() in used:
            numbers[key] += 1
            name = f"{plain.stem}.{numbers[key] + 1}{plain.suffix}"
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
