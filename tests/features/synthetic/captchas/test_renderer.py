"""Pictures of CAPTCHAs: functions of seed, number, words and fonts; the word whole, coloured, tilted, anywhere."""

from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from features.synthetic.captchas import (
    HEIGHT,
    WIDTH,
    CaptchaStyle,
    draw_captcha,
    encode_png,
    find_default_fonts,
    load_default_words,
)
from features.synthetic.captchas import renderer as module

LOOK = CaptchaStyle(load_default_words(), find_default_fonts())


def letters_of(number: int, look: CaptchaStyle = LOOK) -> np.ndarray:
    """Where the letters alone have ink: bool [HEIGHT, WIDTH]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_stroke", lambda pen, random: None)
        patch.setattr(module, "_ground", lambda random: Image.new("RGB", (WIDTH, HEIGHT), "white"))
        return (np.asarray(draw_captcha(3, number, look)[0]) < 255).any(axis=2)


def test_a_picture_is_a_function_of_seed_and_number():
    once, again = draw_captcha(1, 7, LOOK), draw_captcha(1, 7, LOOK)
    assert (encode_png(once[0]), once[1]) == (encode_png(again[0]), again[1])
    assert encode_png(draw_captcha(2, 7, LOOK)[0]) != encode_png(once[0]) != encode_png(draw_captcha(1, 8, LOOK)[0])


def test_the_picture_is_a_png_of_the_published_size():
    picture, _ = draw_captcha(1, 0, LOOK)
    file = encode_png(picture)
    shown = Image.open(BytesIO(file))
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (600, 320))
    assert np.array_equal(np.asarray(shown), np.asarray(picture))
    assert 20_000 < len(file) < 80_000


def test_the_word_is_one_of_the_look_and_all_words_and_fonts_come():
    look = CaptchaStyle(("null", "www", "thus"), LOOK.fonts)
    assert set(Counter(draw_captcha(1, number, look)[1] for number in range(60))) == {"null", "www", "thus"}
    shapes = {letters_of(number, CaptchaStyle(("thus",), (font,))).sum() for number in range(3) for font in LOOK.fonts}
    assert len(shapes) == 3 * len(LOOK.fonts)


def test_letters_are_never_cut_off_by_the_border():
    for number in range(60):
        ink = letters_of(number)
        assert ink.any()
        ink[4:-4, 4:-4] = False
        assert not ink.any()


def test_words_take_a_third_to_two_thirds_of_the_width_and_lie_anywhere():
    widths, middles = [], []
    for number in range(60):
        (columns,) = letters_of(number).any(axis=0).nonzero()
        (rows,) = letters_of(number).any(axis=1).nonzero()
        widths.append((columns[-1] - columns[0]) / WIDTH)
        middles.append(((columns[0] + columns[-1]) / 2 / WIDTH, (rows[0] + rows[-1]) / 2 / HEIGHT))
    assert np.min(widths) > 0.2
    assert np.max(widths) < 0.8
    assert 0.35 < np.median(widths) < 0.65
    assert np.ptp(middles, axis=0).min() > 0.35


def test_the_ground_is_white_with_grey_speckle():
    ground = np.asarray(module._ground(np.random.default_rng(1)))
    speckled = (ground < 255).any(axis=2)
    assert 0.005 < speckled.mean() < 0.06
    assert np.array_equal(ground[..., 0], ground[..., 2])


def test_letters_are_each_of_their_own_colour_and_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_stroke", lambda pen, random: None)
        patch.setattr(module, "_ground", lambda random: Image.new("RGB", (WIDTH, HEIGHT), "white"))
        look = CaptchaStyle(("lllll",), LOOK.fonts[2:3])
        pixels = np.asarray(draw_captcha(1, 1, look)[0]).reshape(-1, 3)
    colours = Counter(map(tuple, pixels[pixels.max(axis=1) < 255].tolist()))
    inks = [color for color, count in colours.most_common(5) if count > 100]
    assert len(inks) == 5
    assert len({colours[ink] for ink in inks}) == 5


def test_eight_to_twenty_strokes_lie_over_and_under_the_letters():
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_stroke", lambda pen, random: counts.append("stroke"))
        patch.setattr(module, "_write", lambda *_: counts.append("word"))
        for number in range(40):
            draw_captcha(1, number, LOOK)
            counts.append("end")
    pictures = " ".join(counts).split(" end")[:-1]
    strokes = [picture.split().count("stroke") for picture in pictures]
    assert (min(strokes), max(strokes)) == (8, 20)
    under = [picture.split().index("word") for picture in pictures]
    assert 0.35 < sum(under) / sum(strokes) < 0.65
