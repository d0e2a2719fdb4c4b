"""Provides captions and features as a tf.data dataset for the `fit` of any Keras model: `capt.keras_dataset`."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from schemas.errors import UsageError
from trainer.data.caption_source import CaptionBatches, caption_source


def keras_dataset(
    store: str | Path,
    split: Literal["train", "val", "test"] = "train",
    *,
    dataset: str | Sequence[str] = (),
    feature_table: str | None = None,
    caption_table: str | None = None,
    batch_size: int = 64,
    length: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    initial_epoch: int = 0,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Returns batches `((features, input tokens), target tokens)` for `keras.Model.fit`, one pass over all captions.

    Features are float32 [N, *shape], repeated for each caption of an image. Tokens are int32 [N, T], padded with 0.
    Input tokens begin with `<start>`; the target of each is the next token, up to `<end>`. A loss should ignore
    the targets 0: `keras.losses.SparseCategoricalCrossentropy(ignore_class=0)`.

    Each batch is a function of seed, epoch and step, the same as in `capt.caption_source(…).batches(…)`.

    Args:
        store: Store: a local directory, or an s3:// or gs:// URI.
        split: Split of the captions.
        dataset: Name of a dataset, or several. By default, the only one with captions.
        feature_table: Fingerprint of the feature table, or its beginning. By default, the only one that fits.
        caption_table: Fingerprint of the caption table, or its beginning. By default, the only one that fits.
        batch_size: Captions per batch. One batch may have fewer.
        length: T, number of input tokens per caption. By default, that of the longest caption of the split.
        shuffle: Whether each pass has another order; otherwise captions are in order of length.
        seed: Seed of the orders. Equal seeds give equal sequences of orders.
        initial_epoch: Number of the epoch of the first pass, to go on with a sequence of orders.
        first_step: Number of the first batch, to go on in the middle of the epoch `initial_epoch`. Then the dataset has
            the rest of this epoch only.

    Returns:
        A tf.data.Dataset of known length.

    Raises:
        StoreError: No table fits, or several do.
        CaptError: The split has no captions of images with features.
        UsageError: A caption has more than `length` + 1 tokens, or a number is out of range.

    Example:
        data = capt.keras_dataset("store", batch_size=32)
        (features, tokens), targets = next(iter(data))
    """
    source = caption_source(store, split, dataset=dataset, feature_table=feature_table, caption_table=caption_table)

    def of_epoch(epoch: int) -> CaptionBatches:
        return source.batches(batch_size, seed=seed, epoch=epoch, first_step=first_step, shuffle=shuffle, length=length)

    first, epochs = of_epoch(initial_epoch), count(initial_epoch)

    def batches() -> Iterator[tuple[tuple[NDArray[Any], NDArray[np.int32]], NDArray[np.int32]]]:
        epoch = next(epochs)
        if first_step and epoch > initial_epoch:
            hint = f"Open another one with initial_epoch={epoch}."
            raise UsageError("the dataset has the rest of one epoch only", location="first_step", hint=hint)
        data = of_epoch(epoch)
        for number in range(len(data)):
            batch = data[number]
            yield (batch["features"], batch["tokens"]), batch["targets"]

    ids = tf.TensorSpec((None, first.length), tf.int32)
    signature = ((tf.TensorSpec((None, *source.feature_shape), tf.float32), ids), ids)
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(len(first))).prefetch(2)
