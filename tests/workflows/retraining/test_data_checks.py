"""Data checks warn and fail by the measurements of a data diff."""

from dataclasses import replace

from workflows.retraining.config import DataCheck, DataChecksConfig
from workflows.retraining.data_checks import DataDiff, check_data, check_failures
from workflows.retraining.preparation import PreparedData

DIFF = DataDiff(
    images=100,
    texts=500,
    new_images=10,
    changed_images=0,
    removed_images=1,
    new_texts=50,
    removed_texts=5,
    removed_fraction=0.011,
    failure_rate=0.0,
    length_change=0.02,
    oov_rate=0.01,
    drift_mean=0.1,
    drift_covariance=0.2,
)


def test_values_within_the_limits_pass() -> None:
    result = check_data(DIFF, DataChecksConfig())
    assert (result.warnings, result.failures, result.too_many_failed) == ((), (), False)


def test_a_value_above_a_limit_warns_or_fails_with_value_and_limit() -> None:
    result = check_data(replace(DIFF, removed_fraction=0.1, oov_rate=0.3), DataChecksConfig())
    assert result.warnings == ("removed_images: 10.0% of the champion's images were removed (limit: 2.0%)",)
    [failure] = result.failures
    assert failure.startswith("oov_rate: 30.0% ")
    assert failure.endswith("(limit: 25.0%)")
    assert not result.too_many_failed


def test_too_many_failed_records_are_marked() -> None:
    result = check_data(replace(DIFF, failure_rate=0.06), DataChecksConfig())
    assert result.too_many_failed
    assert result.failures == check_failures(0.06, DataChecksConfig()).failures
    assert check_failures(0.06, DataChecksConfig()).too_many_failed
    assert check_failures(0.05, DataChecksConfig()).failures == ()


def test_a_missing_value_and_a_missing_limit_pass() -> None:
    unknown = replace(DIFF, drift_mean=9.0, drift_covariance=None, length_change=None, oov_rate=None)
    result = check_data(unknown, DataChecksConfig(drift_mean=DataCheck()))
    assert (result.warnings, result.failures) == ((), ())


def test_the_failure_rate_is_that_of_the_worst_preparation() -> None:
    summaries = ({"failed": 0, "input": 1000}, {"failed": 3, "input": 10})
    assert PreparedData((), {}, (), summaries).failure_rate == 0.3
    assert PreparedData((), {}, (), ()).failure_rate == 0
