"""Synthetic CAPTCHAs: noisy pictures of words, each a function of (seed, number) and of the words and fonts."""

from features.captchas.dataset import make_captchas, synth_captcha
from features.captchas.fonts import DEFAULT_FONTS, fonts_in, shipped_fonts
from features.captchas.picture import HEIGHT, WIDTH, Look, draw, png
from features.captchas.words import LETTERS, read_words, shipped_words

__all__ = [
    "DEFAULT_FONTS",
    "HEIGHT",
    "LETTERS",
    "WIDTH",
    "Look",
    "draw",
    "fonts_in",
    "make_captchas",
    "png",
    "read_words",
    "shipped_fonts",
    "shipped_words",
    "synth_captcha",
]
