"""Assigns images to splits, and ranks them for limits: functions of the image ID or of the position."""

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from schemas.defaults import SPLIT_RATIOS
from schemas.errors import UsageError

NAMES = ("train", "val", "test")
_SIZES_HINT = "Write 100000,20000,20000, for example."


@dataclass(frozen=True)
class Splitter:
    """Assigns splits: the published split if `own` and the image has one, otherwise one by a hash.

    The hash is that of the image ID, or of the image's group if it has one. `ratios` are the fractions of train, val
    and test. Their sum is 1.
    """

    own: bool
    ratios: tuple[float, float, float] = SPLIT_RATIOS

    def assign(self, image_id: str, published: str | None) -> str:
        """Returns the split of an image: `train`, `val`, `test` or, only if published, `unused`."""
        if not self.is_hashed(published):
            assert published is not None
            return published
        position = _hash(f"split:{image_id}") / 2.0**64
        bounds = zip(NAMES, accumulate(self.ratios), strict=True)
        # The sum of the fractions may be a little less than 1.
        last = max(number for number, ratio in enumerate(self.ratios) if ratio)
        return next((name for name, bound in bounds if position < bound), NAMES[last])

    def is_hashed(self, published: str | None) -> bool:
        """Returns whether the hash of the image ID determines the split."""
        return not (self.own and published)

    def find_stated(self, image_id: str, published: str | None) -> str:
        """Returns the split that the input or `--split-ratios` states; empty if neither states one."""
        return "" if self.own and not published else self.assign(image_id, published)


class SplitCounts(NamedTuple):
    """Number of images per split: the first `train` images, then `val`, then `test`."""

    train: int
    val: int
    test: int

    def assign(self, position: int) -> str:
        """Returns the split of the image at a position from 0; `unused` after the last split."""
        ends = zip(NAMES, accumulate(self), strict=True)
        return next((name for name, end in ends if position < end), "unused")

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The counts as fractions of their sum."""
        total = sum(self)
        return self.train / total, self.val / total, self.test / total


def split_like_published(images: int) -> SplitCounts:
    """Divides CAPTCHAs in the ratio of the published dataset: 100,000, 20,000 and 20,000."""
    labelled, train = images * 6 // 7, images * 5 // 7
    return SplitCounts(train, labelled - train, images - labelled)


def parse_split_sizes(text: str) -> SplitCounts:
    """Parses `--split-sizes`: train, val and test, such as `100000,20000,20000`."""
    try:
        counts = SplitCounts(*map(int, text.split(",")))
    except (ValueError, TypeError):
        raise UsageError(f"cannot parse {text!r}", location="--split-sizes", hint=_SIZES_HINT) from None
    if min(counts) < 0 or not sum(counts):
        raise UsageError(f"{text} must be positive numbers", location="--split-sizes", hint=_SIZES_HINT)
    return counts


def check_counts(counts: SplitCounts, images: int) -> SplitCounts:
    """Returns the counts; UsageError if they need more images than there are."""
    if sum(counts) > images:
        message = f"the splits need {sum(counts):,} images, and there are {images:,}"
        raise UsageError(message, location="--split-sizes", hint="Use smaller sizes.")
    return counts


def parse_split_ratios(text: str) -> Splitter:
    """Parses `--split-ratios`: `own`, or the fractions of train, val and test, such as `0.8,0.1,0.1`.

    Two fractions are those of train and val.
    """
    if text == "own":
        return Splitter(own=True)
    hint = "Write own, 0.8,0.1,0.1, or 0.8,0.2 for train and val."
    try:
        train, val, test = map(float, text.split(",") if text.count(",") != 1 else [*text.split(","), "0"])
    except ValueError:
        raise UsageError(f"cannot parse {text!r}", location="--split-ratios", hint=hint) from None
    if not (min(train, val, test) >= 0 and abs(train + val + test - 1) <= 1e-6):
        message = f"the fractions {text} are negative, or their sum is not 1"
        raise UsageError(message, location="--split-ratios", hint=hint)
    return Splitter(own=False, ratios=(train, val, test))


def compute_rank(seed: int, image_id: str) -> int:
    """Returns the rank of an image, 0 to 2^62. Limits select the smallest ranks, so a larger limit adds images."""
    return _hash(f"limit:{seed}:{image_id}") >> 2


def compute_caption_rank(seed: int, image_id: str, caption_id: str) -> int:
    """Returns the rank of a caption, 0 to 2^62. A sample has the smallest ranks, so a larger sample adds captions."""
    return _hash(f"caption:{seed}:{image_id}\0{caption_id}") >> 2


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
