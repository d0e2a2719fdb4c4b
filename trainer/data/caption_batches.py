"""Batches captions and the features of their images for tf.data.

caption numbers of all batches of an epoch → one read per batch: distinct images, padded tokens → prefetch
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.store import FeatureTable
from trainer.data.caption_data import Captions
from trainer.data.caption_order import pad_captions
from trainer.data.feature_reader import Augment, FeatureReader


class BatchReader(FeatureReader):
    """Reads batches of one split; `captions.rows` refers to the feature table.

    A backend that compiles every new shape needs few shapes, so it pads captions and features to multiples of a number
    of tokens and images. Padding does not change results.
    """

    def __init__(
        self, captions: Captions, features: FeatureTable, *, pad_tokens_to: int = 1, pad_images_to: int = 1
    ) -> None:
        super().__init__(features, captions.rows)
        self.captions = captions
        self.pad_tokens_to = pad_tokens_to
        self.pad_images_to = pad_images_to

    def read(self, numbers: NDArray[np.int64], batch_size: int) -> tuple[NDArray[Any], ...]:
        """Reads the batch of at most `batch_size` caption numbers; rows without a caption are padding.

        Returns:
            Features [images, *shape] as stored, each image once; the image of each caption int32 [batch_size]; its
            tokens int32 [batch_size, T] from the start token on; the next token of each int32 [batch_size, T].
        """
        images, image = np.unique(self.captions.image[numbers], return_inverse=True)
        tokens = pad_captions(self.captions, numbers, batch_size, self.pad_tokens_to)
        image = np.pad(image, (0, batch_size - len(numbers))).astype(np.int32)
        values = self.read_images(images)
        missing = -len(images) % self.pad_images_to
        if missing:
            values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
        return values, image, tokens[:, :-1], tokens[:, 1:]

    def dataset(
        self, order: Sequence[NDArray[np.int64]], batch_size: int, first_step: int = 0, augment: Augment | None = None
    ) -> tf.data.Dataset:
        """Returns the batches of `order`, of at most `batch_size` captions, from `first_step` on.

        Each is {"features", "image", "tokens", "targets"} and targets, the input of
        `trainer.models.captioner.Captioner`. `augment` maps the features and the number of a batch to new features.
        """

        def batch(step: Any, features: Any, image: Any, tokens: Any, targets: Any) -> tuple[dict[str, Any], Any]:
            features = tf.ensure_shape(features, (None, *self.features.shape))
            inputs = {
                "features": augment(features, step) if augment else features,
                "image": tf.ensure_shape(image, (batch_size,)),
                "tokens": tf.ensure_shape(tokens, (batch_size, None)),
                "targets": tf.ensure_shape(targets, (batch_size, None)),
            }
            return inputs, inputs["targets"]

        dtypes = [self.dtype, np.int32, np.int32, np.int32]
        steps = range(first_step, len(order))
        return self.prefetch(lambda step: self.read(order[step], batch_size), dtypes, batch, steps)

    def image_dataset(
        self, order: NDArray[np.int64], first_step: int = 0, augment: Augment | None = None
    ) -> tf.data.Dataset:
        """Returns the numbers int64 [batch] and features [batch, *shape] of images, from `first_step` on.

        `order` int64 [steps, batch] are the numbers; `augment` as for `dataset`.
        """

        def batch(step: Any, images: Any, features: Any) -> tuple[Any, Any]:
            features = tf.ensure_shape(features, (None, *self.features.shape))
            return images, augment(features, step) if augment else features

        def load(step: int) -> tuple[NDArray[Any], NDArray[Any]]:
            return order[step], self.read_images(order[step])

        return self.prefetch(load, [np.int64, self.dtype], batch, range(first_step, len(order)))
