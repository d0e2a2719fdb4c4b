"""Benchmark: `capt prepare features` after a directory has grown by 1%, relative to the full run.

    python benchmarks/incremental.py [--photographs 1600] [--rounds 2] [--precision bfloat16|float32]

In turn, each in a process of its own: the full run, into a store with the graph but without the images; the same
command after 1% new images were added; and a run over one image into a store like the first, which measures start-up.
The goal: without start-up, the grown directory costs at most 3% of the full run.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from photographs import write_photographs
from prepared_store import PreparedStore, prepare_store
from timing import Work, measure_in_turn, print_rounds, ratio, run_in_process

from schemas.choices import Precision

FULL, GROWN, ONE = "full run", "1% new", "one image"


@dataclass(frozen=True)
class Folders:
    """A store, a growing directory of images, and a directory of one image.

    Args:
        store: Store to copy.
        images: Directory that grows.
        count: Initial number of images in it.
        one: Directory of one image.
    """

    store: PreparedStore
    images: Path
    count: int
    one: Path

    @classmethod
    def make(cls, work: Path, precision: Precision, extractor: str, count: int) -> "Folders":
        """Creates the store and the directories in a working directory."""
        write_photographs(work / "images", count)
        write_photographs(work / "one", 1, first=2 * count)
        return cls(prepare_store(work, precision, extractor), work / "images", count, work / "one")

    @property
    def new(self) -> int:
        """Number of new images."""
        return -(-self.count // 100)

    def works(self) -> dict[str, Work]:
        """Returns runs of the whole command, in runs per second. The second needs the result of the first."""
        filled, begun = (self.store.path.with_name(name) for name in ("filled", "another"))

        def full() -> float:
            for path in sorted(self.images.iterdir())[self.count :]:
                path.unlink()
            return _runs_per_second(self.store.copy(filled), self.images)

        def grown() -> float:
            write_photographs(self.images, self.new, first=self.count)
            return _runs_per_second(replace(self.store, path=filled), self.images)

        return {FULL: full, GROWN: grown, ONE: lambda: _runs_per_second(self.store.copy(begun), self.one)}


def _runs_per_second(store: PreparedStore, images: Path) -> float:
    seconds, _ = run_in_process(store.prepare, images)
    return float(1 / seconds)


def compute_fractions(rates: dict[str, list[float]]) -> list[float]:
    """Returns, per round, the cost of the grown directory without start-up as a fraction of the full run."""
    rounds = zip(rates[FULL], rates[GROWN], rates[ONE], strict=True)
    return [(1 / grown - 1 / one) * full for full, grown, one in rounds]


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        folders = Folders.make(Path(work), options.precision, options.extractor, options.photographs)
        rates = measure_in_turn(folders.works(), options.rounds)
    each = compute_fractions(rates)
    for name, seen in rates.items():
        print(f"{name}: {1 / median(seen):.2f} s", end="; ")
    print(
        f"\n{folders.new} new images of {folders.count} without start-up: {median(each):.2%} of the full run", end=" "
    )
    print(f"({min(each):.2%} to {max(each):.2%})\n")
    print_rounds("runs", rates, [ratio(rates, FULL, GROWN), ratio(rates, ONE, GROWN)], shares=each)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=1600, help="images of the full run")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", help="directory for stores; default: the system's temporary directory")
    return parser.parse_args()


if __name__ == "__main__":
    main()
