"""The CAPTCHA benchmark's held-out set shares nothing with the one that everything is tuned on."""

import importlib
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def captcha(monkeypatch):
    """The benchmark, as the program it is."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("captcha")


def test_the_two_sets_share_neither_word_nor_font_nor_seed(captcha):
    development, held_out = captcha.DEVELOPMENT, captcha.HELD_OUT
    assert set(development.words).isdisjoint(held_out.words)
    assert set(development.fonts).isdisjoint(held_out.fonts)
    assert development.seed != held_out.seed


def test_each_has_2500_words_and_four_fonts_with_doubled_and_tripled_letters(captcha):
    for specification in (captcha.DEVELOPMENT, captcha.HELD_OUT):
        words = specification.words
        assert (len(set(words)), len(set(specification.fonts))) == (2500, 4)
        assert sum(bool(re.search(r"(.)\1", word)) for word in words) > 200
        assert sum(bool(re.search(r"(.)\1\1", word)) for word in words) >= 5
        assert all(Path(font).is_file() for font in specification.look.fonts)


@pytest.mark.slow
def test_results_print_a_row_and_are_not_made_again(captcha, tmp_path):
    bench = captcha.Bench(tmp_path, "quick", "held_out", 70)
    figures = bench.measure()
    assert (figures["images"], figures["scores"]["images"], len(figures["val_accuracy"])) == (50, 10, 10)
    assert "| quick | held_out | 50 | 10 |" in captcha.table(figures)
    again = bench.measure()
    assert (again["seconds"], again["scores"]) == (figures["seconds"], figures["scores"])
