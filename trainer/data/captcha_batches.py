"""Batches of images with their words, as tf.data; each a function of (seed, epoch, step) alone.

order: image numbers of every batch of an epoch → one read a batch: pixels, letter ids → changed at random → prefetch
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.augmentation import Change
from trainer.data.captcha_data import LabelledImages
from trainer.data.prefetch import FeatureFeed
from trainer.data.table_selection import FeatureSource


def shuffled_order(images: int, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The batches of one pass: every image once, in an order drawn anew from the whole split.

    All batches are full, so that every step weighs alike and is normalized alike: the last is filled up with the first
    images of the pass.

    Args:
        images: int. Images of the split.
        batch_size: int. Images a batch.
        seed: int. The run's seed.
        epoch: int. Which pass, from 0.

    Returns:
        int64 array [steps, batch_size]: image numbers.
    """
    drawn = np.random.default_rng([seed, epoch]).permutation(images)
    steps = -(-images // batch_size)
    return np.resize(drawn, steps * batch_size).reshape(steps, batch_size)


def sampled_order(images: int, batch_size: int, seed: int, epoch: int, steps: int) -> NDArray[np.int64]:
    """The batches of an epoch of `steps`, of images drawn with replacement; else as `shuffled_order`."""
    return np.random.default_rng([seed, epoch]).integers(0, images, (steps, batch_size))


class CaptchaBatchReader(FeatureFeed):
    """Reads batches of one split.

    Args:
        images: LabelledImages. The split.
        features: FeatureSource. The table of pixels that its `rows` are positions of.
        longest: int. Letters that words are padded to.
    """

    def __init__(self, images: LabelledImages, features: FeatureSource, longest: int) -> None:
        super().__init__(features, images.rows)
        self._ids = images.ids(longest)

    def dataset(self, order: NDArray[np.int64], first_step: int = 0, change: Change | None = None) -> tf.data.Dataset:
        """The batches of `order` from `first_step` on, read ahead by a few.

        Args:
            order: int64 array [steps, batch]. Image numbers.
            first_step: int. The first batch.
            change: function or None. What happens to a batch's pixels, which it takes with the batch's number.

        Returns:
            tf.data.Dataset of (pixels uint8 [batch, H, W, 3], letter ids int32 [batch, longest]).
        """

        def load(step: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
            return self.read_images(order[step]), self._ids[order[step]]

        def batch(step: Any, pixels: Any, ids: Any) -> tuple[Any, Any]:
            # Of no stated size: TensorFlow takes the loop of CTC at one size for that at another, and complains.
            pixels = tf.ensure_shape(pixels, (None, *self.features.shape))
            return change(pixels, step) if change else pixels, tf.ensure_shape(ids, (None, self._ids.shape[1]))

        return self.ahead(load, [self.dtype, np.int32], batch, range(first_step, len(order)))

    def everything(self, batch_size: int) -> tf.data.Dataset:
        """All images once, in their order; the last batch may be smaller."""
        whole, rest = divmod(len(self.rows), batch_size)
        numbers = np.arange(len(self.rows))
        batches = self.dataset(numbers[: whole * batch_size].reshape(whole, batch_size)) if whole else None
        last = self.dataset(numbers[whole * batch_size :].reshape(1, rest)) if rest else None
        if batches is None or last is None:
            return batches or last
        return batches.concatenate(last)
