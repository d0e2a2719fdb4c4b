"""Benchmark: cost of `capt prepare features` for 1×, 4× and 16× the images, with one and with two workers.

    python benchmarks/scaling.py [--photographs 32] [--rounds 2] [--precision bfloat16|float32]

Each run is the whole command with start-up, in a process of its own, into a store with the graph. If the cost is
linear, an additional image costs the same at each size and memory is constant. Two workers are two processes of Beam's
local runner; each graph uses all cores. The reported memory is that of the largest process.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from photographs import write_photographs
from prepared_store import PreparedStore, prepare_store
from timing import measure_in_turn, print_rounds, ratio, run_in_process

TIMES = (1, 4, 16)
WORKERS: dict[int, tuple[str, ...]] = {1: (), 2: ("--direct_num_workers=2", "--direct_running_mode=multi_processing")}
_SHARDS = 2  # work units, which workers share


@dataclass(frozen=True)
class Run:
    """A run of the whole command over a directory of images.

    Args:
        store: Store to copy.
        images: Directory of images.
        count: Number of images.
        workers: Number of extracting processes.
        peaks: Peak memory of the largest process per call, in bytes.
    """

    store: PreparedStore
    images: Path
    count: int
    workers: int
    peaks: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.count} images, {self.workers} worker{'s' * (self.workers > 1)}"

    def __call__(self) -> float:
        """Returns images per second."""
        store = self.store.copy(self.store.path.with_name("grown"))
        seconds, peak = run_in_process(store.prepare, self.images, _SHARDS, WORKERS[self.workers])
        self.peaks.append(peak)
        return self.count / float(seconds)


def make(work: Path, precision: Any, extractor: str, count: int) -> list[Run]:
    """Returns the runs, sorted by workers and images."""
    store = prepare_store(work, precision, extractor)
    folders = {count * times: work / f"{times}x" for times in TIMES}
    for images, folder in folders.items():
        write_photographs(folder, images)
    return [Run(store, folder, images, workers) for workers in WORKERS for images, folder in folders.items()]


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        runs = make(Path(work), options.precision, options.extractor, options.photographs)
        rates = measure_in_turn({run.name: run for run in runs}, options.rounds)
    print("| images | workers | seconds, median | ms per additional image | peak memory, MiB |\n|---|---|---|---|---|")
    for workers in WORKERS:
        _print_rows([run for run in runs if run.workers == workers], rates)
    print()
    pairs = [(many.name, few.name) for few, many in zip(runs[: len(TIMES)], runs[len(TIMES) :], strict=True)]
    peaks = {run.name: run.peaks for run in runs}
    print_rounds("images", rates, [ratio(rates, *pair) for pair in pairs], precision=options.precision, peaks=peaks)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=32, help="number of images of the smallest run")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", help="directory for stores; default: the system's temporary directory")
    return parser.parse_args()


def _print_rows(runs: Sequence[Run], rates: dict[str, list[float]]) -> None:
    before_count, before_seconds = 0, 0.0
    for run in runs:
        seconds = run.count / median(rates[run.name])
        further = f"{1000 * (seconds - before_seconds) / (run.count - before_count):.1f}" if before_count else ""
        print(f"| {run.count} | {run.workers} | {seconds:.1f} | {further} | {max(run.peaks) / 2**20:,.0f} |")
        before_count, before_seconds = run.count, seconds


if __name__ == "__main__":
    main()
