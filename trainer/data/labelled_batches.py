"""Batches images and their labels for tf.data. Each batch is a function of (seed, epoch, step).

image numbers of all batches of an epoch → one read per batch: pixels, character IDs → augment → prefetch
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.store import FeatureTable
from trainer.data.feature_reader import Augment, FeatureReader


def shuffle_images(images: int, batch_size: int, seed: int, epoch: int, steps: int | None = None) -> NDArray[np.int64]:
    """Returns image numbers int64 [steps, batch_size]: every image of a split once, in a new order for every epoch.

    All batches are full, so that every step has equal weight: the first images of the pass fill the last batch. If
    `steps` is given, images are sampled with replacement instead.
    """
    rng = np.random.default_rng([seed, epoch])
    if steps is not None:
        return rng.integers(0, images, (steps, batch_size))
    steps = -(-images // batch_size)
    return np.resize(rng.permutation(images), (steps, batch_size))


def mix_datasets(
    datasets: NDArray[np.int64], weights: Sequence[float], batch_size: int, seed: int, epoch: int, steps: int | None
) -> NDArray[np.int64]:
    """Returns image numbers int64 [steps, batch_size], in a new order for every epoch, with a fraction per dataset.

    Every image of a dataset occurs equally often, or one time less. Without `steps`, there are as many batches as in
    one pass over all images.

    Args:
        datasets: Number of the dataset of each image, int64 [images].
        weights: Weights of the datasets; their ratio is that of the fractions.
        batch_size: Number of images per batch.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        steps: Number of batches; None for one pass.
    """
    rng = np.random.default_rng([seed, epoch])
    steps = -(-len(datasets) // batch_size) if steps is None else steps
    total = steps * batch_size
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * total).astype(np.int64)
    counts = np.diff(ends, prepend=0)
    parts = [
        np.resize(rng.permutation(np.flatnonzero(datasets == number)), count) for number, count in enumerate(counts)
    ]
    return rng.permutation(np.concatenate(parts)).reshape(steps, batch_size)


class LabelledBatchReader(FeatureReader):
    """Reads batches of one split: features at `rows` int64 [images] and `targets` [images, ...]."""

    def __init__(self, features: FeatureTable, rows: NDArray[np.int64], targets: NDArray[Any]) -> None:
        super().__init__(features, rows)
        self._targets = targets

    def dataset(
        self,
        order: NDArray[np.int64] | Sequence[NDArray[np.int64]],
        first_step: int = 0,
        augment: Augment | None = None,
    ) -> tf.data.Dataset:
        """Returns features [batch, *shape] and targets [batch, ...] of the batches of `order`, from `first_step` on.

        `augment` maps the features and the number of a batch to new features.
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
        numbers = np.arange(len(self.rows))
        return self.dataset([numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)])
