"""CAPTCHAs depend only on seed, number and style, and show the whole label."""

from collections import Counter
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from features.synthetic.captchas import renderer as module
from features.synthetic.captchas.fonts import find_default_fonts, open_font
from features.synthetic.captchas.labels import load_default_words
from features.synthetic.captchas.renderer import draw_captcha, encode_png
from features.synthetic.captchas.style import CaptchaStyle

STYLE = CaptchaStyle(load_default_words(), find_default_fonts())


def find_ink(number: int, style: CaptchaStyle = STYLE) -> np.ndarray:
    """Returns the pixels of the characters without background and strokes: bool [height, width]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_draw_stroke", lambda *_: None)
        patch.setattr(module, "draw_background", lambda kind, files, size, random: Image.new("RGB", size, "white"))
        return (np.asarray(draw_captcha(3, number, style)[0]) < 255).any(axis=2)


def test_equal_seeds_and_numbers_give_equal_images():
    once, again = draw_captcha(1, 7, STYLE), draw_captcha(1, 7, STYLE)
    assert (encode_png(once[0]), once[1]) == (encode_png(again[0]), again[1])
    assert encode_png(draw_captcha(2, 7, STYLE)[0]) != encode_png(once[0]) != encode_png(draw_captcha(1, 8, STYLE)[0])


def test_the_image_is_a_png_of_the_published_size():
    image, _ = draw_captcha(1, 0, STYLE)
    file = encode_png(image)
    shown = Image.open(BytesIO(file))
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (600, 320))
    assert np.array_equal(np.asarray(shown), np.asarray(image))
    assert 20_000 < len(file) < 80_000


def test_all_words_and_fonts_of_the_style_occur():
    style = CaptchaStyle(("null", "www", "thus"), STYLE.fonts)
    assert set(Counter(draw_captcha(1, number, style)[1] for number in range(60))) == {"null", "www", "thus"}
    shapes = {find_ink(number, CaptchaStyle(("thus",), (font,))).sum() for number in range(3) for font in STYLE.fonts}
    assert len(shapes) == 3 * len(STYLE.fonts)


def test_characters_are_never_cropped_by_the_border():
    for number in range(60):
        ink = find_ink(number)
        assert ink.any()
        ink[4:-4, 4:-4] = False
        assert not ink.any()


def test_labels_cover_a_third_to_two_thirds_of_the_width_at_random_positions():
    widths, middles = [], []
    for number in range(60):
        (columns,) = find_ink(number).any(axis=0).nonzero()
        (rows,) = find_ink(number).any(axis=1).nonzero()
        widths.append((columns[-1] - columns[0]) / STYLE.width)
        middles.append(((columns[0] + columns[-1]) / 2 / STYLE.width, (rows[0] + rows[-1]) / 2 / STYLE.height))
    assert np.min(widths) > 0.2
    assert np.max(widths) < 0.8
    assert 0.35 < np.median(widths) < 0.65
    assert np.ptp(middles, axis=0).min() > 0.35


def test_each_character_has_its_own_color_and_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_draw_stroke", lambda *_: None)
        patch.setattr(module, "draw_background", lambda kind, files, size, random: Image.new("RGB", size, "white"))
        style = CaptchaStyle(("lllll",), STYLE.fonts[2:3])
        pixels = np.asarray(draw_captcha(1, 1, style)[0]).reshape(-1, 3)
    colors = Counter(map(tuple, pixels[pixels.max(axis=1) < 255].tolist()))
    inks = [color for color, count in colors.most_common(5) if count > 100]
    assert len(inks) == 5
    assert len({colors[ink] for ink in inks}) == 5


def test_eight_to_twenty_strokes_are_above_and_below_the_characters():
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_draw_stroke", lambda *_: counts.append("stroke"))
        patch.setattr(module, "_draw_glyphs", lambda *_: counts.append("label"))
        for number in range(40):
            draw_captcha(1, number, STYLE)
            counts.append("end")
    images = " ".join(counts).split(" end")[:-1]
    strokes = [image.split().count("stroke") for image in images]
    assert (min(strokes), max(strokes)) == (8, 20)
    under = [image.split().index("label") for image in images]
    assert 0.35 < sum(under) / sum(strokes) < 0.65


def test_numbers_of_strokes_and_rotations_are_those_of_the_style(monkeypatch):
    strokes, rotations, rotate = [], [], module._rotate

    def record_rotation(upright, degrees):
        rotations.append(abs(degrees))
        return rotate(upright, degrees)

    monkeypatch.setattr(module, "_draw_stroke", lambda *_: strokes.append(number))
    monkeypatch.setattr(module, "_rotate", record_rotation)
    for number in range(20):
        draw_captcha(1, number, CaptchaStyle(STYLE.words, STYLE.fonts, num_strokes=(0, 2), max_rotation=3))
    assert {strokes.count(number) for number in range(20)} == {0, 1, 2}
    assert 2 < max(rotations) <= 3
    strokes.clear()
    for number in range(20):
        draw_captcha(1, number, STYLE)
    assert min(strokes.count(number) for number in range(20)) >= 8
    assert 20 < max(rotations) <= 24


def test_a_smaller_image_shows_the_whole_label():
    small = CaptchaStyle(STYLE.words, STYLE.fonts, width=120, height=100)
    for number in range(30):
        ink = find_ink(number, small)
        assert ink.shape == (100, 120)
        assert ink.any()
        ink[4:-4, 4:-4] = False
        assert not ink.any()


def test_labels_of_every_size_are_whole():
    for width, height, lengths in ((120, 50, (4, 6)), (40, 24, (1, 3)), (900, 60, (10, 14)), (300, 900, (3, 5))):
        style = CaptchaStyle(
            (), STYLE.fonts[2:], characters=("7", "g", "W"), lengths=lengths, width=width, height=height
        )
        for number in range(8):
            ink = find_ink(number, style)
            assert ink.shape == (height, width)
            assert ink.any()
            ink[1:-1, 1:-1] = False
            assert not ink.any()


def test_a_label_that_fits_at_no_readable_size_is_an_error():
    style = CaptchaStyle((), STYLE.fonts[1:2], characters=("W",), lengths=(40, 40), width=160, height=16)
    with pytest.raises(module.LabelTooLargeError, match="does not fit into 160×16 pixels"):
        draw_captcha(1, 0, style)


def test_images_have_widths_of_the_range():
    style = replace(STYLE, width=200, max_width=260)
    widths = {draw_captcha(1, number, style)[0].width for number in range(60)}
    assert min(widths) >= 200
    assert max(widths) <= 260
    assert len(widths) > 20


def test_the_label_covers_the_given_part_of_the_width():
    covered = []
    for number in range(20):
        (columns,) = find_ink(number, replace(STYLE, label_width=(0.9, 0.9), max_rotation=0)).any(axis=0).nonzero()
        covered.append((columns[-1] - columns[0]) / STYLE.width)
    assert 0.6 < np.median(covered) < 0.95


@pytest.mark.parametrize(
    "effect",
    [
        {"max_shear": 20},
        {"max_overlap": 0.3},
        {"weight_change": (-6, -2)},
        {"max_warp": 8},
        {"max_blur": 2},
        {"background": "gradient"},
        {"stroke_types": ("line",)},
    ],
)
def test_an_effect_changes_the_image_and_not_the_label(effect):
    plain, label = draw_captcha(1, 3, STYLE)
    changed, same = draw_captcha(1, 3, replace(STYLE, **effect))
    assert label == same
    assert encode_png(plain) != encode_png(changed)
    assert encode_png(changed) == encode_png(draw_captcha(1, 3, replace(STYLE, **effect))[0])


def test_thinner_letters_have_less_ink_and_overlapping_ones_are_closer():
    def measure(style):
        inks = [find_ink(number, replace(style, max_rotation=0)) for number in range(12)]
        return sum(ink.sum() for ink in inks), sum(np.ptp(ink.any(axis=0).nonzero()[0]) for ink in inks)

    ink, extent = measure(STYLE)
    assert measure(replace(STYLE, weight_change=(-3, -3)))[0] < 0.75 * ink
    assert measure(replace(STYLE, max_overlap=0.4))[1] < 0.95 * extent


def test_joined_scripts_are_one_piece_of_one_color():
    style = CaptchaStyle(("سلام", "بيت"), find_default_fonts(["DejaVuSans"]), num_strokes=(0, 0), background="plain")
    colors = Counter(map(tuple, np.asarray(draw_captcha(1, 1, style)[0]).reshape(-1, 3).tolist()))
    (ground, _), (ink, _) = colors.most_common(2)
    mixed = [np.subtract(color, ground) @ np.subtract(ink, ground) for color in colors]
    assert min(mixed) >= 0
    lines = np.cross(np.subtract(list(colors), ground), np.subtract(ink, ground))
    assert np.abs(lines).max() < 2 * np.linalg.norm(np.subtract(ink, ground))


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no Raqm")
def test_a_label_of_two_directions_is_drawn_as_it_is_read_from_right_to_left():
    (font,) = find_default_fonts(["DejaVuSans"])
    mixed, alone = (
        np.asarray(module._draw_upright(open_font(font, 60, is_shaped=True), text, 0)[0]) > 0
        for text in ("IIII\u05e9", "\u05e9")
    )
    first, only = (np.flatnonzero(mask.any(axis=0)) for mask in (mixed, alone))
    leftmost = np.split(first, np.flatnonzero(np.diff(first) > 1) + 1)[0]
    assert abs(len(leftmost) - len(only)) <= 1, "the Hebrew letter is the leftmost"
