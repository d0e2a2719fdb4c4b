"""Extracts features from encoded images in batches, independent of any runner.

images → decode threads → batches padded to a multiple of 8 → extractor → storage dtype → rows, in order

Decoding, the extractor and the consumer of the rows run in parallel. One failed image does not affect the others: a
failed batch is bisected to the failing image. A batch that does not fit into memory is halved, and later batches keep
the smaller size.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.extractors.runtimes import LoadedExtractor, choose_batch_size
from features.images.decode import decode
from features.images.resize import Pixels, Resizer
from features.store.storage_dtypes import StoredColumns, encode
from schemas.defaults import BATCH_SIZE, MAX_IMAGE_PIXELS
from schemas.errors import RecordError, to_record_error
from schemas.table_config import FeatureTableConfig

PADDING = 8
DEFAULT_THREADS = 2

_OUT_OF_MEMORY_CLASSES = ("ResourceExhaustedError", "OutOfMemoryError")  # TensorFlow, PyTorch
_OUT_OF_MEMORY_MESSAGES = ("RESOURCE_EXHAUSTED", "can't allocate memory")  # XLA, PyTorch on a CPU

_log = logging.getLogger("capt.extraction")


class ExtractorModel(Protocol):
    """A model that maps pixels to features."""

    def predict(self, pixels: Pixels) -> NDArray[np.float32]:
        """Returns features float32 [N, ...] of pixels [N, H, W, 3]."""


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image: a key for the caller, and a function that reads its bytes. Its errors fail only this image."""

    key: bytes
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ExtractedRow:
    """The stored columns of one image's features."""

    key: bytes
    values: StoredColumns


@dataclass(frozen=True)
class FailedImage:
    """An image without features, and its error."""

    key: bytes
    error: RecordError


Item = TypeVar("Item")
Result = TypeVar("Result")

Decoded = Pixels | RecordError
Output = NDArray[np.float32] | RecordError


class ExtractionCore:
    """Extracts features as a table config describes.

    Args:
        table_config: Input size, resize method and storage dtype.
        batch_size: Maximum number of images per forward pass.
        threads: Number of decoding threads.
        parallel_calls: Number of concurrent forward passes. While the device computes one batch, others are copied to
            and from it.
        max_pixels: Maximum number of pixels per image.
    """

    def __init__(
        self,
        table_config: FeatureTableConfig,
        model: ExtractorModel,
        *,
        batch_size: int = BATCH_SIZE,
        threads: int = DEFAULT_THREADS,
        parallel_calls: int = 1,
        max_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        self._table_config = table_config
        self._resizer = Resizer.from_table_config(table_config)
        self._model = model
        self._threads = threads
        self._parallel_calls = parallel_calls
        self._max_pixels = max_pixels
        self.batch_size = batch_size

    @classmethod
    def for_extractor(
        cls,
        table_config: FeatureTableConfig,
        extractor: LoadedExtractor,
        batch_size: int | None = None,
        max_pixels: int = MAX_IMAGE_PIXELS,
    ) -> "ExtractionCore":
        """Returns a core for the device of an extractor, and by default its batch size.

        Beside an accelerator, all processors decode.
        """
        is_accelerated = extractor.device.kind != "cpu"
        return cls(
            table_config,
            extractor,
            batch_size=batch_size or choose_batch_size(extractor.device.kind),
            threads=os.cpu_count() or DEFAULT_THREADS if is_accelerated else DEFAULT_THREADS,
            parallel_calls=extractor.parallel_calls,
            max_pixels=max_pixels,
        )

    def run(self, images: Iterable[EncodedImage]) -> Iterator[ExtractedRow | FailedImage]:
        """Yields one result per image, in order.

        Memory contains at most three batches of images, and one more for each additional parallel call.
        """
        decoded = _map_in_order(self._decode, images, self._threads, lambda: max(self.batch_size, self._threads))
        batches = iter(lambda: list(islice(decoded, self.batch_size)), [])
        for results in _map_in_order(self._extract, batches, self._parallel_calls, lambda: self._parallel_calls + 1):
            yield from results

    def _decode(self, image: EncodedImage) -> tuple[bytes, Decoded]:
        stage = "read"
        try:
            data = image.read()
            stage = "decode"
            return image.key, decode(data, self._resizer, max_pixels=self._max_pixels)
        except Exception as error:
            return image.key, to_record_error(stage, error)

    def _extract(self, batch: list[tuple[bytes, Decoded]]) -> list[ExtractedRow | FailedImage]:
        pixels = [image for _, image in batch if not isinstance(image, RecordError)]
        outputs = self._predict(np.stack(pixels)) if pixels else iter(())
        return [self._encode(key, image if isinstance(image, RecordError) else next(outputs)) for key, image in batch]

    def _predict(self, pixels: Pixels) -> Iterator[Output]:
        for start in range(0, len(pixels), self.batch_size):
            yield from self._predict_batch(pixels[start : start + self.batch_size])

    def _predict_batch(self, pixels: Pixels) -> Iterator[Output]:
        missing = -len(pixels) % PADDING
        try:
            padding = np.zeros((missing, *pixels.shape[1:]), pixels.dtype)
            yield from self._model.predict(np.concatenate([pixels, padding]) if missing else pixels)[: len(pixels)]
        except Exception as error:
            if len(pixels) == 1:
                if is_out_of_memory(error):
                    detail = "one image alone does not fit into memory"
                    yield RecordError("extract", "out of memory", detail, permanent=False)
                else:
                    yield RecordError("extract", "extractor failed", f"{type(error).__name__}: {error}")
                return
            half = (len(pixels) + 1) // 2
            if is_out_of_memory(error) and half < self.batch_size:
                _log.warning(
                    "A batch of %d images does not fit into memory. The batch size is now %d.", len(pixels), half
                )
                self.batch_size = half
            yield from self._predict(pixels[:half])
            yield from self._predict(pixels[half:])

    def _encode(self, key: bytes, output: Output) -> ExtractedRow | FailedImage:
        if isinstance(output, RecordError):
            return FailedImage(key, output)
        try:
            return ExtractedRow(key, encode(output, self._table_config.dtype))
        except Exception as error:
            return FailedImage(key, to_record_error("store", error))


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether NumPy or a backend of Keras ran out of memory."""
    has_class = isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY_CLASSES
    return has_class or any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)


def _map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: Callable[[], int]
) -> Iterator[Result]:
    """Maps items in threads and yields the results in order; at most `ahead()` items are in progress."""
    remaining = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix=function.__name__) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            while True:
                for item in islice(remaining, max(0, ahead() - len(waiting))):
                    waiting.append(pool.submit(function, item))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
