"""Compares the measurements of new data with the limits of the data checks, before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from workflows.retraining.config import DataChecksConfig
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
    """The measurements above their `warn` limit, and those above their `fail` limit, which prevent the training."""

    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def too_many_failed(self) -> bool:
        """Whether `failed_records` is among the failures."""
        return any(failure.startswith("failed_records:") for failure in self.failures)


def check_data(diff: DataDiff, config: DataChecksConfig) -> DataCheckResult:
    """Checks every measurement that has a value."""
    return _check({name: getattr(diff, measurement) for name, (measurement, _, _) in _CHECKS.items()}, config)


def check_failures(failure_rate: float, config: DataChecksConfig) -> DataCheckResult:
    """Checks only the failed records. A first model has no champion to compare its data with."""
    return DataCheckResult(failures=_check({"failed_records": failure_rate}, config).failures)


def _check(values: Mapping[str, float | None], config: DataChecksConfig) -> DataCheckResult:
    found: dict[str, list[str]] = {"fail": [], "warn": []}
    for name, value in values.items():
        _, message, number = _CHECKS[name]
        for kind, exceeding in found.items():
            limit = getattr(getattr(config, name), kind)
            if value is not None and limit is not None and value > limit:
                exceeding.append(f"{name}: {message.format(number.format(value))} (limit: {number.format(limit)})")
                break
    return DataCheckResult(tuple(found["warn"]), tuple(found["fail"]))
