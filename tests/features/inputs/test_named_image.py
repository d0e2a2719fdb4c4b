"""An image is opened by the name that commands print."""

from pathlib import Path

import pytest

import capt
from schemas.errors import RecordError
from tests.conftest import noise_image, zip_of


def test_an_image_is_opened_by_its_path_its_place_in_a_zip_or_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "a.png"
    noise_image(1).save(path)
    zip_of(tmp_path / "photos", tmp_path / "photos.zip")
    monkeypatch.setattr("features.inputs.named_image.download", {"https://a.org/a.png": path.read_bytes()}.get)
    names = (path, tmp_path / "photos.zip" / "photos" / "a.png", "https://a.org/a.png")
    assert {(image.mode, image.tobytes()) for image in map(capt.open_image, names)} == {
        ("RGB", noise_image(1).tobytes())
    }


def test_an_image_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="missing"):
        capt.open_image(tmp_path / "no.png")
