"""The held-out dataset of the CAPTCHA benchmark shares nothing with the development dataset."""

import importlib
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def captcha(monkeypatch):
    """Imports the benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("captcha")


def test_the_datasets_share_no_word_font_or_seed(captcha):
    development, held_out = captcha.DEVELOPMENT, captcha.HELD_OUT
    assert set(development.words).isdisjoint(held_out.words)
    assert set(development.fonts).isdisjoint(held_out.fonts)
    assert development.seed != held_out.seed


def test_each_dataset_has_2500_words_with_repeated_letters_and_four_fonts(captcha):
    for specification in (captcha.DEVELOPMENT, captcha.HELD_OUT):
        words = specification.words
        assert (len(set(words)), len(set(specification.fonts))) == (2500, 4)
        assert sum(bool(re.search(r"(.)\1", word)) for word in words) > 200
        assert sum(bool(re.search(r"(.)\1\1", word)) for word in words) >= 5
        assert all(Path(font).is_file() for font in specification.style.fonts)


@pytest.mark.slow
def test_results_are_one_row_and_are_reused(captcha, tmp_path):
    bench = captcha.Bench(tmp_path, "quick", "held_out", 70)
    results = bench.measure()
    assert (results["images"], results["scores"]["images"], len(results["val_exact_match"])) == (50, 10, 10)
    assert "| quick | held_out | 50 | 10 |" in captcha.table(results)
    again = bench.measure()
    assert (again["seconds"], again["scores"]) == (results["seconds"], results["scores"])
