"""The extraction core keeps the order, pads batches, and isolates failed images."""

import io
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from features.extractors.extraction import EncodedImage, ExtractedRow, ExtractionCore, FailedImage
from schemas.errors import RecordError
from schemas.table_config import FeatureTableConfig

TABLE_CONFIG = FeatureTableConfig(
    extractor="inception_v3", weights="random:0@1", layer="x", height=4, width=4, precision="float32", dtype="float32"
)


class BrightnessModel:
    """A tiny model: mean brightness of an image. `fails` returns the errors to raise."""

    def __init__(self, fails: Callable[[NDArray[np.uint8]], Exception | None] = lambda pixels: None) -> None:
        self.batches: list[int] = []
        self._fails = fails

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        error = self._fails(pixels)
        if error:
            raise error
        return pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float32)[:, np.newaxis]


def encode_gray(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def sources(values: list[int]) -> list[EncodedImage]:
    return [EncodedImage(bytes([value]), lambda value=value: encode_gray(value)) for value in values]  # type: ignore[misc]


def summarize(results: list[ExtractedRow | FailedImage]) -> dict[int, float | str]:
    return {
        r.key[0]: float(r.values["value"][0]) if isinstance(r, ExtractedRow) else r.error.reason  # type: ignore[arg-type]
        for r in results
    }


def test_results_are_in_the_order_of_the_images() -> None:
    values = list(range(50, 100))
    results = list(ExtractionCore(TABLE_CONFIG, BrightnessModel(), batch_size=16, threads=4).run(sources(values)))
    assert [result.key[0] for result in results] == values
    assert summarize(results) == {value: float(value) for value in values}


def test_batches_are_padded_to_a_multiple_of_eight() -> None:
    network = BrightnessModel()
    list(ExtractionCore(TABLE_CONFIG, network, batch_size=16).run(sources(list(range(19)))))
    assert network.batches == [16, 8]


def test_an_undecodable_image_fails_alone() -> None:
    broken = EncodedImage(b"\xff", lambda: b"no image at all")
    results = summarize(
        list(ExtractionCore(TABLE_CONFIG, BrightnessModel()).run([*sources([1, 2]), broken, *sources([3])]))
    )
    assert results == {1: 1.0, 2: 2.0, 255: "unsupported", 3: 3.0}


def test_an_unreadable_image_fails_alone() -> None:
    def gone() -> bytes:
        raise RecordError("read", "missing", "x.jpg", permanent=False)

    results = summarize(
        list(ExtractionCore(TABLE_CONFIG, BrightnessModel()).run([EncodedImage(b"\xff", gone), *sources([3])]))
    )
    assert results == {255: "missing", 3: 3.0}


def test_a_failed_batch_is_bisected_to_the_failing_image() -> None:
    network = BrightnessModel(lambda pixels: ValueError("bad pixel") if (pixels == 13).any() else None)
    results = summarize(list(ExtractionCore(TABLE_CONFIG, network, batch_size=16).run(sources(list(range(1, 31))))))
    assert results.pop(13) == "extractor failed"
    assert results == {value: float(value) for value in range(1, 31) if value != 13}


def test_a_batch_that_exceeds_the_memory_is_halved_and_the_size_kept() -> None:
    network = BrightnessModel(lambda pixels: MemoryError() if len(pixels) > 8 else None)
    extractor = ExtractionCore(TABLE_CONFIG, network, batch_size=32)
    results = summarize(list(extractor.run(sources(list(range(1, 65))))))
    assert results == {value: float(value) for value in range(1, 65)}
    assert extractor.batch_size == 8
    assert sum(size > 8 for size in network.batches) == 2


def test_an_image_that_alone_exceeds_the_memory_is_a_transient_failure() -> None:
    network = BrightnessModel(lambda pixels: MemoryError())
    (result,) = ExtractionCore(TABLE_CONFIG, network).run(sources([5]))
    assert isinstance(result, FailedImage)
    assert result.error.reason == "out of memory"
    assert not result.error.permanent


def test_features_that_are_not_finite_fail() -> None:
    class Nan(BrightnessModel):
        def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            out = super().predict(pixels)
            out[out == 7.0] = np.nan
            return out

    assert summarize(list(ExtractionCore(TABLE_CONFIG, Nan()).run(sources([6, 7, 8])))) == {
        6: 6.0,
        7: "not finite",
        8: 8.0,
    }


def test_memory_holds_a_bounded_number_of_images() -> None:
    read = []

    def source(number: int) -> EncodedImage:
        def read_it() -> bytes:
            read.append(number)
            return encode_gray(number % 256)

        return EncodedImage(bytes([number % 256]), read_it)

    results = ExtractionCore(TABLE_CONFIG, BrightnessModel(), batch_size=8).run(source(n) for n in range(1000))
    next(results)
    assert len(read) <= 3 * 8


def test_the_model_runs_while_rows_are_consumed() -> None:
    network = BrightnessModel()
    results = ExtractionCore(TABLE_CONFIG, network, batch_size=8).run(sources(list(range(1, 25))))
    next(results)
    until = time.monotonic() + 10
    while len(network.batches) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert len(network.batches) == 2
    assert len(list(results)) == 23


def test_parallel_calls_keep_the_order() -> None:
    together = threading.Barrier(3, timeout=10)
    network = BrightnessModel(lambda pixels: together.wait() and None)
    results = ExtractionCore(TABLE_CONFIG, network, batch_size=8, parallel_calls=3).run(sources(list(range(1, 49))))
    assert list(summarize(list(results)).items()) == [(value, float(value)) for value in range(1, 49)]


def test_a_closed_run_leaves_no_thread() -> None:
    before = threading.active_count()
    results = ExtractionCore(TABLE_CONFIG, BrightnessModel(), batch_size=8, parallel_calls=2).run(
        sources(list(range(1, 200)))
    )
    next(results)
    assert threading.active_count() > before
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("words", ["RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.", "can't allocate memory"])
def test_out_of_memory_messages_of_backends_are_recognized(words: str) -> None:
    network = BrightnessModel(lambda pixels: RuntimeError(words) if len(pixels) > 8 else None)
    extractor = ExtractionCore(TABLE_CONFIG, network, batch_size=32)
    assert len(summarize(list(extractor.run(sources(list(range(1, 33))))))) == 32
    assert extractor.batch_size == 8


@pytest.mark.parametrize("batch_size", [1, 5, 8, 24])
def test_any_batch_size_gives_the_same_values(batch_size: int) -> None:
    results = list(ExtractionCore(TABLE_CONFIG, BrightnessModel(), batch_size=batch_size).run(sources([9, 8, 7])))
    assert summarize(results) == {9: 9.0, 8: 8.0, 7: 7.0}
