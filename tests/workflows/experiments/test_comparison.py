"""Trials are compared on the same images, so that a small difference is significant."""

import numpy as np
import pytest

from trainer.evaluation.bootstrap import bootstrap_intervals, sample_means
from workflows.experiments.comparison import TrialComparison


@pytest.fixture(scope="module")
def comparison() -> TrialComparison:
    """Returns scores of images of different difficulty. `more` is slightly better than `some`; `other` is equal."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(0, 1, 200)
    noise = generator.normal(0, 0.02, (2, 200))
    return TrialComparison(("some", "more", "other"), np.column_stack([hard, hard + 0.02 + noise[0], hard + noise[1]]))


def test_a_small_difference_is_significant_on_the_same_images(comparison: TrialComparison) -> None:
    difference = comparison.difference("some", "more")
    low, high = difference.interval
    assert 0 < low < difference.value < high < 0.03
    [alone] = bootstrap_intervals(sample_means(("some",), comparison.values[:, :1])).values()
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_equal_trials_do_not_differ_significantly(comparison: TrialComparison) -> None:
    low, high = comparison.difference("some", "other").interval
    assert low < 0 < high


def test_a_difference_changes_its_sign_with_the_order_of_trials(comparison: TrialComparison) -> None:
    forward, backward = comparison.difference("some", "more"), comparison.difference("more", "some")
    assert forward.value == pytest.approx(-backward.value)
    assert forward.interval == pytest.approx(tuple(-end for end in reversed(backward.interval)))


def test_a_trial_without_scores_has_no_difference(comparison: TrialComparison) -> None:
    assert comparison.difference("some", "absent") is None
    assert TrialComparison((), np.array([], np.float64).T).difference("some", "more") is None
