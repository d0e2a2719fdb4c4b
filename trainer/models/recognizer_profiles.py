"""Profiles of `capt train captcha`: settings that go together, as defaults of a recognizer and its training.

default    100,000 images and more, for the last tenths of a percent
quick      20,000 images, for a first look
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from schemas.errors import UsageError

DEFAULT = "default"

_COMMON = {
    "batch_size": 32,
    "learning_rate": 1.5e-3,
    "lr_schedule": "cosine",
    "warmup_steps": 100,
    "weight_decay": 0.01,
    "global_clipnorm": 5.0,
    "precision": "auto",
    "augment_translation": 0.05,
    "augment_zoom": 0.1,
    "augment_channel_permutation": True,
}
PROFILES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        DEFAULT: MappingProxyType({**_COMMON, "epochs": 12, "num_validation_images": 5000}),
        "quick": MappingProxyType({**_COMMON, "epochs": 10, "num_validation_images": 2000}),
    }
)


def profile_settings(name: str) -> Mapping[str, Any]:
    """The settings of a profile, by the names of their fields; UsageError naming the ones there are."""
    if name not in PROFILES:
        raise UsageError(
            f"there is no profile {name!r}", location="--profile", hint=f"use one of {', '.join(PROFILES)}"
        )
    return PROFILES[name]
