"""Synthetic CAPTCHAs: noisy pictures of words, each a function of (seed, number) and of the words and fonts."""

from features.synthetic.captchas.dataset import make_captchas, synth_captcha
from features.synthetic.captchas.fonts import DEFAULT_FONTS, list_fonts, shipped_fonts
from features.synthetic.captchas.renderer import HEIGHT, WIDTH, CaptchaStyle, draw, png
from features.synthetic.captchas.word_list import LETTERS, read_words, shipped_words

__all__ = [
    "DEFAULT_FONTS",
    "HEIGHT",
    "LETTERS",
    "WIDTH",
    "CaptchaStyle",
    "draw",
    "list_fonts",
    "make_captchas",
    "png",
    "read_words",
    "shipped_fonts",
    "shipped_words",
    "synth_captcha",
]
