"""Finds and reads the images that a user names: files, directories, archives and URLs."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from features.inputs import FileReference, is_collection, list_files
from features.inputs.image_files import is_image
from features.inputs.image_urls import DownloadLimits, download, is_image_url
from features.io.open_files import stat_file
from schemas.errors import CaptError, NoUsableImageError, RecordError, to_record_error
from schemas.terminal.printable import printable


@dataclass(frozen=True)
class ImageInput:
    """An image that a user named."""

    name: str  # in results
    read: Callable[[], bytes]  # any exception fails this image only
    stamp: str = ""  # differs whenever the bytes may have changed; empty if unknown


def find_images(name: str, limits: DownloadLimits | None = None) -> Iterator[ImageInput]:
    """Lists the images of a file, directory, .zip or .tar file (local, `s3://`, `gs://`) or http(s) URL, by name.

    A missing file or unreadable archive is listed as one image, which fails when it is read.
    """
    if is_image_url(name):
        yield ImageInput(name, cache(partial(download, name, limits)))
        return
    if not is_collection(name):
        reference = FileReference.from_location(name)
        try:
            stamp = stat_file(reference.location).version
        except (OSError, CaptError):  # reading the image reports the error
            stamp = ""
        yield ImageInput(name, reference.read, stamp)
        return
    try:
        found = sorted((entry for entry in list_files(name) if is_image(entry)), key=lambda entry: entry.name)
    except Exception as error:
        known = RecordError("find", "unreadable", error.message) if isinstance(error, CaptError) else None
        yield ImageInput(name, partial(_fail, known or to_record_error("find", error)))
        return
    if not found:
        yield ImageInput(name, partial(_fail, RecordError("find", "empty", "it contains no image")))
    for entry in found:
        yield ImageInput(f"{name.rstrip('/')}/{entry.name}", entry.reference.read, f"{entry.size}:{entry.stamp}")


def check_images(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of a command; NoUsableImageError if all of its `results`, one per image, have an `error`."""
    rows = result["results"]
    if all("error" in row for row in rows):
        raise NoUsableImageError(len(rows), rows[0]["error"], result)
    return result


def print_results(result: dict[str, Any]) -> None:
    """Prints the result of a command, one line per image: name, tab, and text or error.

    The paths of the files that the command has written are printed on standard error.
    """
    for row in result["results"]:
        print(printable(row["image"]), printable(row["text"] if "text" in row else row["error"]), sep="\t")
    for line in _list_files(result):
        print(printable(line), file=sys.stderr)


def _list_files(result: dict[str, Any]) -> Iterator[str]:
    plots = [row["attention"] for row in result["results"] if "attention" in row]
    if plots:
        yield f"attention maps: {plots[0]}" + (f" to {plots[-1]}, {len(plots):,} files" if len(plots) > 1 else "")
    for row in result["results"]:
        if "attention_error" in row:
            yield f"no attention maps of {row['image']}: {row['attention_error']}"
    if "page_path" in result:
        yield f"page: {result['page_path']}"


def _fail(error: RecordError) -> bytes:
    raise error
