"""Which split an image belongs to, and which images a limit takes: functions of the image's id, or of its position."""

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from schemas.errors import UsageError

NAMES = ("train", "val", "test")
_DEFAULT_SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Splitter:
    """Assigns splits: the dataset's own where it has one, else by a hash of the image id in the given shares.

    Args:
        own: bool. Whether a dataset's own split counts.
        shares: tuple of float. Shares of train, val and test, adding up to 1.
    """

    own: bool
    shares: tuple[float, float, float] = _DEFAULT_SHARES

    def split_of(self, image_id: str, own: str | None) -> str:
        """The split of an image: `train`, `val`, `test` or, from the dataset alone, `unused`."""
        if not self.is_hashed(own):
            assert own is not None
            return own
        place, bound = _unit(f"split:{image_id}"), 0.0
        for name, share in zip(NAMES, self.shares, strict=True):
            bound += share
            if place < bound:
                return name
        return NAMES[-1]

    def is_hashed(self, own: str | None) -> bool:
        """Whether a hash of the image's id decides, and not the dataset's own split."""
        return not (self.own and own)

    def stated(self, image_id: str, own: str | None) -> str:
        """The split that the input states: its own one, or that of the shares given; empty where it states none."""
        return "" if self.own and not own else self.split_of(image_id, own)


class SplitCounts(NamedTuple):
    """How many images, by position, are train, how many after them val, and how many after those test."""

    train: int
    val: int
    test: int

    def split_of(self, position: int) -> str:
        """The split of the image at a position, from 0; `unused` after all of them."""
        ends = zip(NAMES, accumulate(self), strict=True)
        return next((name for name, end in ends if position < end), "unused")

    @property
    def shares(self) -> tuple[float, float, float]:
        """The counts as shares."""
        total = sum(self)
        return self.train / total, self.val / total, self.test / total


def split_like_published(images: int) -> SplitCounts:
    """So many CAPTCHAs in the shares of the published ones: 100,000, 20,000 and 20,000."""
    labelled, train = images * 6 // 7, images * 5 // 7
    return SplitCounts(train, labelled - train, images - labelled)


def parse_split_sizes(text: str) -> SplitCounts:
    """The counts of `--split-sizes`: train, val and test, such as `100000,20000,20000`."""
    try:
        counts = SplitCounts(*map(int, text.split(",")))
    except (ValueError, TypeError):
        raise UsageError(f"cannot read {text!r}", location="--split-sizes", hint="write 100000,20000,20000") from None
    if min(counts) < 0 or not sum(counts):
        raise UsageError(f"{text} are no counts", location="--split-sizes", hint="write 100000,20000,20000")
    return counts


def parse_split_ratios(text: str) -> Splitter:
    """The splitter of `--split-ratios`: `own`, or three shares such as `0.8,0.1,0.1`."""
    if text == "own":
        return Splitter(own=True)
    try:
        train, val, test = (float(share) for share in text.split(","))
    except ValueError:
        raise UsageError(f"cannot read {text!r}", location="--split-ratios", hint="write own, or 0.8,0.1,0.1") from None
    if not (min(train, val, test) >= 0 and abs(train + val + test - 1) <= 1e-6):
        raise UsageError(f"the shares {text} are not positive or do not add up to 1", location="--split-ratios")
    return Splitter(own=False, shares=(train, val, test))


def compute_rank(seed: int, image_id: str) -> int:
    """Where a limit places an image: limits take the smallest ranks, so that they nest. 0 … 2^62."""
    return int.from_bytes(hashlib.sha256(f"limit:{seed}:{image_id}".encode()).digest()[:8], "big") >> 2


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64
