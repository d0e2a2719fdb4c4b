"""The held-out dataset of the CAPTCHA benchmark shares nothing with the development dataset."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from features.synthetic.captchas.renderer import draw_captcha

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def captcha(monkeypatch):
    """Imports the benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("captcha")


def test_the_held_out_dataset_shares_no_word_font_or_seed_with_the_others(captcha):
    held_out = captcha.HELD_OUT
    for other in (captcha.DEVELOPMENT, captcha.THIN):
        assert set(other.words).isdisjoint(held_out.words)
        assert set(other.fonts).isdisjoint(held_out.fonts)
        assert other.seed != held_out.seed


def test_the_thin_dataset_has_thinner_letters_than_the_development_dataset(captcha):
    assert captcha.THIN.seed != captcha.DEVELOPMENT.seed
    assert set(captcha.THIN.fonts).isdisjoint(captcha.DEVELOPMENT.fonts)
    thin, development = (measure_thick_lines(one.style) for one in (captcha.THIN, captcha.DEVELOPMENT))
    assert thin < 0.15
    assert development > 0.4


def measure_thick_lines(style):
    """Returns the fraction of the letters' pixels in lines of nine or more pixels, more than two at 80×160."""
    letters, thick = 0, 0
    for number in range(12):
        plain = replace(style, num_strokes=(0, 0), background="plain")
        image = np.asarray(draw_captcha(1, number, plain)[0]).astype(int)
        mask = Image.fromarray((np.abs(image - image[0, 0]).max(axis=2) > 60).astype(np.uint8))
        opened = mask.filter(ImageFilter.MinFilter(9)).filter(ImageFilter.MaxFilter(9))
        letters, thick = letters + np.asarray(mask).sum(), thick + np.asarray(opened).sum()
    return thick / letters


def test_each_dataset_has_2500_words_with_repeated_letters_and_four_fonts(captcha):
    for specification in (captcha.DEVELOPMENT, captcha.THIN, captcha.HELD_OUT):
        words = specification.words
        assert (len(set(words)), len(set(specification.fonts))) == (2500, 4)
        assert sum(bool(re.search(r"(.)\1", word)) for word in words) > 200
        assert sum(bool(re.search(r"(.)\1\1", word)) for word in words) >= 5
        assert all(Path(font).is_file() for font in specification.style.fonts)


@pytest.mark.slow
def test_results_are_one_row_and_are_reused(captcha, tmp_path):
    bench = captcha.Bench(tmp_path, "quick", "held_out", 70, epochs=10)
    results = bench.measure()
    assert (results["images"], results["scores"]["images"], len(results["val_exact_match"])) == (50, 10, 10)
    assert "| quick | held_out | 50 | 10 |" in captcha.table(results)
    again = bench.measure()
    assert (again["seconds"], again["scores"]) == (results["seconds"], results["scores"])
