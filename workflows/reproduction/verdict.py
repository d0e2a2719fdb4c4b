"""Compares scores with the bands of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from workflows.reproduction.recipe import BANDED_SPLIT, ExpectedScores


@dataclass(frozen=True)
class BandedScore:
    """A score and its band; None if the score was not computed, as METEOR without Java.

    `applies` states whether the score can be compared with the band.
    """

    name: str
    value: float | None
    low: float
    high: float
    applies: bool = True

    @property
    def passed(self) -> bool | None:
        return None if self.value is None or not self.applies else self.low <= self.value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return {"score": self.value, "low": self.low, "high": self.high, "passed": self.passed}


@dataclass(frozen=True)
class Verdict:
    """The bands of a reproduction, and the reasons why they do not apply."""

    bands: tuple[BandedScore, ...]
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool | None:
        """Whether all scores are in their bands; None if the bands do not apply or a score is missing."""
        return None if self.reasons or not self.bands else not self.failed

    @property
    def failed(self) -> tuple[BandedScore, ...]:
        return tuple(band for band in self.bands if band.passed is False)

    def describe(self) -> str:
        """Returns the verdict as a sentence."""
        if self.passed is not None:
            inside = sum(band.passed is True for band in self.bands)
            return f"{'Passed' if self.passed else 'Failed'}: {inside} of {len(self.bands)} scores are in their bands."
        return f"No verdict. {' '.join(self.reasons)}"


def judge(
    scores: Mapping[str, float], expected: ExpectedScores | None, split: str, deviations: Sequence[str]
) -> Verdict:
    """Compares scores with the bands of a recipe."""
    reasons = list(deviations)
    if split != BANDED_SPLIT:
        reasons.insert(0, f"The bands are those of {BANDED_SPLIT}.")
    if expected is None:
        return Verdict((), ("The recipe has no bands.", *deviations))
    if missing := [name for name in expected.scores if name not in scores]:
        # Without Java, the other scores are computed with another tokenizer.
        reasons.append(f"Not computed: {', '.join(missing)}.")
    bands = [
        BandedScore(name, scores.get(name), low, high, applies=not reasons)
        for name, (low, high) in expected.scores.items()
    ]
    return Verdict(tuple(bands), tuple(reasons))


def average_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each score that all runs have."""
    return {name: fmean(one[name] for one in scores) for name in scores[0] if all(name in one for one in scores)}
