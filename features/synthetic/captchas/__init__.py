"""Synthetic CAPTCHAs: noisy pictures of words, each a function of (seed, number) and of the words and fonts."""

from features.synthetic.captchas.dataset import make_captchas, synth_captcha
from features.synthetic.captchas.fonts import DEFAULT_FONTS, find_default_fonts, list_fonts
from features.synthetic.captchas.renderer import HEIGHT, WIDTH, CaptchaStyle, draw_captcha, encode_png
from features.synthetic.captchas.word_list import CHARACTERS, load_default_words, read_words

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
