"""Further sets of labels are those of tests/benchmarks/test_label_dependence.py."""

import tracemalloc

import numpy as np
import pytest

from trainer.data.label_dependence import MIN_LABELS, measure_dependence


def draw_digits(count, length=4):
    return ["".join(map(str, row)) for row in np.random.default_rng(1).integers(0, 10, (count, length))]


def test_the_fraction_is_that_of_the_information_which_the_neighbor_tells():
    # Half of it: the second character is one of two out of four.
    rng = np.random.default_rng(1)
    labels = [f"{first}{2 * (first // 2) + rng.integers(2)}" for first in rng.integers(0, 4, 2000)]
    found = measure_dependence(labels)
    assert found.fraction == pytest.approx(0.5, abs=0.02)
    assert (found.language_model, found.p_value) == ("words", 0.01)


def test_words_of_thousands_of_characters_are_no_random_labels():
    # By chance, too, almost every pair occurs once, so the mutual information of random labels is as high as it can be.
    rng = np.random.default_rng(1)
    words = [chr(0x4E00 + first) + chr(0x4E00 + second) for first, second in rng.integers(0, 3000, (20_000, 2))]
    found = measure_dependence([words[number] for number in rng.integers(0, 20_000, 2000)])
    assert (found.language_model, found.p_value) == ("words", 0.01)
    assert measure_dependence(words[:2000]).language_model == "none"


def test_labels_of_which_every_character_occurs_once_are_random():
    found = measure_dependence(["".join(map(chr, range(start, start + 4))) for start in range(0x4E00, 0x5400, 4)])
    assert (found.language_model, found.fraction, found.p_value) == ("none", 0, 1)


def test_thousands_of_characters_need_no_table_of_their_pairs():
    # A table of all pairs of 4,000 characters would have 128 MB.
    labels = ["".join(map(chr, range(start, start + 8))) for start in range(0x4E00, 0x4E00 + 4000, 8)]
    tracemalloc.start()
    measure_dependence(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_labels_without_information_about_neighbors_are_random():
    for labels in (draw_digits(500, 1), ["7"] * 500, ["ab"] * 500):
        found = measure_dependence(labels)
        assert (found.language_model, found.fraction) == ("none", 0)


def test_the_choice_is_repeated_exactly():
    labels = draw_digits(300)
    assert measure_dependence(labels) == measure_dependence(labels)


def test_too_few_labels_are_no_evidence_for_random_ones():
    labels = draw_digits(MIN_LABELS)
    assert measure_dependence(labels).language_model == "none"
    assert measure_dependence(labels[1:]).language_model == "words"
