"""Contains the joined data of a training run by split, for every task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.store.merge import as_keys
from schemas.errors import CaptError
from schemas.tables import SPLITS
from trainer.data.table_selection import TrainingTables

USED_SPLITS = tuple(split for split in SPLITS if split != "unused")
_HELD_OUT = ("val", "test")


class SplitData(Protocol):
    """The records of one split, in the order of their images' content hashes."""

    @property
    def keys(self) -> NDArray[np.uint8]:
        """The content hashes of the images, uint8 [N, 32]."""

    @property
    def max_length(self) -> int:
        """The length of the longest target."""

    @property
    def digest(self) -> str:
        """SHA-256 of images and targets. Equal data has equal digests."""

    def __len__(self) -> int:
        """Returns the number of records."""


AnySplit = TypeVar("AnySplit", bound=SplitData)


@dataclass(frozen=True)
class TrainingData(Generic[AnySplit]):
    """All records that a run can use, of train, val and test.

    `skipped` counts unusable records per reason and split, such as `{"without_features": {"train": 3}}`. `validate_on`
    is the split to validate on if it has records.
    """

    splits: dict[str, AnySplit]
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    validate_on: str = "val"

    @property
    def train(self) -> AnySplit:
        """The records to train on."""
        return self.splits["train"]

    @property
    def validation_split(self) -> str | None:
        """The split to validate on: `validate_on`, else test, else None."""
        return next((split for split in (self.validate_on, "test") if len(self.splits[split])), None)

    @property
    def max_length(self) -> int:
        """The length of the longest target in the train and validation splits."""
        return max(self.splits[split].max_length for split in ("train", self.validation_split) if split)

    def count_shared_images(self) -> int:
        """Returns the number of train images that are also in val or test."""
        held_out = np.concatenate([as_keys(self.splits[split].keys) for split in _HELD_OUT])
        return int(np.isin(as_keys(self.train.keys), held_out).sum())


def no_training_data(tables: TrainingTables, num_without_features: int, records: str, hint: str) -> CaptError:
    """Returns the error for a train split without usable `records`; `hint` is for a split without any records."""
    names = ", ".join(dataset.name for dataset in tables.datasets)
    if not num_without_features:
        return CaptError(f"the train split has no {records}", location=names, hint=hint)
    return CaptError(
        f"the feature table has no features for any of the {num_without_features} {records} of the train split",
        location=names,
        hint="Prepare the images of the train split, or choose another --feature-table.",
    )
