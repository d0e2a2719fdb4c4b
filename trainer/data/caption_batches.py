"""Batches of captions with the features of their images, as tf.data; each a function of (seed, epoch, step) alone.

    order: caption numbers of every batch of an epoch → one read a batch: distinct images, padded tokens → prefetch

An image's captions come in one batch, so its features are read and projected once; images whose longest captions are
of like length come together, so less is padding; which images, and the order of batches, is drawn anew every epoch.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from schemas.table_config import PAD
from trainer.data.caption_data import Captions, spans
from trainer.data.prefetch import FeatureFeed
from trainer.data.table_selection import FeatureSource

Order = list[NDArray[np.int64]]
PerImage = Literal["all", "one"]

# Images are sorted by length within pools of some batches. Larger pools save padding (Flickr8k's captions: 1.93 padded
# words a word unsorted, 1.43 in pools of 16), but where few pools make an epoch, batches of like wording follow each
# other and an epoch teaches less.
_POOL_BATCHES = 16
_POOLS_AN_EPOCH = 8


def steps_per_epoch(captions: Captions, batch_size: int, per_image: PerImage = "all") -> int:
    """Batches in one pass over the captions, or over the images where each gives one."""
    return -(-len(captions if per_image == "all" else captions.rows) // batch_size)


def epoch_order(captions: Captions, batch_size: int, seed: int, epoch: int, per_image: PerImage = "all") -> Order:
    """The batches of one pass: every caption once, or one of each image.

    Args:
        captions: Captions. The split.
        batch_size: int. Captions a batch; one of them, wherever it comes, may have fewer.
        seed: int. The run's seed.
        epoch: int. Which pass, from 0.
        per_image: str. `all` captions of an image, together, or `one` drawn at random.

    Returns:
        list of int64 arrays: the numbers of each batch's captions.
    """
    rng = np.random.default_rng([seed, epoch])
    images = rng.permutation(len(captions.rows))
    return _shuffled(_cut(_numbers(captions, images, batch_size, per_image, rng), batch_size), rng)


def sampled_order(
    captions: Captions, batch_size: int, seed: int, epoch: int, steps: int, per_image: PerImage = "all"
) -> Order:
    """The batches of an epoch of `steps` full ones, of images drawn with replacement; else as `epoch_order`."""
    rng = np.random.default_rng([seed, epoch])
    most = steps * batch_size
    images = rng.integers(0, len(captions.rows), most)
    if per_image == "all":
        images = images[: int(np.searchsorted(np.cumsum(np.diff(captions.first)[images]), most)) + 1]
    return _shuffled(_cut(_numbers(captions, images, batch_size, per_image, rng)[:most], batch_size), rng)


def plain_order(captions: Captions, batch_size: int) -> Order:
    """All captions once, the shortest first: the same batches every time."""
    images = np.argsort(captions.longest, kind="stable")
    return _cut(_captions_of(captions, images), batch_size)


def _numbers(
    captions: Captions, images: NDArray[np.int64], batch_size: int, per_image: PerImage, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The captions of the images, or one of each, those of like length near each other."""
    if per_image == "all":
        return _captions_of(captions, _alike_together(captions, images, batch_size))
    drawn = captions.first[images] + rng.integers(0, np.diff(captions.first)[images])
    pool = np.arange(len(drawn)) // _pool_size(batch_size, len(drawn))
    return drawn[np.lexsort((captions.lengths[drawn], pool))]


def _alike_together(captions: Captions, images: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """The images, sorted by the length of their longest captions within each pool of some batches."""
    before = np.cumsum(np.diff(captions.first)[images])
    pool = before // _pool_size(batch_size, int(before[-1]))
    return images[np.lexsort((captions.longest[images], pool))]


def _pool_size(batch_size: int, captions: int) -> int:
    return min(_POOL_BATCHES * batch_size, captions // _POOLS_AN_EPOCH) or 1


def _shuffled(batches: Order, rng: np.random.Generator) -> Order:
    return [batches[i] for i in rng.permutation(len(batches))]


def _captions_of(captions: Captions, images: NDArray[np.int64]) -> NDArray[np.int64]:
    return spans(captions.first[images], np.diff(captions.first)[images])


def _cut(numbers: NDArray[np.int64], size: int) -> Order:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


class BatchReader(FeatureFeed):
    """Reads batches of one split.

    Args:
        captions: Captions. The split.
        features: FeatureSource. The table that its `rows` are positions of.
        round_words: int. Captions are padded to a multiple of this many words,
        round_images: int. and features to a multiple of this many images: a backend that compiles every shape anew
            then sees few. Padding changes no result.
    """

    def __init__(
        self, captions: Captions, features: FeatureSource, *, round_words: int = 1, round_images: int = 1
    ) -> None:
        super().__init__(features, captions.rows)
        self.captions = captions
        self.round_words = round_words
        self.round_images = round_images

    def read(self, numbers: NDArray[np.int64], batch_size: int) -> tuple[NDArray[Any], ...]:
        """One batch.

        Args:
            numbers: int64 array [captions]. Which captions, at most `batch_size`.
            batch_size: int. Rows of the batch; the ones beyond the captions are padding.

        Returns:
            Features [images, *shape] as stored, each image once; the image of each caption int32 [batch_size]; its
            tokens int32 [batch_size, T] from the start token on; the word after each token int32 [batch_size, T].
        """
        images, image = np.unique(self.captions.image[numbers], return_inverse=True)
        tokens = self._padded_tokens(numbers, batch_size)
        image = np.pad(image, (0, batch_size - len(numbers))).astype(np.int32)
        return self._padded_features(images), image, tokens[:, :-1], tokens[:, 1:]

    def _padded_features(self, images: NDArray[np.int32]) -> NDArray[Any]:
        values = self.read_images(images)
        lacking = -len(images) % self.round_images
        return np.concatenate([values, np.zeros((lacking, *values.shape[1:]), values.dtype)]) if lacking else values

    def _padded_tokens(self, numbers: NDArray[np.int64], batch_size: int) -> NDArray[np.int32]:
        lengths = self.captions.lengths[numbers]
        words = -(-(int(lengths.max()) - 1) // self.round_words) * self.round_words
        row = np.repeat(np.arange(len(numbers)), lengths)
        column = spans(np.zeros_like(lengths), lengths)
        tokens = np.full((batch_size, words + 1), PAD, np.int32)
        tokens[row, column] = self.captions.tokens[spans(self.captions.starts[numbers], lengths)]
        return tokens

    def dataset(
        self,
        order: Sequence[NDArray[np.int64]],
        batch_size: int,
        first_step: int = 0,
        change: Callable[[Any, Any], Any] | None = None,
    ) -> tf.data.Dataset:
        """The batches of `order` from `first_step` on, read ahead by a few.

        Args:
            order: sequence of int64 arrays. The numbers of each batch's captions.
            batch_size: int. Captions a batch at most.
            first_step: int. The first batch.
            change: function or None. What happens to a batch's features, which it takes with the batch's number.

        Returns:
            tf.data.Dataset of ({"features", "image", "tokens", "targets"}, targets), as
            `trainer.models.captioner.Captioner.call` takes them.
        """

        def batch(step: Any, features: Any, image: Any, tokens: Any, targets: Any) -> tuple[dict[str, Any], Any]:
            features = tf.ensure_shape(features, (None, *self.features.shape))
            inputs = {
                "features": change(features, step) if change else features,
                "image": tf.ensure_shape(image, (batch_size,)),
                "tokens": tf.ensure_shape(tokens, (batch_size, None)),
                "targets": tf.ensure_shape(targets, (batch_size, None)),
            }
            return inputs, inputs["targets"]

        dtypes = [self.dtype, np.int32, np.int32, np.int32]
        steps = range(first_step, len(order))
        return self.ahead(lambda step: self.read(order[step], batch_size), dtypes, batch, steps)
