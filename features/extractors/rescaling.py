"""Defines the input preprocessing `pixels * scale + offset` per channel, and its text in table configs."""

import re
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from features.extractors.output_layers import FeatureFunction

_PATTERN = re.compile(r"scale=(\S+) offset=(\S+)")


@dataclass(frozen=True)
class Rescaling:
    """Scale and offset of each channel of RGB pixels 0…255. The text `scale=R,G,B offset=R,G,B` keeps every bit."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the text of a rescaling; ValueError if it is none."""
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a rescaling")
        scale, offset = (tuple(map(float, one.split(","))) for one in found.groups())
        return cls(scale, offset)

    def __str__(self) -> str:
        return f"scale={','.join(map(repr, self.scale))} offset={','.join(map(repr, self.offset))}"

    def load_preprocessing(self) -> FeatureFunction:
        """Returns the function of float32 pixels [N, H, W, 3]."""
        scale, offset = np.asarray(self.scale, np.float32), np.asarray(self.offset, np.float32)

        def rescale(pixels: Any) -> Any:
            return pixels * scale + offset

        return rescale
