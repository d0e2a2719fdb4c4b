"""Limits the size of an image before it is read and decoded.

Limits depend on the machine and do not affect a row, so they are not part of the table config. A decoded pixel
takes four bytes, and up to three images of that size exist while transparency is replaced by white.
"""

import re
from dataclasses import dataclass

from features.images.decode import MAX_PIXELS
from features.inputs import MAX_IMAGE_BYTES

# The wording of `features.images.decode` and Pillow.
_PIXELS = re.compile(r"(\d+)×(\d+)|Image size \((\d+) pixels\)")


@dataclass(frozen=True)
class ImageLimits:
    """Limits of one image.

    Args:
        pixels: Maximum declared number of pixels, width times height.
        bytes: Maximum number of bytes of the encoded image, unpacked if it is in an archive.
    """

    pixels: int = MAX_PIXELS
    bytes: int = MAX_IMAGE_BYTES

    def allows_retry(self, reason: str, detail: str) -> bool:
        """Returns whether a recorded failure was caused by a lower limit, so that a retry may succeed."""
        match = _PIXELS.match(detail)
        if reason != "too large" or not match:
            return False
        width, height, pixels = match.groups()
        return int(pixels or int(width) * int(height)) <= self.pixels
