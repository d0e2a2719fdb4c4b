"""Feeding: rows of a feature table as batches read ahead of training, by tf.data.

step → one read of the table, in NumPy → tensors → prefetch
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from schemas.errors import CaptError
from trainer.data.table_selection import FeatureSource

_PARALLEL_READS = 2


class FeatureFeed:
    """Reads rows of a feature table, in batches ahead of who uses them.

    Args:
        features: FeatureSource. The table.
        rows: int64 array [images]. Positions in it, in the order in which images are numbered.

    A `CaptError` raised while a batch is read is kept in `error`, for tf.data passes on its text alone.
    """

    def __init__(self, features: FeatureSource, rows: NDArray[np.int64]) -> None:
        self.features = features
        self.rows = rows
        features.ensure_local(rows)
        self.dtype = features.read(rows[:1]).dtype
        self.error: CaptError | None = None

    def read_images(self, images: NDArray[np.integer]) -> NDArray[Any]:
        """The features [N, *shape] of images, by number."""
        try:
            return self.features.read(self.rows[images])
        except CaptError as error:
            self.error = error
            raise

    def sample(self, images: int) -> NDArray[Any]:
        """The features of some images, spread evenly over all: [N, *shape], at most `images` of them."""
        return self.read_images(np.arange(0, len(self.rows), -(-len(self.rows) // images)))

    def ahead(
        self,
        load: Callable[[int], Sequence[NDArray[Any]]],
        dtypes: Sequence[Any],
        assemble: Callable[..., Any],
        steps: range,
    ) -> tf.data.Dataset:
        """What `load` gives at each step, as tensors, read ahead by a few.

        Args:
            load: function from a step to arrays.
            dtypes: sequence of dtypes. Of the arrays.
            assemble: function from the step, int64, and the tensors, to what a batch is; it states their shapes.
            steps: range. The steps.
        """

        def arrays(step: Any) -> list[NDArray[Any]]:
            return [np.ascontiguousarray(array) for array in load(int(step))]

        def batch(step: Any) -> Any:
            kinds = [tf.as_dtype(dtype) for dtype in dtypes]
            return assemble(step, *tf.numpy_function(arrays, [step], kinds, stateful=False))

        numbers = tf.data.Dataset.range(steps.start, steps.stop)
        return numbers.map(batch, num_parallel_calls=_PARALLEL_READS, deterministic=True).prefetch(_PARALLEL_READS)


@contextmanager
def raise_read_errors(*feeds: FeatureFeed | None) -> Iterator[None]:
    """Within the block, an error that tf.data passed on as text is raised as the CaptError that a feed met."""
    used = [feed for feed in feeds if feed is not None]
    for feed in used:
        feed.error = None
    try:
        yield
    except tf.errors.OpError as error:
        met = [feed.error for feed in used if feed.error is not None]
        if not met:
            raise
        raise met[0] from error
