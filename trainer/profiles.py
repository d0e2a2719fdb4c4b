"""Declares the profiles of recognizers: default hyperparameters for an accuracy and a training time."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

DEFAULT_PROFILE = "default"

_MAX_EPOCHS = 2000  # of sets of a few images

_TRAINING: Mapping[str, Any] = (
    {"batch_size": 32, "learning_rate": 1.5e-3, "lr_schedule": "cosine", "warmup_steps": 100}
    | {"weight_decay": 0.01, "global_clipnorm": 5.0, "precision": "auto"}
    | {"augment_translation": 0.05, "augment_zoom": 0.1, "augment_channel_permutation": True}
)
# Channels per stage, by the least number of train images. Smaller models train faster.
_FILTERS: Mapping[int, tuple[int, ...]] = {0: (16, 32, 64), 5_000: (24, 48, 96), 20_000: (32, 64, 128)}
_WIDE_FILTERS: Mapping[int, tuple[int, ...]] = {0: (24, 48, 96), 5_000: (32, 64, 128), 20_000: (48, 96, 192)}


@dataclass(frozen=True)
class TrainingProfile:
    """Default hyperparameters of a recognizer and its training.

    Some follow from the number of train images n. Training reads `first_images` + `passes` · n images: a recognizer
    recognizes its first labels after about 20,000 images, however few of them are distinct, so small sets need more
    epochs.

    Args:
        training: Hyperparameters of training, by name.
        first_images: Number of images that training reads regardless of n.
        passes: Number of further passes over the train images.
        filters: Hyperparameter `filters`, by the least n.
    """

    training: Mapping[str, Any]
    first_images: int
    passes: int
    filters: Mapping[int, tuple[int, ...]]

    def count_epochs(self, train_images: int, images_per_epoch: int) -> int:
        """Returns the number of epochs for a number of train images, from 1 to 2,000."""
        epochs = round((self.first_images + self.passes * train_images) / images_per_epoch)
        return min(max(1, epochs), _MAX_EPOCHS)

    def choose_filters(self, train_images: int) -> tuple[int, ...]:
        """Returns the numbers of channels per stage for a number of train images."""
        return self.filters[max(least for least in self.filters if least <= train_images)]


PROFILES: Mapping[str, TrainingProfile] = MappingProxyType(
    {
        DEFAULT_PROFILE: TrainingProfile(
            {**_TRAINING, "num_validation_images": 5000}, first_images=80_000, passes=11, filters=_FILTERS
        ),
        "quick": TrainingProfile(
            {**_TRAINING, "num_validation_images": 2000}, first_images=60_000, passes=7, filters=_FILTERS
        ),
        "best": TrainingProfile(
            {**_TRAINING, "num_validation_images": 5000}, first_images=160_000, passes=20, filters=_WIDE_FILTERS
        ),
    }
)
