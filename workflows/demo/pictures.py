"""Draws the attention maps of single words for the demo's page."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from PIL import Image

from features.images.resize import Resizer
from trainer.figures.attention_maps import attention_map
from trainer.runs.captioner_run import Caption, open_visible
from workflows.demo.page import WordMap

_MAX_PIXELS = 240  # of the longer side of a map
_OPACITY = 0.6
_COLORS = "magma"


def draw_word_maps(image: bytes, caption: Caption, resizer: Resizer, words: Mapping[int, str]) -> tuple[WordMap, ...]:
    """Draws the attention of some words of a caption over the image; their positions and labels are in `words`.

    Without attention, or if its locations are no square, there are no maps.
    """
    if caption.attention is None or round(caption.attention.shape[1] ** 0.5) ** 2 != caption.attention.shape[1]:
        return ()
    visible = open_visible(image, resizer, _MAX_PIXELS).convert("RGB")
    maps = []
    for number, label in words.items():
        weights = attention_map(caption.attention[number], visible.width, visible.height)
        colors = colormaps[_COLORS](weights / max(weights.max(), 1e-9))[..., :3] * 255
        pixels = np.rint((1 - _OPACITY) * np.asarray(visible) + _OPACITY * colors).astype(np.uint8)
        maps.append(WordMap(label, _encode(Image.fromarray(pixels))))
    return tuple(maps)


def _encode(image: Image.Image) -> bytes:
    data = BytesIO()
    image.save(data, "JPEG", quality=85)
    return data.getvalue()
