"""The extraction core keeps order, pads batches, and lets one record's failure cost no other."""

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

RECIPE = FeatureTableConfig(
    extractor="inception_v3", weights="random:0@1", layer="x", height=4, width=4, precision="float32", dtype="float32"
)


class BrightnessNetwork:
    """A real, tiny network: an image's mean brightness; fails where it is told to."""

    def __init__(self, fails: Callable[[NDArray[np.uint8]], Exception | None] = lambda pixels: None) -> None:
        self.batches: list[int] = []
        self._fails = fails

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        error = self._fails(pixels)
        if error:
            raise error
        return pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float32)[:, np.newaxis]


def grey(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def sources(values: list[int]) -> list[EncodedImage]:
    return [EncodedImage(bytes([value]), lambda value=value: grey(value)) for value in values]  # type: ignore[misc]


def outcome(results: list[ExtractedRow | FailedImage]) -> dict[int, float | str]:
    return {
        r.key[0]: float(r.values["value"][0]) if isinstance(r, ExtractedRow) else r.error.reason  # type: ignore[arg-type]
        for r in results
    }


def test_results_come_in_the_order_of_the_sources() -> None:
    values = list(range(50, 100))
    results = list(ExtractionCore(RECIPE, BrightnessNetwork(), batch_size=16, threads=4).run(sources(values)))
    assert [result.key[0] for result in results] == values
    assert outcome(results) == {value: float(value) for value in values}


def test_every_call_is_padded_to_a_multiple_of_eight() -> None:
    network = BrightnessNetwork()
    list(ExtractionCore(RECIPE, network, batch_size=16).run(sources(list(range(19)))))
    assert network.batches == [16, 8]


def test_an_image_that_cannot_be_decoded_costs_no_other() -> None:
    broken = EncodedImage(b"\xff", lambda: b"no image at all")
    results = outcome(list(ExtractionCore(RECIPE, BrightnessNetwork()).run([*sources([1, 2]), broken, *sources([3])])))
    assert results == {1: 1.0, 2: 2.0, 255: "unsupported", 3: 3.0}


def test_bytes_that_cannot_be_read_cost_no_other() -> None:
    def gone() -> bytes:
        raise RecordError("read", "missing", "x.jpg", permanent=False)

    results = outcome(
        list(ExtractionCore(RECIPE, BrightnessNetwork()).run([EncodedImage(b"\xff", gone), *sources([3])]))
    )
    assert results == {255: "missing", 3: 3.0}


def test_a_failing_batch_is_bisected_to_the_guilty_record() -> None:
    network = BrightnessNetwork(lambda pixels: ValueError("bad pixel") if (pixels == 13).any() else None)
    results = outcome(list(ExtractionCore(RECIPE, network, batch_size=16).run(sources(list(range(1, 31))))))
    assert results.pop(13) == "extractor failed"
    assert results == {value: float(value) for value in range(1, 31) if value != 13}


def test_a_batch_too_large_for_the_memory_is_halved_and_the_size_remembered() -> None:
    network = BrightnessNetwork(lambda pixels: MemoryError() if len(pixels) > 8 else None)
    extractor = ExtractionCore(RECIPE, network, batch_size=32)
    results = outcome(list(extractor.run(sources(list(range(1, 65))))))
    assert results == {value: float(value) for value in range(1, 65)}
    assert extractor.batch_size == 8
    assert sum(size > 8 for size in network.batches) == 2


def test_an_image_that_alone_does_not_fit_is_a_passing_failure() -> None:
    network = BrightnessNetwork(lambda pixels: MemoryError())
    (result,) = ExtractionCore(RECIPE, network).run(sources([5]))
    assert isinstance(result, FailedImage)
    assert result.error.reason == "out of memory"
    assert not result.error.permanent


def test_features_that_are_not_finite_are_never_stored() -> None:
    class Nan(BrightnessNetwork):
        def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            out = super().predict(pixels)
            out[out == 7.0] = np.nan
            return out

    assert outcome(list(ExtractionCore(RECIPE, Nan()).run(sources([6, 7, 8])))) == {6: 6.0, 7: "not finite", 8: 8.0}


def test_memory_holds_a_bounded_number_of_images() -> None:
    read = []

    def source(number: int) -> EncodedImage:
        def read_it() -> bytes:
            read.append(number)
            return grey(number % 256)

        return EncodedImage(bytes([number % 256]), read_it)

    results = ExtractionCore(RECIPE, BrightnessNetwork(), batch_size=8).run(source(n) for n in range(1000))
    next(results)
    assert len(read) <= 3 * 8


def test_the_network_goes_on_while_rows_are_taken() -> None:
    network = BrightnessNetwork()
    results = ExtractionCore(RECIPE, network, batch_size=8).run(sources(list(range(1, 25))))
    next(results)
    until = time.monotonic() + 10
    while len(network.batches) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert len(network.batches) == 2
    assert len(list(results)) == 23


def test_several_calls_are_made_at_a_time_and_results_stay_in_order() -> None:
    together = threading.Barrier(3, timeout=10)
    network = BrightnessNetwork(lambda pixels: together.wait() and None)
    results = ExtractionCore(RECIPE, network, batch_size=8, parallel_calls=3).run(sources(list(range(1, 49))))
    assert list(outcome(list(results)).items()) == [(value, float(value)) for value in range(1, 49)]


def test_a_run_that_is_given_up_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    results = ExtractionCore(RECIPE, BrightnessNetwork(), batch_size=8, parallel_calls=2).run(
        sources(list(range(1, 200)))
    )
    next(results)
    assert threading.active_count() > before
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("words", ["RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.", "can't allocate memory"])
def test_backends_that_say_in_words_that_the_memory_is_full_are_understood(words: str) -> None:
    network = BrightnessNetwork(lambda pixels: RuntimeError(words) if len(pixels) > 8 else None)
    extractor = ExtractionCore(RECIPE, network, batch_size=32)
    assert len(outcome(list(extractor.run(sources(list(range(1, 33))))))) == 32
    assert extractor.batch_size == 8


@pytest.mark.parametrize("batch_size", [1, 5, 8, 24])
def test_any_batch_size_gives_the_same_values(batch_size: int) -> None:
    results = list(ExtractionCore(RECIPE, BrightnessNetwork(), batch_size=batch_size).run(sources([9, 8, 7])))
    assert outcome(results) == {9: 9.0, 8: 8.0, 7: 7.0}
