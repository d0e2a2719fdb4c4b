"""Orders the captions of a split into batches. Each batch is a function of (seed, epoch, step).

Captions of an image are adjacent, so its features are read and projected once per batch; an image at the boundary of
two batches is read twice. Images whose longest captions have similar lengths share batches, which saves padding. Images
and batches are shuffled in every epoch.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.choices import CaptionsPerImage
from schemas.table_config import PAD
from trainer.data.caption_data import Captions, spans

Order = list[NDArray[np.int64]]

# Images are sorted by length within pools of several batches. Larger pools save padding: on the captions of Flickr8k,
# 1.93 padded tokens per token without sorting, 1.43 with pools of 16 batches. With fewer than 8 pools per epoch,
# consecutive batches have similar captions, and the model learns less per epoch.
_POOL_BATCHES = 16
_POOLS_PER_EPOCH = 8


def steps_per_epoch(captions: Captions, batch_size: int, per_image: CaptionsPerImage = "all") -> int:
    """Returns the number of batches in one pass over all captions, or over one caption per image."""
    return -(-len(captions if per_image == "all" else captions.rows) // batch_size)


def shuffle_captions(
    captions: Captions,
    batch_size: int,
    seed: int,
    epoch: int,
    per_image: CaptionsPerImage = "all",
    steps: int | None = None,
) -> Order:
    """Returns the caption numbers, int64, of each batch of one pass over the split.

    Args:
        captions: The split.
        batch_size: Captions per batch. In a pass, one batch at a random position may have fewer.
        seed: The seed of the run.
        epoch: The number of the pass, from 0.
        per_image: `all` captions of an image together, or `one` random caption per image.
        steps: Samples images with replacement for this number of full batches, instead of a pass.
    """
    rng, counts = np.random.default_rng([seed, epoch]), np.diff(captions.first)
    if steps is None:
        images = rng.permutation(len(captions.rows))
    else:
        images = rng.integers(0, len(captions.rows), steps * batch_size)
        if per_image == "all":
            images = images[: int(np.searchsorted(np.cumsum(counts[images]), len(images))) + 1]
    # Captions of similar length are near each other.
    if per_image == "all":
        before = np.cumsum(counts[images])
        pool = before // _pool_size(batch_size, int(before[-1]))
        numbers = _captions_per_image(captions, images[np.lexsort((captions.longest[images], pool))])
    else:
        numbers = captions.first[images] + rng.integers(0, counts[images])
        pool = np.arange(len(numbers)) // _pool_size(batch_size, len(numbers))
        numbers = numbers[np.lexsort((captions.lengths[numbers], pool))]
    batches = _cut(numbers if steps is None else numbers[: steps * batch_size], batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def sort_captions(captions: Captions, batch_size: int) -> Order:
    """Returns batches of all captions once, shortest first; the order is always the same."""
    return _cut(_captions_per_image(captions, np.argsort(captions.longest, kind="stable")), batch_size)


def _pool_size(batch_size: int, captions: int) -> int:
    return min(_POOL_BATCHES * batch_size, captions // _POOLS_PER_EPOCH) or 1


def _captions_per_image(captions: Captions, images: NDArray[np.int64]) -> NDArray[np.int64]:
    return spans(captions.first[images], np.diff(captions.first)[images])


def _cut(numbers: NDArray[np.int64], size: int) -> Order:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def pad_captions(
    captions: Captions, numbers: NDArray[np.int64], rows: int | None = None, multiple: int = 1
) -> NDArray[np.int32]:
    """Returns the token IDs of captions, with start and end tokens, padded on the right: int32 [rows, T + 1].

    Args:
        captions: The split.
        numbers: Numbers of the captions.
        rows: Number of rows; rows without a caption are padding. None for one row per caption.
        multiple: T, the number of input tokens, is a multiple of this number.
    """
    lengths = captions.lengths[numbers]
    length = -(-(int(lengths.max()) - 1) // multiple) * multiple
    row = np.repeat(np.arange(len(numbers)), lengths)
    column = spans(np.zeros_like(lengths), lengths)
    tokens = np.full((len(numbers) if rows is None else rows, length + 1), PAD, np.int32)
    tokens[row, column] = captions.tokens[spans(captions.starts[numbers], lengths)]
    return tokens
