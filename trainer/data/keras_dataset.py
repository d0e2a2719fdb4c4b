"""Provides captions and features as a tf.data dataset for the `fit` of any Keras model: `capt.keras_dataset`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.store import open_store
from schemas.errors import CaptError, UsageError
from trainer.data.caption_batches import BatchReader, shuffle_captions, sort_captions, steps_per_epoch
from trainer.data.caption_data import Captions, join_captions
from trainer.data.table_selection import select_tables
from trainer.models.model_specs import AnyInput


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
) -> tf.data.Dataset:
    """Returns batches `((features, input tokens), target tokens)` for `keras.Model.fit`, one pass over all captions.

    Features are float32 [N, *shape], repeated for each caption of an image. Tokens are int32 [N, T], padded with 0.
    Input tokens begin with `<start>`; the target of each is the next token, up to `<end>`. A loss should ignore
    the targets 0: `keras.losses.SparseCategoricalCrossentropy(ignore_class=0)`.

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

    Returns:
        A tf.data.Dataset of known length.

    Raises:
        StoreError: No table fits, or several do.
        CaptError: The split has no captions of images with features.
        UsageError: A caption has more than `length` + 1 tokens, or a number is below 1.

    Example:
        data = capt.keras_dataset("store", batch_size=32)
        (features, tokens), targets = next(iter(data))
    """
    if batch_size < 1:
        raise UsageError(f"invalid number {batch_size}", location="batch_size", hint="Use 1 or more.")
    names = (dataset,) if isinstance(dataset, str) else dataset
    tables = select_tables(open_store(store), AnyInput(), names, feature_table, caption_table)
    data = join_captions(tables)
    if split not in data.splits:
        raise UsageError(f"unknown split {split!r}", location="split", hint=f"Use one of {', '.join(data.splits)}.")
    captions = data.splits[split]
    if not len(captions):
        location = ", ".join(one.name for one in tables.datasets)
        raise CaptError(f"the split {split} has no captions of images with features", location=location)
    width = _check_length(captions, length)
    reader = BatchReader(captions, tables.features, pad_tokens_to=width)
    orders = _orders(captions, batch_size, seed) if shuffle else None

    def batches() -> Iterator[tuple[tuple[NDArray[Any], NDArray[np.int32]], NDArray[np.int32]]]:
        for numbers in next(orders) if orders else sort_captions(captions, batch_size):
            features, image, tokens, targets = reader.read(numbers, len(numbers))
            yield (features[image].astype(np.float32), tokens), targets

    ids = tf.TensorSpec((None, width), tf.int32)
    signature = ((tf.TensorSpec((None, *tables.features.shape), tf.float32), ids), ids)
    steps = steps_per_epoch(captions, batch_size)
    unread = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return unread.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def _orders(captions: Captions, batch_size: int, seed: int) -> Iterator[list[NDArray[np.int64]]]:
    """Iterates over the orders of all passes."""
    epoch = 0
    while True:
        yield shuffle_captions(captions, batch_size, seed, epoch)
        epoch += 1


def _check_length(captions: Captions, length: int | None) -> int:
    longest = captions.max_length + 1
    if length is None:
        return longest
    if length < longest:
        message = f"the longest caption has {longest} input tokens, more than {length}"
        hint = f"Use at least {longest}, or prepare the captions with --max-length {max(length + 1, 3)}."
        raise UsageError(message, location="length", hint=hint)
    return length
