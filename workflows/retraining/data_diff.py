"""What is new since the champion: records come and gone, what is told of them, and how far their features drifted."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.store import Store
from schemas.table_config import UNKNOWN
from schemas.tables import KEY_BYTES
from trainer.evaluation.paired_evaluation import AnyRun
from trainer.runs.directory import TRANSFORM
from trainer.runs.recognizer_run import RecognizerRun
from workflows.retraining.data_snapshot import DataSnapshot
from workflows.retraining.drift import Drift, Moments, compute_drift, compute_moments

_AT_ONCE = 4096
_FRAME = 2  # start and end tokens of a caption


@dataclass(frozen=True)
class DataDiff:
    """New data beside what the champion saw.

    Args:
        images, told: int. Those there are now: images, and captions or words of them.
        new_images, changed_images, lost_images: int. By their ids; a changed one has another content.
        new_told, lost_told: int. New, changed ones included, and gone.
        lost: float. Share of the champion's images that are gone.
        failed: float. Share of the prepared records that failed.
        length: float or None. Share by which what is newly told is longer or shorter; None where nothing is.
        unknown: float or None. Share of its words that the champion does not know.
        drift_mean, drift_covariance: float or None. As `workflows.retraining.drift`; None for fewer than two new
            images.
    """

    images: int
    told: int
    new_images: int
    changed_images: int
    lost_images: int
    new_told: int
    lost_told: int
    lost: float
    failed: float
    length: float | None
    unknown: float | None
    drift_mean: float | None
    drift_covariance: float | None

    @property
    def new(self) -> int:
        """Images, captions and words that are new or changed."""
        return self.new_images + self.changed_images + self.new_told

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)


def compare_data(
    store: Store, champion: AnyRun, before: DataSnapshot, moments: Moments | None, now: DataSnapshot, failed: float
) -> DataDiff:
    """New data beside what the champion saw.

    Args:
        store: Store. The store.
        champion: CaptionerRun or RecognizerRun. The champion.
        before: Seen. What it saw.
        moments: Moments or None. Those of the features that it saw.
        now: Seen. What there is to learn from now.
        failed: float. Share of the prepared records that failed.
    """
    old_images, images = before.images(), now.images()
    old_told, told = before.told(), now.told()
    new = {name: text for name, text in told.items() if old_told.get(name) != text}
    fresh = [key for name, key in images.items() if old_images.get(name) != key]
    drifted = _drift(store, champion, moments, fresh)
    lost = sum(name not in images for name in old_images)
    return DataDiff(
        images=len(images),
        told=len(told),
        new_images=sum(name not in old_images for name in images),
        changed_images=sum(old_images.get(name, key) != key for name, key in images.items()),
        lost_images=lost,
        new_told=len(new),
        lost_told=sum(name not in told for name in old_told),
        lost=lost / max(1, len(old_images)),
        failed=failed,
        length=_change_of_length(champion, old_told.values(), new.values()),
        unknown=_unknown(champion, list(new.values())),
        drift_mean=drifted.mean if drifted else None,
        drift_covariance=drifted.covariance if drifted else None,
    )


def failure_rate(prepared: Iterable[Mapping[str, Any]]) -> float:
    """Share of the records of some preparations that failed; the worst one's, so that none hides behind another."""
    return max((one["failed"] / max(1, one["input"]) for one in prepared), default=0.0)


def load_moments(store: Store, features: str, seen: DataSnapshot) -> Moments | None:
    """The moments of all images' features."""
    return compute_moments(store.features(features), _keys(set(seen.images().values())))


def _drift(store: Store, champion: AnyRun, moments: Moments | None, fresh: Iterable[bytes]) -> Drift | None:
    new = compute_moments(store.features(champion.metadata.features.fingerprint), _keys(fresh))
    return compute_drift(moments, new) if moments and new else None


def _keys(keys: Iterable[bytes]) -> Any:
    return np.frombuffer(b"".join(sorted(keys)), np.uint8).reshape(-1, KEY_BYTES)


def _change_of_length(champion: AnyRun, before: Iterable[str], new: Iterable[str]) -> float | None:
    count = len if isinstance(champion, RecognizerRun) else lambda text: len(text.split())
    old_lengths, lengths = list(map(count, before)), list(map(count, new))
    if not old_lengths or not lengths:
        return None
    return float(abs(np.mean(lengths) / np.mean(old_lengths) - 1))


def _unknown(champion: AnyRun, texts: list[str]) -> float | None:
    if not texts:
        return None
    if isinstance(champion, RecognizerRun):
        known = set(champion.words)
        return float(np.mean([word not in known for word in texts]))
    return _unknown_words(champion.path / TRANSFORM, texts)


def _unknown_words(transform: Path, texts: list[str]) -> float:
    from features.text.tokenizer import Tokenizer

    tokenizer = Tokenizer(transform)
    unknown = words = 0
    for start in range(0, len(texts), _AT_ONCE):
        tokens = tokenizer.tokenize(texts[start : start + _AT_ONCE])
        unknown += int((tokens.ids == UNKNOWN).sum())
        words += len(tokens.ids) - _FRAME * len(tokens.lengths)
    return unknown / max(1, words)
