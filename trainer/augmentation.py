"""Augmentation: the images of a training batch, moved, zoomed and recoloured at random, as tf.data.

What is drawn for a batch is a function of (seed, epoch, step) alone, so that a run which goes on draws what an unbroken
one does. Captions say where things are and what colour they have: nothing is mirrored unless it is asked for, and a
colour is changed in strength, never in hue.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import TrainingConfig

Change = Callable[[Any, Any], Any]

# Tells what is drawn here from what is drawn of the same seed and epoch elsewhere.
_STREAM = 1
_DRAWN = ("across", "down", "zoom", "mirror", "brightness", "contrast", "saturation")


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed; all fields are as in `trainer.config.TrainingConfig`."""

    seed: int
    shift: float = 0.0
    zoom: float = 0.0
    colour: float = 0.0
    flip: bool = False

    @classmethod
    def of(cls, training: TrainingConfig) -> "Augmentation | None":
        """The augmentation of a run; None where nothing is changed."""
        amounts = (training.augment_shift, training.augment_zoom, training.augment_colour, training.augment_flip)
        return cls(training.seed, *amounts) if any(amounts) else None

    def of_epoch(self, epoch: int) -> Change:
        """What happens to the images of an epoch's batches.

        Args:
            epoch: int. Which pass, from 0.

        Returns:
            function from pixels uint8 [N, H, W, 3] and the batch's number in the epoch, int64, to pixels uint8
            [N, H, W, 3]; in TensorFlow operations.
        """
        first = int(np.random.SeedSequence([self.seed, epoch, _STREAM]).generate_state(1)[0])

        def change(pixels: Any, step: Any) -> Any:
            seed = tf.stack([tf.constant(first, tf.int64), tf.cast(step, tf.int64)])
            draws = tf.random.stateless_uniform((tf.shape(pixels)[0], len(_DRAWN)), seed, alg="philox")
            drawn = dict(zip(_DRAWN, tf.unstack(draws, axis=1), strict=True))
            return self._recoloured(self._moved(pixels, drawn), drawn)

        return change

    def _moved(self, pixels: Any, drawn: dict[str, Any]) -> Any:
        if not (self.shift or self.zoom or self.flip):
            return pixels
        height, width = pixels.shape[1:3]
        size = tf.exp(_around_0(drawn["zoom"]) * np.float32(np.log1p(self.zoom)))
        mirror = tf.where(drawn["mirror"] < 0.5, -1.0, 1.0) if self.flip else tf.ones_like(size)
        across = _places(mirror / size, width, self.shift * width * _around_0(drawn["across"]))
        down = _places(1 / size, height, self.shift * height * _around_0(drawn["down"]))
        nothing = tf.zeros_like(size)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=tf.stack([across[0], nothing, across[1], nothing, *down, nothing, nothing], axis=1),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    def _recoloured(self, pixels: Any, drawn: dict[str, Any]) -> Any:
        if not self.colour:
            return pixels
        brightness, contrast, saturation = (
            tf.reshape(1 + self.colour * _around_0(drawn[name]), (-1, 1, 1, 1))
            for name in ("brightness", "contrast", "saturation")
        )
        values = tf.cast(pixels, tf.float32)
        grey = tf.reduce_mean(values, axis=3, keepdims=True)
        mean = tf.reduce_mean(grey, axis=(1, 2), keepdims=True)
        values = grey + (values - grey) * saturation
        values = (mean + (values - mean) * contrast) * brightness
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)


def _around_0(draw: Any) -> Any:
    return 2 * draw - 1


def _places(factor: Any, side: int, shift: Any) -> tuple[Any, Any]:
    """Where a pixel of the result comes from, along one side: at factor · pixel + offset."""
    centre = (side - 1) / 2
    return factor, centre - factor * centre - shift
