"""Reads rows of a feature table as tf.data batches ahead of training.

step → one read of the table in NumPy → tensors → prefetch
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.store import FeatureTable
from schemas.errors import CaptError

Augment = Callable[[Any, Any], Any]

_PARALLEL_READS = 2


class FeatureReader:
    """Reads the features of images in prefetched batches; `rows` int64 [images] are their positions in the table.

    tf.data passes on only the text of an exception, so `error` keeps a CaptError that is raised during a read.
    """

    def __init__(self, features: FeatureTable, rows: NDArray[np.int64]) -> None:
        self.features = features
        self.rows = rows
        features.ensure_local(rows)
        self.dtype = features.read(rows[:1]).dtype
        self.error: CaptError | None = None

    def read_images(self, images: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Reads the features [N, *shape] of images, by number."""
        try:
            return self.features.read(self.rows[images])
        except CaptError as error:
            self.error = error
            raise

    def sample(self, count: int) -> NDArray[Any]:
        """Reads the features of at most `count` images, evenly spaced: [N, *shape]."""
        return self.read_images(np.arange(0, len(self.rows), -(-len(self.rows) // count)))

    def prefetch(
        self,
        load: Callable[[int], Sequence[NDArray[Any]]],
        dtypes: Sequence[Any],
        assemble: Callable[..., Any],
        steps: range,
    ) -> tf.data.Dataset:
        """Returns a prefetched dataset of one element per step.

        `load` maps a step to arrays of these dtypes; `assemble` maps the step, int64, and their tensors to a batch, and
        sets static shapes.
        """

        def arrays(step: Any) -> list[NDArray[Any]]:
            return [np.ascontiguousarray(array) for array in load(int(step))]

        def batch(step: Any) -> Any:
            kinds = [tf.as_dtype(dtype) for dtype in dtypes]
            return assemble(step, *tf.numpy_function(arrays, [step], kinds, stateful=False))

        numbers = tf.data.Dataset.range(steps.start, steps.stop)
        return numbers.map(batch, num_parallel_calls=_PARALLEL_READS, deterministic=True).prefetch(_PARALLEL_READS)


@contextmanager
def raise_read_errors(*readers: FeatureReader | None) -> Iterator[None]:
    """Raises the CaptError of a reader instead of the tf.data error that reports its text."""
    used = [reader for reader in readers if reader is not None]
    for reader in used:
        reader.error = None
    try:
        yield
    except tf.errors.OpError as error:
        for reader in used:
            if reader.error is not None:
                raise reader.error from error
        raise
