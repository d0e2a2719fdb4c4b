"""Limits of one image: how much of it is read and decoded, whoever sent it.

A limit is a matter of the machine, not of what a row means, so it is no part of a recipe. Bytes are counted before they
are read or unpacked, pixels before they are decoded: in memory a pixel takes four bytes, and up to three pictures of
the size at once while transparency is laid on white.
"""

import re
from dataclasses import dataclass

from features.images.decode import MAX_PIXELS
from features.references import MAX_IMAGE_BYTES

# As `features.images.decode` and Pillow word it.
_PIXELS = re.compile(r"(\d+)×(\d+)|Image size \((\d+) pixels\)")


@dataclass(frozen=True)
class ImageLimits:
    """What one image may measure.

    Args:
        pixels: int. Width times height at most, as the header says.
        bytes: int. Bytes of the encoded image at most, unpacked where it lies in an archive.
    """

    pixels: int = MAX_PIXELS
    bytes: int = MAX_IMAGE_BYTES

    def allows_retry(self, reason: str, detail: str) -> bool:
        """Whether a failure that is remembered was one by a lower limit, so that the image is worth another try."""
        found = _PIXELS.match(detail)
        if reason != "too large" or not found:
            return False
        width, height, pixels = found.groups()
        return int(pixels or int(width) * int(height)) <= self.pixels
