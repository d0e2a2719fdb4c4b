"""Storage dtypes keep features within their precision and refuse values that do not fit."""

import numpy as np
import pytest

from features.store import storage_dtypes
from features.store.storage_dtypes import decode, encode
from schemas.errors import RecordError


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0.0), ("float16", 5e-4), ("bfloat16", 4e-3), ("int8", 1e-2)])
def test_stored_features_are_close_to_the_original(dtype: str, error: float) -> None:
    features = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    back = decode(encode(features, dtype)).astype(np.float32)  # type: ignore[arg-type]
    assert np.linalg.norm(back - features) <= error * np.linalg.norm(features)


def test_int8_stores_one_scale_per_location_and_zeros_exactly() -> None:
    features = np.zeros((3, 4), np.float32)
    features[1] = [127.0, -127.0, 1.0, 0.0]
    stored = encode(features, "int8")
    assert stored["scale"].shape == (3,)
    assert np.array_equal(decode(stored), features)


def test_a_batch_of_rows_is_decoded_at_once() -> None:
    rows = [encode(np.full((3, 4), value, np.float32), "int8") for value in (1.0, 2.0)]
    batch = {name: np.stack([row[name] for row in rows]) for name in ("value", "scale")}
    assert np.allclose(decode(batch)[1], 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(RecordError, match="not finite"):
        encode(np.array([1.0, value], np.float32), "float32")


def test_uint8_stores_pixels_exactly_and_refuses_other_values() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    stored = encode(pixels, "uint8")
    assert set(stored) == {"value"}
    assert decode(stored).dtype == np.uint8
    assert np.array_equal(decode(stored), pixels)
    for value in (-1.0, 256.0, 1.5):
        with pytest.raises(RecordError, match="not an integer from 0 to 255"):
            encode(np.array([value], np.float32), "uint8")


def test_values_that_overflow_the_dtype_are_refused() -> None:
    with pytest.raises(RecordError, match="overflow"):
        encode(np.array([70000.0], np.float32), "float16")
    assert decode(encode(np.array([70000.0], np.float32), "bfloat16")).shape == (1,)


@pytest.mark.parametrize(
    ("dtype", "largest", "overflows"), [("float16", 65519.0, 65520.0), ("bfloat16", 3.39e38, 3.4e38)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_value_that_fits_a_dtype_is_stored(dtype, largest, overflows, sign) -> None:
    kept = encode(np.array([1.0, sign * largest], np.float32), dtype)["value"].astype(np.float32)
    assert np.isfinite(kept).all()
    with pytest.raises(RecordError, match="overflow"):
        encode(np.array([1.0, sign * overflows], np.float32), dtype)


def test_float16_rounds_to_nearest_even() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    exact = np.sort(halves[np.isfinite(halves)].astype(np.float32))
    middles = (exact[1:] + exact[:-1]) / 2
    beside = [np.nextafter(middles, np.float32(way)) for way in (-np.inf, np.inf)]
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32).view(np.float32)
    values = np.concatenate([exact, middles, *beside, drawn[np.abs(drawn) < 65520]])
    stored = encode(values, "float16")["value"]
    assert np.array_equal(stored.view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_float16_from_the_device_is_stored_unchanged_or_refused() -> None:
    values = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float16)
    assert np.array_equal(encode(values, "float16")["value"], values)
    assert encode(values, "int8")["value"].dtype == np.int8
    for value, why in ((np.nan, "not finite"), (np.inf, "overflow"), (-np.inf, "overflow")):
        with pytest.raises(RecordError, match=why):
            encode(np.array([1.0, value, -2.0], np.float16), "float16")


def test_float16_is_bit_identical_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    known = encode(values, "float16")["value"]
    monkeypatch.setattr(storage_dtypes, "find_spec", lambda name: None)
    storage_dtypes._float16_cast.cache_clear()
    try:
        assert np.array_equal(encode(values, "float16")["value"].view(np.uint16), known.view(np.uint16))
    finally:
        storage_dtypes._float16_cast.cache_clear()
