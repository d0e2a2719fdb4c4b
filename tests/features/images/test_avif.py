"""AVIF images are decoded to their first frame, turned once."""

import struct

import numpy as np
import pytest
from PIL import Image

from features.images.decode import has_image_signature, open_image
from schemas.errors import RecordError
from tests.reliability.drawn_images import encode
from tests.reliability.test_pixels import pixels_of

HALVES = Image.new("RGB", (32, 16), "white")
HALVES.paste((0, 0, 0), (0, 0, 16, 16))
EXACT = {"quality": 100, "subsampling": "4:4:4"}


def exif_with(tag: int, value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[tag] = value
    return exif


def test_gray_and_color_keep_their_levels() -> None:
    for image in (Image.new("L", (8, 8), 77), Image.new("RGB", (8, 8), (250, 10, 120))):
        wanted = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(pixels_of(encode(image, "AVIF", **EXACT)).astype(int) - wanted).max() <= 1


def test_only_the_container_turns_the_image() -> None:
    turned = encode(HALVES, "AVIF", exif=exif_with(274, 6))
    assert b"irot" in turned
    assert pixels_of(turned).shape == (32, 16, 3)
    # Pillow writes no orientation into EXIF: that of another tag becomes it.
    other = encode(HALVES, "AVIF", exif=exif_with(275, 6))
    assert other.count(b"\x01\x13") + other.count(b"\x13\x01") == 1
    alone = other.replace(b"\x01\x13", b"\x01\x12").replace(b"\x13\x01", b"\x12\x01")
    assert pixels_of(alone).shape == (16, 32, 3)
    xmp = encode(HALVES, "AVIF", xmp=b'<x tiff:Orientation="6"/>')
    assert pixels_of(xmp).shape == (16, 32, 3)


def test_an_image_of_the_general_brand_is_recognized_by_its_compatible_brands() -> None:
    data = encode(HALVES, "AVIF")
    assert data[8:12] == b"avif"
    general = data[:8] + b"mif1" + data[12:]
    assert has_image_signature(general[:32])
    assert np.array_equal(pixels_of(general), pixels_of(data))


@pytest.mark.parametrize("more", [b"\0\1\0\0seft" + bytes(20), b"\n", bytes(3), b"\0\0\0\5abcd"], ids=repr)
def test_bytes_behind_the_image_do_not_fail_it(more: bytes) -> None:
    data = encode(HALVES, "AVIF")
    assert np.array_equal(pixels_of(data + more), pixels_of(data))


def test_a_box_of_another_type_may_precede_the_pixels() -> None:
    data = encode(HALVES, "AVIF")
    at = data.index(b"mdat") - 4
    start = struct.pack(">I", at + 8)  # of the pixels, in the box of their location
    assert data.count(start) == 1
    moved = data[:at].replace(start, struct.pack(">I", at + 16)) + b"\0\0\0\x08wide" + data[at:]
    assert np.array_equal(pixels_of(moved), pixels_of(data))


@pytest.mark.parametrize("side", [30_000, 60_000])
def test_a_declared_size_above_the_limit_is_refused(side: int) -> None:
    data = encode(HALVES, "AVIF").replace(struct.pack(">II", 32, 16), struct.pack(">II", side, side))
    with pytest.raises(RecordError) as caught:
        open_image(data)
    assert caught.value.reason in ("too large", "corrupt")  # libavif itself refuses more than 2**28 pixels
