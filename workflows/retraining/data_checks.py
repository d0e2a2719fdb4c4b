"""Compares the measurements of new data with the limits of the data checks, before anything is trained."""

from dataclasses import dataclass

from workflows.retraining.config import DataCheck, DataChecksConfig
from workflows.retraining.data_diff import DataDiff

# Measurement of the diff, message and format, by name of the check.
_CHECKS = {
    "removed_images": ("removed_fraction", "{} of the champion's images were removed", "{:.1%}"),
    "failed_records": ("failure_rate", "{} of the input records failed", "{:.1%}"),
    "length_change": ("length_change", "the mean length of new texts changed by {}", "{:.1%}"),
    "oov_rate": ("oov_rate", "{} of the words in new texts are not in the champion's vocabulary", "{:.1%}"),
    "drift_mean": ("drift_mean", "the mean of the features drifted by {}", "{:.2f}"),
    "drift_covariance": ("drift_covariance", "the covariance of the features drifted by {}", "{:.2f}"),
}


@dataclass(frozen=True)
class DataCheckResult:
    """The outcome of the data checks.

    Args:
        warnings: Measurements above their `warn` limit.
        failures: Measurements above their `fail` limit. If any, nothing is trained.
        too_many_failed: Whether `failed_records` is among the failures.
    """

    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    too_many_failed: bool = False


def check_data(diff: DataDiff, config: DataChecksConfig) -> DataCheckResult:
    """Checks every measurement that has a value."""
    warnings, failures = [], []
    for name, (measurement, _, _) in _CHECKS.items():
        check, value = getattr(config, name), getattr(diff, measurement)
        if _exceeds(value, check.fail):
            failures.append(_describe(name, value, check.fail))
        elif _exceeds(value, check.warn):
            warnings.append(_describe(name, value, check.warn))
    return DataCheckResult(tuple(warnings), tuple(failures), _exceeds(diff.failure_rate, config.failed_records.fail))


def check_failures(failure_rate: float, config: DataChecksConfig) -> DataCheckResult:
    """Checks only the failed records. A first model has no champion to compare its data with."""
    check: DataCheck = config.failed_records
    if check.fail is None or not _exceeds(failure_rate, check.fail):
        return DataCheckResult()
    return DataCheckResult(failures=(_describe("failed_records", failure_rate, check.fail),), too_many_failed=True)


def _exceeds(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _describe(name: str, value: float, limit: float) -> str:
    _, message, number = _CHECKS[name]
    return f"{name}: {message.format(number.format(value))} (limit: {number.format(limit)})"
