"""Augmentation: the images of a training batch, moved, zoomed, recoloured and covered at random, as tf.data.

What is drawn for a batch is a function of (seed, epoch, step) alone, so that a run which goes on draws what an unbroken
one does. Captions say where things are and what colour they have: nothing is mirrored, changed in hue or covered unless
it is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import TrainingConfig

Change = Callable[[Any, Any], Any]

# Tells what is drawn here from what is drawn of the same seed and epoch elsewhere.
_STREAM = 1
_DRAWN = ("across", "down", "zoom", "mirror", "brightness", "contrast", "saturation")
_DRAWN_OF_COVERS = ("across", "down", "area", "aspect", "tilt", "red", "green", "blue")
_LONGEST_COVER = 30.0  # times as long as wide


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed; what is not described here is as in `trainer.config.TrainingConfig`.

    Args:
        hue: bool. Whether red, green and blue change places.
        cover: float. Share of an image's area that a bar of one colour covers at most, anywhere and at any angle.
    """

    seed: int
    shift: float = 0.0
    zoom: float = 0.0
    color: float = 0.0
    flip: bool = False
    hue: bool = False
    cover: float = 0.0

    @classmethod
    def of(cls, training: TrainingConfig) -> "Augmentation | None":
        """The augmentation of a run; None where nothing is changed."""
        amounts = (
            training.augment_translation,
            training.augment_zoom,
            training.augment_color_jitter,
            training.augment_horizontal_flip,
        )
        return cls(training.seed, *amounts) if any(amounts) else None

    def of_epoch(self, epoch: int) -> Change:
        """What happens to the images of an epoch's batches.

        Args:
            epoch: int. Which pass, from 0.

        Returns:
            function from pixels uint8 [N, H, W, 3] and the batch's number in the epoch, int64, to pixels uint8
            [N, H, W, 3]; in TensorFlow operations.
        """
        firsts = np.random.SeedSequence([self.seed, epoch, _STREAM]).generate_state(3)

        def change(pixels: Any, step: Any) -> Any:
            def draw(first: Any, count: int) -> Any:
                seed = tf.stack([tf.constant(int(first), tf.int64), tf.cast(step, tf.int64)])
                return tf.random.stateless_uniform((tf.shape(pixels)[0], count), seed, alg="philox")

            drawn = _named(_DRAWN, draw(firsts[0], len(_DRAWN)))
            changed = self._recoloured(self._moved(pixels, drawn), drawn)
            changed = _other_hues(changed, draw(firsts[1], 3)) if self.hue else changed
            return self._covered(changed, draw(firsts[2], len(_DRAWN_OF_COVERS))) if self.cover else changed

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
        if not self.color:
            return pixels
        brightness, contrast, saturation = (
            tf.reshape(1 + self.color * _around_0(drawn[name]), (-1, 1, 1, 1))
            for name in ("brightness", "contrast", "saturation")
        )
        values = tf.cast(pixels, tf.float32)
        grey = tf.reduce_mean(values, axis=3, keepdims=True)
        mean = tf.reduce_mean(grey, axis=(1, 2), keepdims=True)
        values = grey + (values - grey) * saturation
        values = (mean + (values - mean) * contrast) * brightness
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)

    def _covered(self, pixels: Any, draws: Any) -> Any:
        height, width = pixels.shape[1:3]
        drawn = _named(_DRAWN_OF_COVERS, draws[:, None, None, :])
        area = self.cover * height * width * drawn["area"]
        aspect = tf.exp(np.log(_LONGEST_COVER) * drawn["aspect"])
        across = np.arange(width, dtype=np.float32) - width * drawn["across"]
        down = np.arange(height, dtype=np.float32)[:, None] - height * drawn["down"]
        cosine, sine = tf.cos(np.pi * drawn["tilt"]), tf.sin(np.pi * drawn["tilt"])
        is_along = tf.abs(cosine * across + sine * down) < tf.sqrt(area * aspect) / 2
        is_beside = tf.abs(cosine * down - sine * across) < tf.sqrt(area / aspect) / 2
        color = tf.cast(256 * tf.stack([drawn[name] for name in ("red", "green", "blue")], axis=-1), pixels.dtype)
        return tf.where((is_along & is_beside)[..., None], color, pixels)


def _named(names: Sequence[str], draws: Any) -> dict[str, Any]:
    return dict(zip(names, tf.unstack(draws, axis=-1), strict=True))


def _other_hues(pixels: Any, draws: Any) -> Any:
    """Each image's red, green and blue in the order of its three draws."""
    return tf.gather(pixels, tf.argsort(draws, axis=1), axis=3, batch_dims=1)


def _around_0(draw: Any) -> Any:
    return 2 * draw - 1


def _places(factor: Any, side: int, shift: Any) -> tuple[Any, Any]:
    """Where a pixel of the result comes from, along one side: at factor · pixel + offset."""
    center = (side - 1) / 2
    return factor, center - factor * center - shift
