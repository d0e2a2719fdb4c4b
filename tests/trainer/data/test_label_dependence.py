"""Further sets of labels are those of tests/benchmarks/test_label_dependence.py."""

import numpy as np
import pytest

from trainer.data.label_dependence import MIN_LABELS, measure_dependence


def draw_digits(count, length=4):
    return ["".join(map(str, row)) for row in np.random.default_rng(1).integers(0, 10, (count, length))]


def test_the_share_is_that_of_the_information_which_the_neighbor_tells():
    # Half of it: the second character is one of two out of four.
    rng = np.random.default_rng(1)
    labels = [f"{first}{2 * (first // 2) + rng.integers(2)}" for first in rng.integers(0, 4, 2000)]
    found = measure_dependence(labels)
    assert found.share == pytest.approx(0.5, abs=0.02)
    assert (found.language_model, found.p_value) == ("words", 0.01)


def test_labels_without_information_about_neighbors_are_random():
    for labels in (draw_digits(500, 1), ["7"] * 500, ["ab"] * 500):
        found = measure_dependence(labels)
        assert (found.language_model, found.share) == ("none", 0)


def test_the_choice_is_repeated_exactly():
    labels = draw_digits(300)
    assert measure_dependence(labels) == measure_dependence(labels)


def test_too_few_labels_are_no_evidence_for_random_ones():
    labels = draw_digits(MIN_LABELS)
    assert measure_dependence(labels).language_model == "none"
    assert measure_dependence(labels[1:]).language_model == "words"
