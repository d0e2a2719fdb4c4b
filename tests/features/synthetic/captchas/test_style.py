"""The size and the difficulty of CAPTCHAs are checked; a default is not part of the settings."""

import pytest

from features.synthetic.captchas.style import (
    STROKE_TYPES,
    CaptchaStyle,
    parse_fractions,
    parse_integers,
    parse_stroke_types,
)
from schemas.errors import UsageError


def test_two_numbers_of_strokes_are_parsed():
    assert parse_integers("0,4", "--num-strokes", "8,20") == (0, 4)


@pytest.mark.parametrize("text", ["4", "0-4", "0, 4", "a,b"])
def test_other_texts_are_no_numbers_of_strokes(text):
    with pytest.raises(UsageError, match=r"--num-strokes: got .*Separate two numbers by a comma"):
        parse_integers(text, "--num-strokes", "8,20")


@pytest.mark.parametrize(
    ("difficulty", "message"),
    [({"num_strokes": (5, 4)}, "--num-strokes: got 5,4"), ({"num_strokes": (0, 101)}, "--num-strokes: got 0,101")]
    + [({"width": value}, f"--width: got {value}") for value in (15, 4097)]
    + [({"height": value}, f"--height: got {value}") for value in (15, 4097)]
    + [({"max_rotation": value}, f"--max-rotation: got {value}") for value in (-1, 91)]
    + [({"lengths": value}, f"--lengths: got {value[0]},{value[1]}") for value in ((0, 3), (4, 3), (1, 201))]
    + [({"weight_change": (-11, 0)}, "--weight-change: got -11,0"), ({"label_width": (0, 1)}, "--label-width: got 0,1")]
    + [({"max_shear": 46}, "--max-shear: got 46"), ({"max_overlap": 0.6}, "--max-overlap: got 0.6")]
    + [({"max_warp": 41}, "--max-warp: got 41. Use 0 to 40"), ({"max_blur": float("nan")}, "--max-blur: got nan")]
    + [({"max_width": value}, f"--max-width: got {value}") for value in (599, 4097)],
)
def test_a_difficulty_or_size_out_of_range_is_rejected(difficulty, message):
    with pytest.raises(UsageError, match=message):
        CaptchaStyle(("cat",), (), **difficulty)


def test_a_width_that_the_longest_label_does_not_fit_into_is_rejected():
    with pytest.raises(UsageError, match=r"--width: got 47\. 12 characters need at least 48 pixels"):
        CaptchaStyle((), (), characters=("a",), lengths=(3, 12), width=47)


def test_fractions_and_names_of_strokes_are_parsed():
    assert parse_fractions("0.5,1", "--label-width", "0.5,0.9") == (0.5, 1)
    assert parse_stroke_types("dot,line") == ("line", "dot")
    with pytest.raises(UsageError, match="--label-width: got '1;2'"):
        parse_fractions("1;2", "--label-width", "0.5,0.9")
    with pytest.raises(UsageError, match="--stroke-types: got 'point'"):
        parse_stroke_types("line,point")


def test_only_changed_settings_are_recorded():
    assert CaptchaStyle(("cat",), ()).changed_settings == {}
    changed = CaptchaStyle((), (), characters=("a", "b"), lengths=(4, 6), stroke_types=STROKE_TYPES[:1])
    assert changed.changed_settings == {"characters": ["a", "b"], "lengths": [4, 6], "stroke_types": ["line"]}
