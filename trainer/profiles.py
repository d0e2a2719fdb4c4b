"""Profiles of `capt train captcha`: settings that go together, as defaults of a recognizer and its training.

default    100,000 images and more, for the last tenths of a percent
quick      20,000 images, for a first look
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from schemas.errors import UsageError

DEFAULT = "default"
PROFILES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        DEFAULT: MappingProxyType({}),
        "quick": MappingProxyType({"epochs": 12}),
    }
)


def profile_settings(name: str) -> Mapping[str, Any]:
    """The settings of a profile, by the names of their fields; UsageError naming the ones there are."""
    if name not in PROFILES:
        raise UsageError(f"there is no profile {name!r}", where="--profile", mend=f"use one of {', '.join(PROFILES)}")
    return PROFILES[name]
