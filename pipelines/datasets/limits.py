"""Parses the limits of a job: how many images and captions are used, and which ones."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from schemas.choices import Split
from schemas.errors import UsageError
from schemas.options.prepare import PrepareCaptions, PrepareFeatures

_SPLITS = get_args(Split)


@dataclass(frozen=True)
class Limits:
    """The records that a job uses; None, and a split without an entry, have no limit.

    Attributes:
        images: Maximum number of images.
        images_by_split: Maximum number of images of a split.
        captions: Maximum number of captions of the selected images.
        sampled_captions: Number of captions that are sampled from those of the selected images.
    """

    images: int | None = None
    images_by_split: Mapping[str, int] = field(default_factory=dict)
    captions: int | None = None
    sampled_captions: int | None = None


def parse_limits(options: PrepareFeatures | PrepareCaptions) -> Limits:
    """Returns the limits that the options state. UsageError if one is invalid, or two exclude each other."""
    if options.limit_captions is not None and options.sample_captions is not None:
        hint = "Omit one of the two."
        raise UsageError("not valid with --limit-captions", location="--sample-captions", hint=hint)
    images, by_split = _parse_images(options.limit_images)
    return Limits(images, by_split, options.limit_captions, options.sample_captions)


def _parse_images(limit: int | str | None) -> tuple[int | None, dict[str, int]]:
    if limit is None or isinstance(limit, int):
        return limit, {}
    if re.fullmatch("[0-9]+", limit):
        if not int(limit):
            raise _error("expected at least 1, got 0")
        return int(limit), {}
    counts: dict[str, int] = {}
    for part in limit.split(","):
        split, equals, count = (text.strip() for text in part.partition("="))
        if not equals or not re.fullmatch("[0-9]+", count):
            raise _error(f"cannot parse {limit!r}")
        if split not in _SPLITS:
            raise _error(f"there is no split {split!r}", f"Use one of {', '.join(_SPLITS)}.")
        if split in counts:
            raise _error(f"{limit!r} names {split} twice")
        counts[split] = int(count)
    return None, counts


def _error(message: str, hint: str = "Write 1000, or train=10000,val=5000.") -> UsageError:
    return UsageError(message, location="--limit-images", hint=hint)
