import pytest

from features.text.time_steps import count_required_steps


@pytest.mark.parametrize(("label", "steps"), [("a", 1), ("abc", 3), ("aab", 4), ("www", 5), ("", 0)])
def test_ctc_needs_a_blank_between_equal_neighbors(label, steps):
    assert count_required_steps(label) == steps
