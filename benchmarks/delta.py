"""1 % new images: `capt prepare features` over a folder that has grown, beside the run over all of it.

    python benchmarks/delta.py [--photographs 1600] [--rounds 2] [--precision bfloat16|float32]

In turn, each in a process of its own: the full run, into a store that has the network and none of the images; the same
command again after 1 % more images came to the folder; and a run over one image alone, into a store like the first,
which is what start-up takes. What the grown folder costs beyond start-up, as a share of the full run, is to be 3 % at
most.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from begun_store import BegunStore, begin_store
from photographs import write_photographs
from rounds import Work, apart, in_turn, print_rounds, ratio

from schemas.choices import Precision

FULL, GROWN, ONE = "full run", "1 % new", "one image"


@dataclass(frozen=True)
class Folders:
    """A begun store, the folder that grows, and that of one image.

    Args:
        store: BegunStore. To be copied.
        images: Path. The folder that grows.
        count: int. Images that it has at first.
        one: Path. The folder of one image.
    """

    store: BegunStore
    images: Path
    count: int
    one: Path

    @classmethod
    def make(cls, work: Path, precision: Precision, extractor: str, count: int) -> "Folders":
        """Make them in a working directory."""
        write_photographs(work / "images", count)
        write_photographs(work / "one", 1, first=2 * count)
        return cls(begin_store(work, precision, extractor), work / "images", count, work / "one")

    @property
    def new(self) -> int:
        """How many images come to the folder."""
        return -(-self.count // 100)

    def works(self) -> dict[str, Work]:
        """Runs of the whole command, each one's rate in runs a second; the second needs what the first left."""
        filled, begun = (self.store.path.with_name(name) for name in ("filled", "another"))

        def full() -> float:
            for path in sorted(self.images.iterdir())[self.count :]:
                path.unlink()
            return _runs_a_second(self.store.copy(filled), self.images)

        def grown() -> float:
            write_photographs(self.images, self.new, first=self.count)
            return _runs_a_second(replace(self.store, path=filled), self.images)

        return {FULL: full, GROWN: grown, ONE: lambda: _runs_a_second(self.store.copy(begun), self.one)}


def _runs_a_second(store: BegunStore, images: Path) -> float:
    seconds, _ = apart(store.prepare, images)
    return float(1 / seconds)


def shares(rates: dict[str, list[float]]) -> list[float]:
    """What the grown folder cost beyond start-up, as a share of the full run, in each round."""
    rounds = zip(rates[FULL], rates[GROWN], rates[ONE], strict=True)
    return [(1 / grown - 1 / one) * full for full, grown, one in rounds]


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        folders = Folders.make(Path(work), options.precision, options.extractor, options.photographs)
        rates = in_turn(folders.works(), options.rounds)
    each = shares(rates)
    for name, seen in rates.items():
        print(f"{name}: {1 / median(seen):.2f} s", end="; ")
    print(f"\n{folders.new} new images of {folders.count} beyond start-up: {median(each):.2%} of the full run", end=" ")
    print(f"({min(each):.2%} to {max(each):.2%})\n")
    print_rounds("runs", rates, [ratio(rates, FULL, GROWN), ratio(rates, ONE, GROWN)], shares=each)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=1600, help="images of the full run")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", help="directory for stores; default: the system's for temporary files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
