import hashlib
import zipfile

import pytest

from features.references.reference import read_source_image


def row(location, data, member=""):
    return {"location": str(location), "member": member, "key": hashlib.sha256(data).digest()}


def test_an_image_is_read_where_the_catalog_says_it_lies(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in/b.png", b"other")
    assert read_source_image(row(tmp_path / "a.png", b"image")) == b"image"
    assert read_source_image(row(tmp_path / "z.zip", b"other", "in/b.png")) == b"other"


@pytest.mark.parametrize("data", [b"another", None])
def test_an_image_that_changed_or_went_is_not_at_hand(tmp_path, data):
    if data:
        (tmp_path / "a.png").write_bytes(data)
    assert read_source_image(row(tmp_path / "a.png", b"image")) is None


def test_an_image_that_the_catalog_lacks_is_not_at_hand():
    assert read_source_image(None) is None
