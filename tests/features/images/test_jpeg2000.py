"""JPEG 2000 images are decoded if they are complete and their headers agree."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.reliability.drawn_images import encode
from tests.reliability.test_pixels import pixels_of, reason_of

SIZE = struct.pack(">II", 64, 64)  # in all headers of IMAGE
IMAGE = encode(Image.linear_gradient("L").resize((64, 64)), "JPEG2000")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_size(width: int, height: int, *, file_header: bool = True, codestream: bool = True) -> bytes:
    """Returns IMAGE with another size in one or both of its headers."""
    file, stream = IMAGE[: IMAGE.index(b"jp2c")], IMAGE[IMAGE.index(b"jp2c") :]
    if file_header:
        file = file.replace(SIZE, struct.pack(">II", height, width))
    if codestream:
        stream = stream.replace(SIZE, struct.pack(">II", width, height))
    return file + stream


def test_reversible_coding_keeps_every_pixel() -> None:
    image = Image.effect_noise((50, 40), 80)
    for tiles in ({}, {"tile_size": (16, 16)}):
        assert np.array_equal(pixels_of(encode(image, "JPEG2000", **tiles))[..., 0], np.asarray(image))


def test_a_palette_is_applied() -> None:
    data = encode(Image.fromarray(np.array([[0, 1, 2]], np.uint8)), "JPEG2000")
    palette = box(b"pclr", struct.pack(">HB3B9B", 3, 3, 7, 7, 7, *(255, 0, 0), *(0, 255, 0), *(1, 2, 3)))
    mapping = box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3)))
    at = data.index(b"jp2h") - 4
    header = data[at + 8 : at + int.from_bytes(data[at : at + 4])]
    header = header.replace(struct.pack(">I", 17), struct.pack(">I", 16))  # sRGB instead of gray
    data = data[:at] + box(b"jp2h", header + palette + mapping) + data[at + 8 + len(header) :]
    assert pixels_of(data).tolist() == [[[255, 0, 0], [0, 255, 0], [1, 2, 3]]]


def test_an_image_ends_with_its_end_marker_not_with_a_tile() -> None:
    data = encode(Image.effect_noise((48, 32), 80), "JPEG2000", tile_size=(16, 16), no_jp2=True)
    last = data.rindex(b"\xff\x90\0\x0a")
    assert reason_of(data[:last]) == reason_of(data[:-2]) == "truncated"
    assert np.array_equal(pixels_of(data + b"more"), pixels_of(data))
    unbounded = data[: last + 6] + bytes(4) + data[last + 10 :]  # the last tile extends up to the end marker
    assert np.array_equal(pixels_of(unbounded), pixels_of(data))


@pytest.mark.parametrize("headers", [{"codestream": False}, {"file_header": False}], ids=str)
def test_headers_of_different_sizes_are_corrupt(headers: dict[str, bool]) -> None:
    for side in (8, 30_000):
        assert reason_of(with_size(side, side, **headers)) == "corrupt"


def test_a_declared_size_above_the_limit_is_refused() -> None:
    assert reason_of(with_size(60_000, 60_000)) == "too large"


def test_many_small_code_blocks_are_refused_in_a_large_image_only() -> None:
    image = Image.new("L", (64, 64), 9)
    for options in ({"codeblock_size": (4, 4)}, {"precinct_size": (8, 8), "num_resolutions": 1}):
        small = encode(image, "JPEG2000", **options)
        assert pixels_of(small).max() == 9
        assert reason_of(small.replace(SIZE, struct.pack(">II", 4000, 4000))) == "unsupported"


def test_more_coding_styles_than_components_need_are_refused() -> None:
    data = encode(Image.effect_noise((64, 64), 80), "JPEG2000", no_jp2=True)
    at = data.index(b"\xff\x52")
    precincts = (struct.pack(">H", number) for number in range(2000))
    styles = b"".join(b"\xff\x53" + struct.pack(">H7B", 11, 0, 0, 5, 4, 4, 0, 0) + one for one in precincts)
    assert reason_of(data[:at] + styles + data[at:]) == "unsupported"


def test_samples_below_eight_bits_are_unsupported() -> None:
    at = IMAGE.index(b"\xff\x51") + 40  # of the first component's precision
    assert IMAGE[at] == 7
    assert reason_of(IMAGE[:at] + b"\0" + IMAGE[at + 1 :]) == "unsupported"


def test_markers_that_lead_back_are_corrupt() -> None:
    at = IMAGE.index(b"\xff\x90\0\x0a") + 6  # of the first tile part's length
    assert reason_of(IMAGE[:at] + struct.pack(">I", 4) + IMAGE[at + 4 :]) == "corrupt"
