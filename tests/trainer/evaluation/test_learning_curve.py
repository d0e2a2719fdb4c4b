"""Learning curves say how many labels a target needs, with an interval, or that they do not tell."""

import numpy as np
import pytest

from trainer.evaluation.learning_curve import (
    CurvePoint,
    ErrorCurve,
    LabelEstimate,
    Reason,
    Status,
    describe_estimate,
    estimate_labels,
)

DRAWS = 20
SIZES = (1000, 2000, 4000, 8000)


def draw(curve: ErrorCurve, evaluated: int, seed: int, scatter: float = 0.0) -> list[CurvePoint]:
    """Draws errors; `scatter` is the standard deviation of the logarithm of the error rate of a training."""
    rng = np.random.default_rng(seed)
    rates = curve.error_rate(np.array(SIZES, float)) * np.exp(scatter * rng.standard_normal(len(SIZES)))
    return [CurvePoint(n, int(rng.binomial(evaluated, rate)), evaluated) for n, rate in zip(SIZES, rates, strict=True)]


def points(*errors: int, evaluated: int = 1000) -> list[CurvePoint]:
    return [CurvePoint(n, count, evaluated) for n, count in zip(SIZES, errors, strict=True)]


def contains(estimate: LabelEstimate, labels: float) -> bool:
    return estimate.low is not None and estimate.low <= labels <= (estimate.high or np.inf)


def test_the_number_of_labels_of_a_curve_is_where_it_meets_the_target():
    curve = ErrorCurve(40.0, 0.8, 0.002)
    (rate,) = curve.error_rate(np.array([curve.find_size(0.99)]))
    assert rate == pytest.approx(0.01)
    assert ErrorCurve(40.0, 0.8, 0.02).find_size(0.99) == np.inf


# The third curve levels off at half the error of the target, which eight of ten sets of four sizes cannot tell.
@pytest.mark.parametrize(
    ("curve", "evaluated", "least_estimated"),
    [
        (ErrorCurve(66.0, 0.8, 0.0), 2000, 18),
        (ErrorCurve(8.0, 0.6, 0.0), 10_000, 18),
        (ErrorCurve(200.0, 1.0, 0.005), 2000, 12),
    ],
)
def test_the_interval_contains_the_truth_in_nearly_all_draws(curve, evaluated, least_estimated):
    truth = curve.find_size(0.99) - SIZES[-1]
    estimates = [estimate_labels(draw(curve, evaluated, seed), 0.99) for seed in range(DRAWS)]
    assert sum(contains(one, truth) for one in estimates) >= 18
    assert sum(one.status == Status.ESTIMATED for one in estimates) >= least_estimated


# Four trainings hardly tell how much trainings scatter: nine of ten intervals contain the truth.
def test_the_interval_contains_the_truth_in_most_draws_of_trainings_that_scatter():
    curve = ErrorCurve(66.0, 0.8, 0.0)
    truth = curve.find_size(0.99) - SIZES[-1]
    estimates = [estimate_labels(draw(curve, 2000, seed, scatter=0.15), 0.99) for seed in range(40)]
    assert sum(contains(one, truth) for one in estimates) >= 35
    assert sum(one.status == Status.ESTIMATED for one in estimates) >= 20


def test_three_sizes_that_scatter_do_not_show_that_the_errors_level_off():
    estimate = estimate_labels(points(990, 150, 60, 50), 0.99)
    assert (estimate.curve.c, estimate.dispersion > 1) == (0, True)


def test_the_parameters_of_a_power_law_are_found():
    true = ErrorCurve(66.0, 0.8, 0.0)
    curve = estimate_labels(draw(true, 200_000, 0), 0.99).curve
    assert curve.b == pytest.approx(0.8, abs=0.02)
    assert curve.c == pytest.approx(0, abs=0.001)
    assert curve.find_size(0.99) == pytest.approx(true.find_size(0.99), rel=0.1)


def test_a_curve_that_levels_off_above_the_target_has_no_upper_end():
    estimate = estimate_labels(draw(ErrorCurve(400.0, 1.2, 0.03), 20_000, 0), 0.99)
    assert (estimate.status, estimate.more_labels, estimate.high) == (Status.AT_LEAST, None, None)
    assert estimate.low > SIZES[-1]
    assert estimate.curve.c == pytest.approx(0.03, abs=0.005)


def test_scatter_in_excess_of_chance_widens_the_interval():
    smooth, scattered = points(400, 250, 150, 90), points(370, 290, 130, 90)
    one, other = estimate_labels(smooth, 0.95), estimate_labels(scattered, 0.95)
    assert one.dispersion < other.dispersion
    assert other.high is None or other.high - other.low > one.high - one.low


@pytest.mark.parametrize(
    ("errors", "evaluated", "status", "reason"),
    [
        ((100, 50, 20, 9), 1000, Status.REACHED, None),
        ((3, 2, 1, 0), 100, Status.REACHED, None),
        ((0, 0, 0, 0), 1000, Status.REACHED, None),
        ((0, 0, 0, 0), 100, Status.UNKNOWN, Reason.NO_ERRORS),
        ((100, 101, 99, 100), 1000, Status.UNKNOWN, Reason.FLAT),
        ((60, 80, 100, 120), 1000, Status.UNKNOWN, Reason.FLAT),
        ((3, 3, 2, 2), 40, Status.UNKNOWN, Reason.FLAT),
        ((1000, 990, 200, 100), 1000, Status.UNKNOWN, Reason.TOO_FEW_SIZES),
        ((1000, 1000, 1000, 1000), 1000, Status.UNKNOWN, Reason.TOO_FEW_SIZES),
        ((100, 60, 30, 600), 1000, Status.UNKNOWN, Reason.TOO_FEW_SIZES),
    ],
)
def test_a_curve_that_tells_nothing_has_no_number(errors, evaluated, status, reason):
    estimate = estimate_labels(points(*errors, evaluated=evaluated), 0.99)
    assert (estimate.status, estimate.reason) == (status, reason)
    assert (estimate.more_labels, estimate.low, estimate.high) == (None, None, None)


def test_a_curve_that_is_past_the_target_where_the_last_size_is_not_has_no_most_probable_number():
    measured = points(80, 40, 16, 11)
    estimate = estimate_labels(measured, 0.99)
    assert (estimate.status, estimate.more_labels, estimate.low) == (Status.ESTIMATED, None, 0)
    assert 0 < estimate.high < SIZES[-1]
    assert f"{estimate.high:.1e}"[:1] in describe_estimate(estimate, measured)


def test_sizes_that_learned_nothing_are_not_in_the_fit():
    with_plateau, without = points(995, 300, 150, 75), points(995, 300, 150, 75)[1:]
    assert estimate_labels(with_plateau, 0.99) == estimate_labels(without, 0.99)


def test_statements_name_the_numbers():
    measured = points(400, 230, 130, 74)
    estimate = estimate_labels(measured, 0.95)
    statement = describe_estimate(estimate, measured)
    assert estimate.status == Status.ESTIMATED
    assert estimate.low < estimate.more_labels < estimate.high
    assert "95%" in statement
    assert "92.60%" in statement
    assert f"{estimate.more_labels:.1e}"[:1] in statement
    reached = points(100, 50, 20, 9)
    assert "99.10%" in describe_estimate(estimate_labels(reached, 0.99), reached)
