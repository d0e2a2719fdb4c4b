"""PBM, PGM and PPM images have samples of 0 up to any maximum, as bytes or as text."""

import numpy as np
import pytest

from features.images.decode import has_image_signature, open_image
from tests.reliability.test_pixels import reason_of


def row_of(data: bytes) -> list[list[int]]:
    """Returns the pixels of an image of one row, gray ones as one number."""
    assert has_image_signature(data[:32])
    (row,) = np.asarray(open_image(data)).tolist()
    return [pixel[:1] if len(set(pixel)) == 1 else pixel for pixel in row]


def test_one_is_black_in_a_bitmap() -> None:
    assert row_of(b"P4 3 1\n\xbf") == [[0], [255], [0]]
    assert row_of(b"P1\n3 1\n1 0 1\n") == row_of(b"P1 3 1 101") == row_of(b"P1 3 1 1 # two\n01") == [[0], [255], [0]]


def test_samples_are_scaled_to_the_nearest_level_from_any_maximum() -> None:
    assert row_of(b"P5 3 1 255\n\0\7\xff") == [[0], [7], [255]]
    assert row_of(b"P5 3 1 3\n\0\1\3") == row_of(b"P2 3 1 3 0 1 3") == [[0], [85], [255]]
    assert row_of(b"P5 3 1 1000\n\0\0\1\xf4\3\xe8") == row_of(b"P2 3 1 1000\n0 500 1000\n") == [[0], [128], [255]]
    assert row_of(b"P6 1 1 65535\n\xff\xff\x80\0\0\0") == row_of(b"P3 1 1 65535 65535 32768 0") == [[255, 128, 0]]
    assert row_of(b"P3 1 1 9 9 0 3") == [[255, 0, 85]]


def test_comments_and_spaces_are_skipped_in_headers_and_texts() -> None:
    assert row_of(b"P6 # made by\n# 1 1 255\n 1\t1 #\r255\nabc") == [[97, 98, 99]]
    assert row_of(b"P2\n#c\n2 1\n9\n0 # zero, not 5\n\n9") == [[0], [255]]


def test_only_the_first_image_of_a_file_is_decoded() -> None:
    assert row_of(b"P5 1 1 255\n\7P5 1 1 255\n\x09") == [[7]]


def test_a_long_text_is_read_in_blocks() -> None:
    values = np.random.default_rng(0).integers(0, 256, (600, 1000))
    data = b"P2 1000 600 255\n" + b" ".join(b"%d" % value for value in values.ravel())
    assert len(data) > 2 << 20
    np.testing.assert_array_equal(np.asarray(open_image(data))[..., 1], values)


def test_a_comment_at_the_end_of_a_block_is_skipped() -> None:
    start = b"P2 1000 600 255\n" + b"7 " * 500_000
    text = start + b"7 " * ((1 << 20) - len(start) - 4 >> 1) + b"# one 250 251 252\n"
    text += b"9 " * (600_000 - text.count(b"7 ")) + b"\n"
    (values, counts) = np.unique(np.asarray(open_image(text))[..., 0], return_counts=True)
    assert (values.tolist(), counts.sum()) == ([7, 9], 600_000)
    assert reason_of(text[: text.rindex(b"9")] + b"\n \n") == "truncated"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P2 1 1 255\n\n", "truncated"),
        (b"P2 1 1 255\n#c\n", "truncated"),
        (b"P6 2", "unsupported"),  # too short to be told from text
        (b"P6 2 1 # a comment", "truncated"),
        (b"P6 2 1 65535\n" + bytes(11), "truncated"),
        (b"P2 2 1 255 7", "truncated"),
        (b"P1 3 1 10", "truncated"),
        (b"P5 0 1 255\n", "corrupt"),
        (b"P5 1 1 0\n\0", "corrupt"),
        (b"P5 1 1 65536\n\0\0", "corrupt"),
        (b"P5 1 1 3\n\4", "corrupt"),
        (b"P2 1 1 3 4", "corrupt"),
        (b"P2 1 1 3 -1", "corrupt"),
        (b"P2 2 1 3 1 x", "corrupt"),
        (b"P1 2 1 1 2", "corrupt"),
        (b"P5 60000 60000 255\n", "too large"),
        (b"P2 60000 60000 9\n1 2", "too large"),
    ],
)
def test_incomplete_and_wrong_files_have_their_reasons(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason
