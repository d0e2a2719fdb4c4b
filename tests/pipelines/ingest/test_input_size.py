"""The size of stored images of text follows from their own size, their strokes and their labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.input_size import LongestLabel, TextStatistics


def statistics(
    height: int, width: int, stroke_width: float | None = 9.0, label_length: int = 5, longest: str = ""
) -> TextStatistics:
    return TextStatistics(
        images=100,
        height=height,
        width=width,
        aspect_ratio=width / height,
        stroke_width=stroke_width,
        label_length=label_length,
        longest_label=LongestLabel("a.png", longest or "ab" * (label_length // 2) + "a" * (label_length % 2)),
    )


@pytest.mark.parametrize(
    ("found", "size"),
    [
        (statistics(50, 200), (48, 192)),
        (statistics(60, 160), (64, 176)),
        (statistics(320, 600), (80, 152)),
        (statistics(20, 60, label_length=2), (32, 96)),
        (statistics(60, 900, label_length=30), (32, 480)),
        (statistics(300, 300, label_length=4), (112, 112)),
        (statistics(20, 900), (32, 800)),
    ],
)
def test_images_keep_about_their_size_up_to_that_of_the_published_captchas(found, size):
    assert found.choose_size() == size


def test_thin_strokes_need_a_larger_image_but_do_not_enlarge_it():
    assert [statistics(320, 600, width).choose_height() for width in (8.0, 7.0, 6.0, 4.0, 1.0)] == [
        80,
        96,
        112,
        112,
        112,
    ]
    assert statistics(50, 200, 1.0).choose_height() == 48
    assert statistics(320, 600, None).choose_height() == 80


def test_narrow_characters_enlarge_the_image():
    assert statistics(30, 90, label_length=5).choose_height() == 32
    assert statistics(30, 90, label_length=8).choose_height() == 48


@pytest.mark.parametrize(("longest", "width"), [("ab" * 60, 480), ("a" * 60, 480), ("ab", 8), ("aab", 16)])
def test_a_long_label_requires_width_and_leaves_the_height(longest, width):
    found = statistics(50, 200, longest=longest)
    assert found.longest_label.required_width == width
    assert found.choose_size() == statistics(50, 200).choose_size()


def test_one_side_determines_the_other():
    found = statistics(50, 200)
    assert (found.fit_width(64), found.fit_height(400), found.fit_height(256), found.fit_height(40)) == (
        256,
        96,
        64,
        32,
    )


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    stroke_width=st.one_of(st.none(), st.floats(0.5, 100)),
    label_length=st.integers(0, 60),
)
def test_sizes_are_bounded_multiples_of_eight(height, width, stroke_width, label_length):
    found = statistics(height, width, stroke_width, label_length)
    rows, columns = found.choose_size()
    assert rows in range(32, 129, 8)
    assert columns % 8 == 0
    assert rows * columns <= 2 * 80 * 160
    assert columns >= rows * width / height - 1 or columns == 800
    assert 4 * label_length <= found.longest_label.required_width < 4 * label_length + 8
