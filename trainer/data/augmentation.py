"""Augments the images of a training batch with tf.data: random translation, zoom, color changes and erasing.

The random values of a batch are a function of (seed, epoch, step), so that a resumed run repeats the values of an
uninterrupted run. Captions describe positions and colors, so flips, permutations and erasing are off by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import LoopConfig
from trainer.data.feature_reader import Augment

_STREAM = 1  # separates these random values from others of the same seed and epoch
_VALUES = ("across", "down", "zoom", "mirror", "brightness", "contrast", "saturation")
_ERASING_VALUES = ("across", "down", "area", "aspect", "tilt", "red", "green", "blue")
_MAX_ASPECT = 30.0  # of an erased bar


@dataclass(frozen=True)
class Augmentation:
    """Changes images at random; the amounts are the options of training with the prefix `augment_`."""

    seed: int
    translation: float = 0.0
    zoom: float = 0.0
    color_jitter: float = 0.0
    horizontal_flip: bool = False
    channel_permutation: bool = False
    random_erasing: float = 0.0

    @classmethod
    def from_config(cls, config: LoopConfig) -> "Augmentation | None":
        """Returns the augmentation of a run; None if it does not change images."""
        prefix = "augment_"
        amounts = {name.removeprefix(prefix): value for name, value in config if name.startswith(prefix)}
        return cls(config.seed, **amounts) if any(amounts.values()) else None

    def for_epoch(self, epoch: int) -> Augment:
        """Returns a TensorFlow function that augments the batches of an epoch; epochs count from 0.

        The function maps pixels uint8 [N, H, W, 3] and the number of the batch in the epoch, int64, to pixels.
        """
        seeds = np.random.SeedSequence([self.seed, epoch, _STREAM]).generate_state(3)

        def augment(pixels: Any, step: Any) -> Any:
            def sample(seed: Any, count: int) -> Any:
                pair = tf.stack([tf.constant(int(seed), tf.int64), tf.cast(step, tf.int64)])
                return tf.random.stateless_uniform((tf.shape(pixels)[0], count), pair, alg="philox")

            values = _name_columns(_VALUES, sample(seeds[0], len(_VALUES)))
            changed = self._jitter_colors(self._transform(pixels, values), values)
            if self.channel_permutation:
                changed = tf.gather(changed, tf.argsort(sample(seeds[1], 3), axis=1), axis=3, batch_dims=1)
            return self._erase(changed, sample(seeds[2], len(_ERASING_VALUES))) if self.random_erasing else changed

        return augment

    def _transform(self, pixels: Any, values: dict[str, Any]) -> Any:
        if not (self.translation or self.zoom or self.horizontal_flip):
            return pixels
        height, width = pixels.shape[1:3]
        size = tf.exp(_center(values["zoom"]) * np.float32(np.log1p(self.zoom)))
        mirror = tf.where(values["mirror"] < 0.5, -1.0, 1.0) if self.horizontal_flip else tf.ones_like(size)
        across = _affine(mirror / size, width, self.translation * width * _center(values["across"]))
        down = _affine(1 / size, height, self.translation * height * _center(values["down"]))
        zeros = tf.zeros_like(size)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=tf.stack([across[0], zeros, across[1], zeros, *down, zeros, zeros], axis=1),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    def _jitter_colors(self, pixels: Any, values: dict[str, Any]) -> Any:
        if not self.color_jitter:
            return pixels
        brightness, contrast, saturation = (
            tf.reshape(1 + self.color_jitter * _center(values[name]), (-1, 1, 1, 1))
            for name in ("brightness", "contrast", "saturation")
        )
        changed = tf.cast(pixels, tf.float32)
        gray = tf.reduce_mean(changed, axis=3, keepdims=True)
        mean = tf.reduce_mean(gray, axis=(1, 2), keepdims=True)
        changed = gray + (changed - gray) * saturation
        changed = (mean + (changed - mean) * contrast) * brightness
        return tf.cast(tf.clip_by_value(tf.round(changed), 0.0, 255.0), tf.uint8)

    def _erase(self, pixels: Any, values: Any) -> Any:
        height, width = pixels.shape[1:3]
        named = _name_columns(_ERASING_VALUES, values[:, None, None, :])
        area = self.random_erasing * height * width * named["area"]
        aspect = tf.exp(np.log(_MAX_ASPECT) * named["aspect"])
        across = np.arange(width, dtype=np.float32) - width * named["across"]
        down = np.arange(height, dtype=np.float32)[:, None] - height * named["down"]
        cosine, sine = tf.cos(np.pi * named["tilt"]), tf.sin(np.pi * named["tilt"])
        is_along = tf.abs(cosine * across + sine * down) < tf.sqrt(area * aspect) / 2
        is_beside = tf.abs(cosine * down - sine * across) < tf.sqrt(area / aspect) / 2
        color = tf.cast(256 * tf.stack([named[name] for name in ("red", "green", "blue")], axis=-1), pixels.dtype)
        return tf.where((is_along & is_beside)[..., None], color, pixels)


def _name_columns(names: Sequence[str], values: Any) -> dict[str, Any]:
    return dict(zip(names, tf.unstack(values, axis=-1), strict=True))


def _center(value: Any) -> Any:
    """Maps [0, 1) to [−1, 1)."""
    return 2 * value - 1


def _affine(factor: Any, side: int, shift: Any) -> tuple[Any, Any]:
    """Returns factor and offset: along one side, a pixel of the result is read from factor · pixel + offset."""
    center = (side - 1) / 2
    return factor, center - factor * center - shift
