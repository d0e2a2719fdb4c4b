"""Reads and opens an image that a user names."""

import os
from typing import TYPE_CHECKING

from features.images import decode
from features.inputs.file_reference import FileReference
from features.inputs.image_urls import download, is_image_url

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(name: str | os.PathLike[str]) -> bytes:
    """Returns an encoded image.

    Args:
        name: As in `open_image`.

    Raises:
        RecordError: The image cannot be read or downloaded.
    """
    text = os.fspath(name)
    return download(text) if is_image_url(text) else FileReference.from_location(text).read()


def open_image(name: str | os.PathLike[str]) -> "Image":
    """Opens an image as a Pillow image in RGB, upright. A notebook shows it if it is the value of a cell.

    Args:
        name: A path, an s3://, gs://, http:// or https:// URI, or `photos.zip/dog.jpg` in a local zip, as in the
            results of commands.

    Raises:
        RecordError: The image cannot be read, downloaded or decoded.
    """
    return decode.open_image(read_image(name))
