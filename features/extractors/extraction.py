"""The extraction core: encoded images in, stored features out, free of any engine.

sources → decode threads → batches padded to a multiple of 8 → network → storage dtype → rows, in order

Decoding, the network and whoever takes the rows work at the same time. One record's failure costs no other: a batch
that fails is bisected to the guilty record, and a batch that does not fit the memory is halved, with the size that fits
remembered.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from features.extractors.frozen_graph import ExtractorModel
from features.images.decode import MAX_PIXELS, decode
from features.images.resize import Pixels
from features.images.resizer import Resizer
from features.store.storage_dtypes import StoredColumns, encode
from schemas.errors import RecordError, to_record_error
from schemas.table_config import FeatureTableConfig

PADDING = 8
DEFAULT_BATCH_SIZE = 16
DEFAULT_THREADS = 2

_OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")  # of TensorFlow and of PyTorch
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "can't allocate memory")  # of XLA, and of PyTorch on a processor

_log = logging.getLogger("capt.extraction")


@dataclass(frozen=True)
class EncodedImage:
    """One encoded image: a label for the caller, and how to get its bytes; whatever that raises fails this image."""

    key: bytes
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ExtractedRow:
    """The stored columns of one image's features."""

    key: bytes
    values: StoredColumns


@dataclass(frozen=True)
class FailedImage:
    """Why one image has no features."""

    key: bytes
    error: RecordError


Given = TypeVar("Given")
Result = TypeVar("Result")

Decoded = Pixels | RecordError
Output = NDArray[np.float32] | RecordError


class ExtractionCore:
    """Extracts features as a recipe says.

    Args:
        table_config: FeatureTableConfig. Size, resizing and storage dtype.
        network: Network. Computes the features of pixels, in the dtype that the resizing gives.
        batch_size: int. Images a call at most.
        threads: int. Decoding threads.
        calls: int. Calls of the network at a time. While a device computes one, another's images and features can be
            on their way to and from it.
        max_pixels: int. Images with more are refused by their header.
    """

    def __init__(
        self,
        table_config: FeatureTableConfig,
        network: ExtractorModel,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        threads: int = DEFAULT_THREADS,
        calls: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._table_config = table_config
        self._fitting = Resizer.of(table_config)
        self._network = network
        self._threads = threads
        self._calls = calls
        self._max_pixels = max_pixels
        self.batch_size = batch_size

    def run(self, sources: Iterable[EncodedImage]) -> Iterator[ExtractedRow | FailedImage]:
        """One result a source, in order; memory holds three batches of images at most, and one more a further call."""
        decoded = _in_order(self._decode, sources, self._threads, lambda: max(self.batch_size, self._threads))
        batches = iter(lambda: list(islice(decoded, self.batch_size)), [])
        for results in _in_order(self._extract, batches, self._calls, lambda: self._calls + 1):
            yield from results

    def _decode(self, source: EncodedImage) -> tuple[bytes, Decoded]:
        stage = "read"
        try:
            data = source.read()
            stage = "decode"
            return source.key, decode(data, self._fitting, max_pixels=self._max_pixels)
        except Exception as error:
            return source.key, to_record_error(stage, error)

    def _extract(self, batch: list[tuple[bytes, Decoded]]) -> list[ExtractedRow | FailedImage]:
        pixels = [image for _, image in batch if not isinstance(image, RecordError)]
        outputs = self._predict(np.stack(pixels)) if pixels else iter(())
        return [self._finish(key, image if isinstance(image, RecordError) else next(outputs)) for key, image in batch]

    def _predict(self, pixels: Pixels) -> Iterator[Output]:
        for start in range(0, len(pixels), self.batch_size):
            yield from self._predict_some(pixels[start : start + self.batch_size])

    def _predict_some(self, pixels: Pixels) -> Iterator[Output]:
        try:
            yield from self._call(pixels)
        except Exception as error:
            if len(pixels) == 1:
                yield _blame(error)
                return
            half = (len(pixels) + 1) // 2
            if is_out_of_memory(error) and half < self.batch_size:
                _log.warning("a batch of %d does not fit the memory; going on with %d", len(pixels), half)
                self.batch_size = half
            yield from self._predict(pixels[:half])
            yield from self._predict(pixels[half:])

    def _call(self, pixels: Pixels) -> NDArray[np.float32]:
        missing = -len(pixels) % PADDING
        padding = np.zeros((missing, *pixels.shape[1:]), pixels.dtype)
        padded = np.concatenate([pixels, padding]) if missing else pixels
        return self._network.predict(padded)[: len(pixels)]

    def _finish(self, key: bytes, output: Output) -> ExtractedRow | FailedImage:
        if isinstance(output, RecordError):
            return FailedImage(key, output)
        try:
            return ExtractedRow(key, encode(output, self._table_config.dtype))
        except Exception as error:
            return FailedImage(key, to_record_error("store", error))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is that NumPy or a backend of Keras found no memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY
    return named or any(words in str(error) for words in _NO_MEMORY)


def _in_order(
    work: Callable[[Given], Result], given: Iterable[Given], threads: int, ahead: Callable[[], int]
) -> Iterator[Result]:
    """What `work` makes of each, in order, by threads; at most `ahead()` of them begin before the first is taken."""
    remaining = iter(given)
    with ThreadPoolExecutor(threads, thread_name_prefix=work.__name__) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            while True:
                for one in islice(remaining, max(0, ahead() - len(waiting))):
                    waiting.append(pool.submit(work, one))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _blame(error: Exception) -> RecordError:
    if is_out_of_memory(error):
        return RecordError("extract", "out of memory", "one image alone does not fit", permanent=False)
    return RecordError("extract", "network failed", f"{type(error).__name__}: {error}")
