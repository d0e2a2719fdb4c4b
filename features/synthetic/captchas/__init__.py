"""Generates synthetic CAPTCHAs. Each is a function of its seed, its number, and the word list and fonts."""

from features.synthetic.captchas.dataset import make_captchas, synth_captcha
from features.synthetic.captchas.renderer import HEIGHT, WIDTH, draw_captcha, encode_png
from features.synthetic.captchas.style import (
    CHARACTERS,
    DEFAULT_FONTS,
    CaptchaStyle,
    find_default_fonts,
    list_fonts,
    load_default_words,
    read_words,
)

__all__ = [
    "CHARACTERS",
    "DEFAULT_FONTS",
    "HEIGHT",
    "WIDTH",
    "CaptchaStyle",
    "draw_captcha",
    "encode_png",
    "find_default_fonts",
    "list_fonts",
    "load_default_words",
    "make_captchas",
    "read_words",
    "synth_captcha",
]
