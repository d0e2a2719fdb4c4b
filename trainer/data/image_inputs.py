"""Finds and reads the images that a user names: files, directories, archives and URLs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from features.inputs import FileReference, is_collection, list_files
from features.inputs.downloads import DownloadLimits, download
from features.inputs.image_files import is_image
from features.io.open_files import stat_file
from schemas.errors import CaptError, NoUsableImageError, RecordError, to_record_error

_URL = ("http://", "https://")


@dataclass(frozen=True)
class ImageInput:
    """An image that a user named.

    Args:
        name: Name in results.
        read: Returns the bytes. Any exception fails this image only.
        stamp: Differs whenever the bytes may have changed; empty if unknown.
    """

    name: str
    read: Callable[[], bytes]
    stamp: str = ""


def find_images(name: str, limits: DownloadLimits | None = None) -> Iterator[ImageInput]:
    """Lists the images of a file, directory, archive or URL, ordered by name.

    A missing file or unreadable archive is listed as one image, which fails when it is read.

    Args:
        name: An image, directory, .zip or .tar file, local or at `s3://` or `gs://`; or the http(s) URL of an image.
        limits: The limits of downloads.
    """
    if name.lower().startswith(_URL):
        yield ImageInput(name, cache(partial(download, name, limits)))
        return
    if not is_collection(name):
        reference = FileReference.from_location(name)
        yield ImageInput(name, reference.read, _read_stamp(reference.location))
        return
    try:
        found = sorted((entry for entry in list_files(name) if is_image(entry)), key=lambda entry: entry.name)
    except CaptError as error:
        yield ImageInput(name, partial(_fail, RecordError("find", "unreadable", error.message)))
        return
    except Exception as error:
        yield ImageInput(name, partial(_fail, to_record_error("find", error)))
        return
    if not found:
        yield ImageInput(name, partial(_fail, RecordError("find", "empty", "it contains no image")))
    for entry in found:
        yield ImageInput(f"{name.rstrip('/')}/{entry.name}", entry.reference.read, f"{entry.size}:{entry.stamp}")


def check_images(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of a command, unless all images failed.

    Args:
        result: `results`, a mapping per image, with `error` if the image failed.

    Raises:
        NoUsableImageError: All images failed.
    """
    rows = result["results"]
    if all("error" in row for row in rows):
        raise NoUsableImageError(len(rows), rows[0]["error"], result)
    return result


def _read_stamp(location: str) -> str:
    try:
        return stat_file(location).version
    except (OSError, CaptError):  # reading the image reports the error
        return ""


def _fail(error: RecordError) -> bytes:
    raise error
