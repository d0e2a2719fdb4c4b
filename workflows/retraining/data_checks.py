"""Compares new data with the champion's training data, and checks the differences before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.store import Store
from schemas.records import join_keys
from trainer.runs.run import Run
from workflows.retraining.config import DataChecksConfig
from workflows.retraining.data_snapshot import DataSnapshot
from workflows.retraining.drift import Moments, compute_drift, compute_moments

# Measurement of the diff, message and format, by name of the check.
_CHECKS = {
    "removed_images": ("removed_fraction", "{} of the champion's images were removed", "{:.1%}"),
    "failed_records": ("failure_rate", "{} of the input records failed", "{:.1%}"),
    "length_change": ("length_change", "the mean length of new texts changed by {}", "{:.1%}"),
    "oov_rate": (
        "oov_rate",
        "{} of the new words or labels are unknown to the champion",
        "{:.1%}",
    ),
    "drift_mean": ("drift_mean", "the mean of the features drifted by {}", "{:.2f}"),
    "drift_covariance": ("drift_covariance", "the covariance of the features drifted by {}", "{:.2f}"),
}


@dataclass(frozen=True)
class DataDiff:
    """Differences between new data and the champion's training data. A text is a caption or a label.

    Args:
        new_images: Number of images with a new id.
        changed_images: Number of images with a known id and other content.
        new_texts: Number of new or changed texts.
        removed_fraction: Fraction of the champion's images that were removed.
        failure_rate: Fraction of the input records that failed.
        length_change: Relative change of the mean text length; None without new texts.
        oov_rate: Fraction of the words in new captions that are not in the champion's vocabulary, or of the new labels
            that have characters that it cannot output; None without new texts.
        drift_mean: Drift of the mean (`workflows.retraining.drift`); None for fewer than two new images.
        drift_covariance: Drift of the covariance; None for fewer than two new images.
    """

    images: int
    texts: int
    new_images: int
    changed_images: int
    removed_images: int
    new_texts: int
    removed_texts: int
    removed_fraction: float
    failure_rate: float
    length_change: float | None
    oov_rate: float | None
    drift_mean: float | None
    drift_covariance: float | None

    @property
    def new_records(self) -> int:
        """Number of new or changed images and texts."""
        return self.new_images + self.changed_images + self.new_texts


def compare_data(
    store: Store, champion: Run, old: DataSnapshot, moments: Moments | None, new: DataSnapshot, failure_rate: float
) -> DataDiff:
    """Compares the champion's training data with the data to train on.

    `moments` are those of the champion's features; None if they were not recorded.
    """
    old_images, images = old.images(), new.images()
    old_texts, texts = old.texts(), new.texts()
    new_texts = [text for name, text in texts.items() if old_texts.get(name) != text]
    new_keys = [key for name, key in images.items() if old_images.get(name) != key]
    new_moments = compute_moments(store.feature_table(champion.metadata.features.fingerprint), join_keys(new_keys))
    drift = compute_drift(moments, new_moments) if moments and new_moments else None
    removed = sum(name not in images for name in old_images)
    return DataDiff(
        images=len(images),
        texts=len(texts),
        new_images=sum(name not in old_images for name in images),
        changed_images=sum(old_images.get(name, key) != key for name, key in images.items()),
        removed_images=removed,
        new_texts=len(new_texts),
        removed_texts=sum(name not in texts for name in old_texts),
        removed_fraction=removed / max(1, len(old_images)),
        failure_rate=failure_rate,
        length_change=_compare_lengths(champion, list(old_texts.values()), new_texts),
        oov_rate=champion.task.oov_rate(champion, new_texts) if new_texts else None,
        drift_mean=drift.mean if drift else None,
        drift_covariance=drift.covariance if drift else None,
    )


def _compare_lengths(champion: Run, old: list[str], new: list[str]) -> float | None:
    if not old or not new:
        return None

    before, after = (np.mean([champion.task.text_length(text) for text in texts]) for texts in (old, new))
    return float(abs(after / before - 1))


# === Checks ===


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
