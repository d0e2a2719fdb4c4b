"""Two trials are told apart by what each scores on the very same images."""

import numpy as np
import pytest

from trainer.evaluation.bootstrap import bootstrap_intervals, sample_means
from workflows.experiments.comparison import TrialComparison


@pytest.fixture(scope="module")
def comparison() -> TrialComparison:
    """Images of very different difficulty; `more` scores a little more on each than `some`, `other` as much."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(0, 1, 200)
    noise = generator.normal(0, 0.02, (2, 200))
    return TrialComparison(("some", "more", "other"), np.column_stack([hard, hard + 0.02 + noise[0], hard + noise[1]]))


def test_a_small_difference_is_certain_where_the_images_are_the_same(comparison: TrialComparison) -> None:
    found = comparison.difference("some", "more")
    low, high = found.interval
    assert 0 < low < found.value < high < 0.03
    [alone] = bootstrap_intervals(sample_means(("some",), comparison.values[:, :1])).values()
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_no_difference_is_not_made_one(comparison: TrialComparison) -> None:
    low, high = comparison.difference("some", "other").interval
    assert low < 0 < high


def test_a_difference_turns_with_its_trials(comparison: TrialComparison) -> None:
    there, back = comparison.difference("some", "more"), comparison.difference("more", "some")
    assert there.value == pytest.approx(-back.value)
    assert there.interval == pytest.approx(tuple(-end for end in reversed(back.interval)))


def test_what_cannot_be_compared_is_not(comparison: TrialComparison) -> None:
    assert comparison.difference("some", "absent") is None
    assert TrialComparison((), np.array([], np.float64).T).difference("some", "more") is None
