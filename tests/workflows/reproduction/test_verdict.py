"""A reproduction passes if all scores are in their bands, and has no verdict if the bands do not apply."""

import pytest

from workflows.reproduction.recipe import ExpectedScores
from workflows.reproduction.verdict import average_scores, judge

EXPECTED = ExpectedScores(scores={"cider_d": (0.4, 0.5), "meteor": (0.1, 0.2)}, derivation="a guess")


@pytest.mark.parametrize(
    ("scores", "passed", "sentence"),
    [
        ({"cider_d": 0.4, "meteor": 0.2, "bleu_1": 0.9}, True, "Passed: 2 of 2 scores are in their bands."),
        ({"cider_d": 0.51, "meteor": 0.2}, False, "Failed: 1 of 2 scores are in their bands."),
        ({"cider_d": 0.45}, None, "No verdict. Not computed: meteor."),
        ({"cider_d": 0.3}, None, "No verdict. Not computed: meteor."),
    ],
)
def test_scores_are_compared_with_their_bands(scores: dict[str, float], passed: bool | None, sentence: str) -> None:
    verdict = judge(scores, EXPECTED, "val", [])
    assert (verdict.passed, verdict.describe()) == (passed, sentence)


def test_bands_are_those_of_val_and_of_the_data_of_the_recipe() -> None:
    scores = {"cider_d": 0.3, "meteor": 0.1}
    on_test = judge(scores, EXPECTED, "test", [])
    assert on_test.describe() == "No verdict. The bands are those of val."
    assert [band.passed for band in on_test.bands] == [None, None]
    other = judge(scores, EXPECTED, "val", ["Two images differ."])
    assert (other.passed, other.describe()) == (None, "No verdict. Two images differ.")
    none = judge(scores, None, "val", [])
    assert (none.passed, none.describe()) == (None, "No verdict. The recipe has no bands.")


def test_scores_of_several_runs_are_averaged() -> None:
    assert average_scores([{"a": 0.25, "b": 1.0}, {"a": 0.75}]) == {"a": 0.5}
