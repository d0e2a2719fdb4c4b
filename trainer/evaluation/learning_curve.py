"""Fits the error rate as a function of the number of train labels, and estimates the labels for a target exact match.

error(n) = 1 − exp(−(a·n^−b + c))

This is the power law a·n^−b + c of learning curves (Hestness et al., 2017, arXiv:1712.00409) where errors are rare, and
it stays below 1 where they are not: a label is correct if all its characters are, so the logarithm of exact match adds
up over them. With c = 0 it is a binomial regression on log n with the complementary log-log link.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.recognition_metrics import wilson_interval

Values = NDArray[np.float64]

# A network that has not learned yet follows no power law: the sizes at which it fails more often are not used.
MAX_ERROR_RATE = 0.5
MIN_POINTS = 3
# Targets that need more labels than this multiple of the largest size are out of reach of any extrapolation.
MAX_FACTOR = 100.0
# The interval contains the sizes of curves that level off at up to this fraction of the target's error rate, because
# few sizes cannot tell such a curve from one that falls to 0.
MAX_FLOOR = 0.5

# Quantiles of χ² with one degree of freedom: 95%, and 90%, which is 95% for a parameter at its bound (Self and Liang,
# 1987).
_CHI2_95 = 3.841458820694124
_CHI2_BOUND_95 = 2.705543454095404
_HAZARDS = (1e-6, 5.0)
_EXPONENTS = (0.01, 10.0)
_NUM_EXPONENTS = 17
_FLOORS = np.linspace(0, 0.95, 20)
# Multiples of the largest size at which the profile likelihood is computed.
_SIZES = np.geomspace(0.25, MAX_FACTOR, 120)
_GRID, _ROUNDS = 9, 10  # of `_minimize`


class Status(StrEnum):
    """What a learning curve says about a target exact match."""

    REACHED = "reached"
    ESTIMATED = "estimated"
    AT_LEAST = "at_least"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a learning curve says nothing about a target exact match."""

    TOO_FEW_SIZES = "too_few_sizes"
    NO_ERRORS = "no_errors"
    FLAT = "flat"


_REASONS = {
    Reason.TOO_FEW_SIZES: f"fewer than {MIN_POINTS} of the recognizers get at least half of the held-out labels right",
    Reason.NO_ERRORS: "no label is wrong at any size, and there are too few held-out labels to show the target",
    Reason.FLAT: "the errors do not become significantly fewer with more labels",
}


@dataclass(frozen=True)
class CurvePoint:
    """The evaluation of one training: `errors` of `evaluated` held-out labels are wrong after `labels` train labels."""

    labels: int
    errors: int
    evaluated: int

    @property
    def exact_match(self) -> float:
        """The fraction of correct labels."""
        return 1 - self.errors / self.evaluated

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval of the exact match."""
        return wilson_interval(self.evaluated - self.errors, self.evaluated)

    @property
    def is_used(self) -> bool:
        """Whether the curve is fitted to the point."""
        return self.errors <= MAX_ERROR_RATE * self.evaluated


@dataclass(frozen=True)
class ErrorCurve:
    """error(n) = 1 − exp(−(a·n^−b + c))."""

    a: float
    b: float
    c: float

    def error_rate(self, labels: Values) -> Values:
        """Returns the error rates at numbers of labels, float64 [N]."""
        return np.asarray(-np.expm1(-(self.a * labels**-self.b + self.c)))

    def find_size(self, target: float) -> float:
        """Returns the number of labels at which the exact match is `target`; infinite if it never is."""
        wanted = -np.log(target) - self.c
        return float((self.a / wanted) ** (1 / self.b)) if wanted > 0 else float("inf")


@dataclass(frozen=True)
class LabelEstimate:
    """How many more train labels reach a target exact match.

    Args:
        target: The target exact match.
        status: What the curve says.
        reason: Why it says nothing; None unless `status` is `UNKNOWN`.
        curve: The fitted curve, if there is one.
        dispersion: Factor by which the points scatter around the curve in excess of chance; at least 1.
        more_labels: The most probable number of further labels, at least 1; None unless `status` is `ESTIMATED`, and if
            the curve reaches the target at the largest size, where the measured exact match does not.
        low: Lower end of the 95% interval, for `ESTIMATED` and `AT_LEAST`.
        high: Upper end of the 95% interval; None if it has none.
    """

    target: float
    status: Status
    reason: Reason | None = None
    curve: ErrorCurve | None = None
    dispersion: float = 1.0
    more_labels: int | None = None
    low: int | None = None
    high: int | None = None


def estimate_labels(points: Sequence[CurvePoint], target: float) -> LabelEstimate:
    """Estimates the number of further train labels after which the exact match is `target`, between 0 and 1.

    The curve has maximum likelihood for the binomial numbers of errors. Its error rate c at infinity is 0, unless at
    least four points reject this at the 5% level. The interval contains the sizes whose profile likelihood is not
    significantly lower, with c up to `MAX_FLOOR` of the target's error rate. If the points scatter more than by chance,
    as trainings do, the deviance is divided by its excess (quasi-likelihood, Wedderburn, 1974). What rejects c = 0 may
    be such scatter, so the interval then contains, besides these sizes, those of the model with any c.

    The target is reached if the largest size has this exact match.
    """
    last = max(points, key=lambda point: point.labels)
    used = sorted((point for point in points if point.is_used), key=lambda point: point.labels)
    if last.exact_match >= target:
        if last.interval[0] < target and not any(point.errors for point in points):
            return LabelEstimate(target, Status.UNKNOWN, Reason.NO_ERRORS)
        return LabelEstimate(target, Status.REACHED)
    if len(used) < MIN_POINTS or not last.is_used:
        return LabelEstimate(target, Status.UNKNOWN, Reason.TOO_FEW_SIZES)
    return _Fit(used).estimate(target)


def describe_estimate(estimate: LabelEstimate, points: Sequence[CurvePoint]) -> str:
    """Returns the estimate as a sentence; `points` are those that it was made from."""
    last = max(points, key=lambda point: point.labels)
    target = f"{100 * estimate.target:.4g}%"
    low, high = (f"{100 * end:.2f}%" for end in last.interval)
    now = f"{100 * last.exact_match:.2f}% (95% interval {low} to {high}) with {last.labels:,} labels"
    if estimate.status == Status.REACHED:
        return f"The target of {target} is reached: {now}."
    if estimate.status == Status.UNKNOWN:
        assert estimate.reason is not None
        return f"The number of labels for {target} cannot be estimated: {_REASONS[estimate.reason]}. Now: {now}."
    return f"{_describe_number(estimate, target)} Now: {now}."


def _describe_number(estimate: LabelEstimate, target: str) -> str:
    assert estimate.low is not None
    if estimate.status == Status.AT_LEAST:
        levels_off = "the errors may stop falling before"
        if estimate.low == 0:
            return f"A few more labels may be enough for {target}, or no number of labels: {levels_off}."
        return f"At least {_round(estimate.low)} more labels for {target}; {levels_off}."
    assert estimate.high is not None
    if estimate.more_labels is None:
        return f"Fewer than {_round(estimate.high)} more labels for {target} (95% interval)."
    interval = f"95% interval {_round(estimate.low)} to {_round(estimate.high)}"
    return f"About {_round(estimate.more_labels)} more labels for {target} ({interval})."


def _round(count: int) -> str:
    """Returns a count with two significant digits."""
    return f"{int(float(f'{count:.1e}')):,}"


@dataclass(frozen=True)
class _Model:
    """The curve of maximum likelihood with some floors.

    Args:
        curve: The curve.
        deviance: Its deviance.
        freedom: Degrees of freedom of the deviance.
        floors: The floors of the curves that the interval contains.
    """

    curve: ErrorCurve
    deviance: float
    freedom: int
    floors: Values

    @property
    def dispersion(self) -> float:
        """Factor by which the points scatter around the curve in excess of chance; at least 1."""
        return max(1.0, self.deviance / self.freedom)

    @property
    def limit(self) -> float:
        """The greatest difference to the deviance that is not significant at the 5% level."""
        return _CHI2_95 * self.dispersion


class _Fit:
    """Fits the curve to points in ascending order; sizes are relative to the largest one.

    A curve is given by its hazard −log(1 − error) at some size, its exponent b, and its floor: the fraction of that
    hazard which is c.
    """

    def __init__(self, points: Sequence[CurvePoint]) -> None:
        self._last = points[-1]
        self._sizes = np.array([point.labels for point in points]) / self._last.labels
        self._errors = np.array([point.errors for point in points], float)
        self._correct = np.array([point.evaluated - point.errors for point in points], float)

    def estimate(self, target: float) -> LabelEstimate:
        models = self._fit_models()
        best = models[-1]
        if self._constant_deviance() - best.deviance <= best.limit:
            return LabelEstimate(target, Status.UNKNOWN, Reason.FLAT, dispersion=best.dispersion)
        make = partial(LabelEstimate, target, curve=best.curve, dispersion=best.dispersion)
        allowed = [self._profile(target, model.floors) - model.deviance <= model.limit for model in models]
        inside = _SIZES[np.any(allowed, axis=0)]
        size = best.curve.find_size(target) / self._last.labels
        if not inside.size or inside[-1] == _SIZES[-1] or size > MAX_FACTOR:
            return make(Status.AT_LEAST, low=self._count_more(inside[0] if inside.size else _SIZES[-1]))
        more, low, high = map(self._count_more, (size, inside[0], inside[-1]))
        return make(Status.ESTIMATED, more_labels=more or None, low=low, high=high)

    def _fit_models(self) -> list[_Model]:
        """Returns the model with c = 0 and, if chance does not explain its deviance, that with any c after it."""
        freedom = len(self._sizes) - 2
        models = [_Model(*self._fit(np.zeros(1)), freedom, np.linspace(0, MAX_FLOOR, 3))]
        # A curve with c > 0 passes through any three points, so these cannot reject c = 0.
        if freedom > 1:
            with_floor = _Model(*self._fit(_FLOORS), freedom - 1, _FLOORS)
            if models[0].deviance - with_floor.deviance > _CHI2_BOUND_95:
                models.append(with_floor)
        return models

    def _fit(self, floors: Values) -> tuple[ErrorCurve, float]:
        """Returns the curve of maximum likelihood among those with one of the floors at the largest size."""
        exponents = np.geomspace(*_EXPONENTS, _NUM_EXPONENTS)
        for _ in range(3):  # each time around the best exponent
            floor, exponent = (one.reshape(-1, 1) for one in np.meshgrid(floors, exponents, indexing="ij"))
            compute = partial(self._deviance_of_hazard, exponent, floor)
            hazards, deviances = _minimize(compute, *np.broadcast_to(_HAZARDS, (len(floor), 2)).T)
            best, step = int(deviances.argmin()), exponents[1] / exponents[0]
            exponents = float(exponent[best, 0]) * np.geomspace(1 / step, step, _NUM_EXPONENTS)
        rate, hazard, share = float(exponent[best, 0]), float(hazards[best]), float(floor[best, 0])
        scale = float(self._last.labels) ** rate
        return ErrorCurve(hazard * (1 - share) * scale, rate, hazard * share), float(deviances[best])

    def _deviance_of_hazard(self, exponent: Values, floor: Values, hazard: Values) -> Values:
        return self._deviance(hazard, exponent, floor, np.ones((1, 1)))

    def _profile(self, target: float, floors: Values) -> Values:
        """Returns the lowest deviances of curves that reach the target at each of `_SIZES` with one of the floors."""
        size, floor = (one.reshape(-1, 1) for one in np.meshgrid(_SIZES, floors, indexing="ij"))
        hazard = np.full_like(size, -np.log(target))

        def compute(exponent: Values) -> Values:
            return self._deviance(hazard, exponent, floor, size)

        deviances = _minimize(compute, *np.broadcast_to(_EXPONENTS, (len(size), 2)).T)[1]
        return np.asarray(deviances.reshape(len(_SIZES), len(floors)).min(axis=1))

    def _deviance(self, hazard: Values, exponent: Values, floor: Values, size: Values) -> Values:
        """Returns the deviances of curves that have these hazards at these sizes; all [B, N] or broadcast to it."""
        hazard, exponent, floor, size = (one[..., None] for one in (hazard, exponent, floor, size))
        hazards = hazard * (floor + (1 - floor) * np.exp(-exponent * np.log(self._sizes / size)))
        losses = -_times_log(self._errors, -np.expm1(-hazards)) + self._correct * hazards
        return np.asarray(2 * (losses.sum(axis=-1) - self._lowest_loss()))

    def _lowest_loss(self) -> float:
        """Returns the negative log-likelihood of a curve through all points."""
        total = self._errors + self._correct
        parts = _times_log(self._errors, self._errors / total) + _times_log(self._correct, self._correct / total)
        return -float(parts.sum())

    def _constant_deviance(self) -> float:
        """Returns the deviance of the curve that has the same error rate everywhere."""
        rate = self._errors.sum() / (self._errors + self._correct).sum()
        one = np.ones((1, 1))
        return float(self._deviance(-np.log1p(-rate) * one, one, one, one)[0, 0])

    def _count_more(self, size: float) -> int:
        return max(0, round(self._last.labels * (float(size) - 1)))


def _times_log(count: Values, value: Values) -> Values:
    """Returns count · log(value), 0 where the count is 0."""
    return np.where(count > 0, count * np.log(np.where(count > 0, np.maximum(value, 1e-300), 1.0)), 0.0)


def _minimize(function: Callable[[Values], Values], low: Values, high: Values) -> tuple[Values, Values]:
    """Minimizes B functions of one positive number between `low` and `high` [B], on grids refined around the minima.

    `function` maps numbers [B, N] to values [B, N] that have one minimum per row.

    Returns:
        The numbers with the minima [B], and the minima [B].
    """
    left, right = np.log(low), np.log(high)
    for _ in range(_ROUNDS):
        grids = np.linspace(left, right, _GRID, axis=1)
        values = function(np.exp(grids))
        best = grids[np.arange(len(grids)), values.argmin(axis=1)]
        reach = (right - left) / 4
        left, right = np.maximum(left, best - reach), np.minimum(right, best + reach)
    return np.exp(best), values.min(axis=1)
