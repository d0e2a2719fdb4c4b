"""Measures functions in turn, so that other load on the machine affects all alike, and prints their ratios.

A measured function runs one round and returns its rate per second. Its set-up runs before. A ratio compares the medians
of one run; its range is that of the ratios per round.
"""

import json
import os
import platform
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

Work = Callable[[], float]
Rates = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Ratio:
    """The speed of one function relative to another.

    Args:
        one: Name of the numerator.
        other: Name of the denominator.
        median: Ratio of the median rates.
        least: Smallest ratio of a round.
        most: Largest ratio of a round.
    """

    one: str
    other: str
    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"| {self.one} : {self.other} | {self.median:.3g} | {self.least:.3g}–{self.most:.3g} |"


def measure_in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Returns the rates of each function per round, after a warm-up round."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            rate = work()
            if number:
                rates[name].append(rate)
            print(f"{'warm-up' if not number else f'round {number}'}: {name}: {_shown(rate)}/s", file=sys.stderr)
    return rates


def ratio(rates: Rates, one: str, other: str) -> Ratio:
    """Returns the speed of `one` relative to `other`."""
    each = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
    return Ratio(one, other, median(rates[one]) / median(rates[other]), min(each), max(each))


def run_in_process(work: Callable[..., Any], *given: Any) -> tuple[Any, int]:
    """Runs a function of a module in a new process; also returns the peak memory of the process in bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, work, given).result()


def _with_peak(work: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Any, int]:
    result = work(*given)
    return result, max(_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def _own_peak() -> int:
    """Returns the peak memory of this process in KiB; `getrusage` includes that of the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def print_rounds(unit: str, rates: Rates, ratios: Sequence[Ratio], **more: Any) -> None:
    """Prints the rates, the ratios and the machine as Markdown, and all of it as one line of JSON."""
    print(f"| work | {unit}/s, median | range |\n|---|---|---|")
    for name, seen in rates.items():
        print(f"| {name} | {_shown(median(seen))} | {_shown(min(seen))}–{_shown(max(seen))} |")
    print("\n| ratio | of medians | range of rounds |\n|---|---|---|")
    print(*ratios, sep="\n")
    print(f"\n{machine()}")
    print(json.dumps({"unit": unit, "rates": rates, "ratios": [asdict(one) for one in ratios], **more}))


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def machine() -> str:
    """Returns the processor, its number of cores and its load."""
    return f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
