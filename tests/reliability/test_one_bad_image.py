"""One image that cannot be read, decoded, stored or drawn costs no other image."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import capt
from features.images.decode import decode
from features.images.resize import make_resizer
from features.store import storage_dtypes
from schemas.errors import RecordError
from tests.conftest import noise_image
from trainer.reports.plots import draw_attention_maps
from trainer.runs.captioner_run import Caption

EXCEPTIONS = [OverflowError, MemoryError, RecursionError, struct.error, KeyError, AssertionError, UnicodeError]
BIG_TIFF = b"II\x2b\x00\x08\x00\x00\x00" + b"\xff" * 8  # its first directory lies at 2^64 - 1


def _prepare(tmp_path: Path) -> dict[str, object]:
    return capt.prepare_features(
        store=str(tmp_path / "store"),
        dataset_type="folder",
        images=(str(tmp_path / "images"),),
        extractor="pixels",
        height=8,
        width=8,
        max_failures="100%",
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    for number in range(2):
        noise_image(number).save(directory / f"{number}.png")
    return directory


def test_a_tiff_whose_directory_is_beyond_every_file_fails_alone(tmp_path: Path, images: Path) -> None:
    (images / "c.tif").write_bytes(BIG_TIFF)
    result = _prepare(tmp_path)
    assert (result["input"], result["ok"], result["failed"]) == (3, 2, 1)


@pytest.mark.parametrize("error", EXCEPTIONS)
def test_any_exception_of_the_decoder_fails_one_image(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    bad = (images / "1.png").read_bytes()

    def decode_or_raise(data: bytes, *arguments: object, **options: object) -> object:
        if data == bad:
            raise error
        return decode(data, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("features.extractors.extraction.decode", decode_or_raise)
    result = _prepare(tmp_path)
    assert (result["input"], result["ok"], result["failed"]) == (2, 1, 1)
    assert result["reasons"] == {f"unexpected: {error.__name__}": 1}


@pytest.mark.parametrize("error", EXCEPTIONS)
def test_any_exception_while_an_image_is_hashed_fails_one_image(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    from features.inputs import FileReference

    read = FileReference.read

    def read_or_raise(self: FileReference, *arguments: int) -> bytes:
        if self.location.endswith("1.png"):
            raise error
        return read(self, *arguments)

    monkeypatch.setattr("pipelines.ingest.hash_images.FileReference.read", read_or_raise)
    result = _prepare(tmp_path)
    assert (result["input"], result["ok"], result["failed"]) == (2, 1, 1)
    assert result["reasons"] == {f"unexpected: {error.__name__}": 1}


@pytest.mark.parametrize("size", [(300, 200), (3, 600), (600, 3), (2, 2000), (1, 320)])
def test_attention_is_drawn_over_an_image_of_any_shape(size: tuple[int, int]) -> None:
    data = io.BytesIO()
    Image.new("RGB", size, "red").save(data, "PNG")
    words = tuple("abcdefghijkl")
    made = Caption(" ".join(words), words, 0.0, np.full((len(words), 64), 1 / 64, np.float32))
    drawn = draw_attention_maps(data.getvalue(), made, make_resizer(299, 299, "pillow", "stretch", None))
    assert drawn is not None
    assert max(Image.open(io.BytesIO(drawn)).size) < 1 << 16


@given(st.floats(-1, 1, width=32), st.integers(-149, 120))
def test_int8_features_keep_their_sign_at_every_scale(value: float, exponent: int) -> None:
    peak = np.ldexp(np.float32(1), exponent).astype(np.float32)
    features = np.array([[peak, np.float32(value) * peak]], np.float32)
    stored = storage_dtypes.encode(features, "int8")
    kept = stored["value"].astype(np.float64) * stored["scale"].astype(np.float64)[..., np.newaxis]
    step = stored["scale"].astype(np.float64)
    assert (np.abs(stored["value"]) <= 127).all()
    assert (np.abs(kept - features) <= step * 0.51 + 2.0**-149).all()


def test_a_record_error_keeps_its_reason() -> None:
    with pytest.raises(RecordError):
        decode(BIG_TIFF, make_resizer(8, 8, "pillow", "stretch", None))
