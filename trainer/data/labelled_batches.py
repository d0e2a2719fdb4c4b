"""Batches images and their labels for tf.data. Each batch is a function of (seed, epoch, step).

image numbers of all batches of an epoch → one read per batch: pixels, character IDs → augment → prefetch
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.feature_reader import Augment, FeatureReader
from trainer.data.table_selection import FeatureSource


def shuffle_images(images: int, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Returns the batches of one pass over the split: every image once, in a new random order.

    All batches are full, so that every step has equal weight: the first images of the pass fill the last batch.

    Args:
        images: Number of images of the split.
        batch_size: Images per batch.
        seed: The seed of the run.
        epoch: The number of the pass, from 0.

    Returns:
        Image numbers, int64 [steps, batch_size].
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    steps = -(-images // batch_size)
    return np.resize(order, steps * batch_size).reshape(steps, batch_size)


def sample_images(images: int, batch_size: int, seed: int, epoch: int, steps: int) -> NDArray[np.int64]:
    """Samples the batches of an epoch of `steps` steps with replacement; otherwise as `shuffle_images`."""
    return np.random.default_rng([seed, epoch]).integers(0, images, (steps, batch_size))


class LabelledBatchReader(FeatureReader):
    """Reads batches of one split.

    Args:
        features: The feature table.
        rows: Positions in the table: int64 [images].
        targets: The target of each image: [images, ...].
    """

    def __init__(self, features: FeatureSource, rows: NDArray[np.int64], targets: NDArray[Any]) -> None:
        super().__init__(features, rows)
        self._targets = targets

    def dataset(self, order: NDArray[np.int64], first_step: int = 0, augment: Augment | None = None) -> tf.data.Dataset:
        """Returns the batches of `order` from `first_step` on.

        Args:
            order: Image numbers, int64 [steps, batch].
            first_step: The first batch.
            augment: Maps the features and the number of a batch to new features.

        Returns:
            Pairs of features [batch, *shape] and targets [batch, ...].
        """

        def load(step: int) -> tuple[NDArray[Any], NDArray[Any]]:
            return self.read_images(order[step]), self._targets[order[step]]

        def batch(step: Any, features: Any, targets: Any) -> tuple[Any, Any]:
            # The batch dimension stays unknown: with several static sizes, TensorFlow reports an error in the CTC loop.
            features = tf.ensure_shape(features, (None, *self.features.shape))
            targets = tf.ensure_shape(targets, (None, *self._targets.shape[1:]))
            return augment(features, step) if augment else features, targets

        return self.prefetch(load, [self.dtype, self._targets.dtype], batch, range(first_step, len(order)))

    def all_images(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images once, in order; the last batch may be smaller."""
        full, rest = divmod(len(self.rows), batch_size)
        numbers = np.arange(len(self.rows))
        batches = self.dataset(numbers[: full * batch_size].reshape(full, batch_size)) if full else None
        last = self.dataset(numbers[full * batch_size :].reshape(1, rest)) if rest else None
        if batches is None or last is None:
            return batches or last
        return batches.concatenate(last)
