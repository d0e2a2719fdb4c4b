"""Rules warn and stop by the figures of a comparison."""

from dataclasses import replace

from workflows.retraining.config import DataCheck, DataChecksConfig
from workflows.retraining.data_checks import check_data, check_failures
from workflows.retraining.data_diff import DataDiff, failure_rate

USUAL = DataDiff(
    images=100,
    told=500,
    new_images=10,
    changed_images=0,
    lost_images=1,
    new_told=50,
    lost_told=5,
    lost=0.011,
    failed=0.0,
    length=0.02,
    unknown=0.01,
    drift_mean=0.1,
    drift_covariance=0.2,
)


def test_usual_data_is_let_through_without_a_word() -> None:
    verdict = check_data(USUAL, DataChecksConfig())
    assert (verdict.warnings, verdict.stops, verdict.too_many_failed) == ((), (), False)


def test_a_figure_over_its_warning_warns_and_over_its_stop_stops_and_both_say_the_limit() -> None:
    verdict = check_data(replace(USUAL, lost=0.1, unknown=0.3), DataChecksConfig())
    assert verdict.warnings == ("10.0% of the images that the champion saw are gone (allowed: 2.0%)",)
    assert verdict.stops == ("30.0% of the newly told words are unknown to the champion (allowed: 25.0%)",)
    assert not verdict.too_many_failed


def test_failed_records_stop_with_a_status_of_their_own() -> None:
    verdict = check_data(replace(USUAL, failed=0.06), DataChecksConfig())
    assert verdict.too_many_failed
    assert (
        verdict.stops
        == check_failures(0.06, DataChecksConfig()).stops
        == ("6.0% of the prepared records failed (allowed: 5.0%)",)
    )
    assert check_failures(0.05, DataChecksConfig()).stops == ()


def test_what_is_not_known_or_has_no_limit_is_not_judged() -> None:
    unlike = replace(USUAL, drift_mean=9.0, drift_covariance=None, length=None, unknown=None)
    verdict = check_data(unlike, DataChecksConfig(drift_mean=DataCheck()))
    assert (verdict.warnings, verdict.stops) == ((), ())


def test_the_worst_preparation_counts() -> None:
    assert failure_rate([{"failed": 0, "input": 1000}, {"failed": 3, "input": 10}]) == 0.3
    assert failure_rate([]) == 0
