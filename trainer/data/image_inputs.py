"""Pictures: the images that a person names to have captioned: files, folders, archives, addresses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from features.io.open_files import stat_file
from features.references import Reference, is_collection, list_files
from features.references.downloads import DownloadLimits, download
from features.references.image_files import is_image
from schemas.errors import CaptError, NoUsableImageError, RecordError, to_record_error

_WEB = ("http://", "https://")


@dataclass(frozen=True)
class ImageInput:
    """An image that was named.

    Args:
        name: What to call it.
        read: How to get its bytes; whatever that raises fails this image.
        stamp: Changes whenever its bytes may have; empty where that is not known.
    """

    name: str
    read: Callable[[], bytes]
    stamp: str = ""


def find_images(name: str, limits: DownloadLimits | None = None) -> Iterator[ImageInput]:
    """The images that a name stands for: the file or address itself, or those in the folder or archive, by name.

    A file that is not there, or an archive that cannot be read, is a picture still: reading it says so, and costs no
    other.

    Args:
        name: str. A file, folder, zip or tar, also at `s3://` or `gs://`; or an http or https address of one image.
        limits: DownloadLimits or None. What an http or https address may take; the default ones where None.
    """
    if name.lower().startswith(_WEB):
        yield ImageInput(name, _Once(partial(download, name, limits)))
        return
    if not is_collection(name):
        reference = Reference.from_location(name)
        yield ImageInput(name, reference.read, _stamp_of(reference.location))
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
        yield ImageInput(name, partial(_fail, RecordError("find", "empty", "it holds no image")))
    for entry in found:
        yield ImageInput(f"{name.rstrip('/')}/{entry.name}", entry.reference.read, f"{entry.size}:{entry.stamp}")


def check_images(result: dict[str, Any]) -> dict[str, Any]:
    """Returns what a command found out about pictures, unless it found out nothing.

    Args:
        result: `results`, a mapping per picture, with `error` if the picture has no answer.

    Raises:
        NoUsableImageError: No picture has an answer.
    """
    rows = result["results"]
    if all("error" in row for row in rows):
        raise NoUsableImageError(len(rows), rows[0]["error"], result)
    return result


class _Once:
    """Asks an address once, however often its picture is read."""

    def __init__(self, ask: Callable[[], bytes]) -> None:
        self._ask = ask
        self._data: bytes | None = None

    def __call__(self) -> bytes:
        if self._data is None:
            self._data = self._ask()
        return self._data


def _stamp_of(location: str) -> str:
    try:
        return stat_file(location).version
    except (OSError, CaptError):  # Reading it says so.
        return ""


def _fail(error: RecordError) -> bytes:
    raise error
