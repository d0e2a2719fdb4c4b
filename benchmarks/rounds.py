"""Rounds: ours and its peers in turn, so that what else the machine does falls on all alike, and what came of it.

Every work is a function that does one round and returns its rate, in whatever it makes a second. What it needs only
once it has before. A ratio is that of two medians of one run; its range is that of the rounds' own ratios.
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
    """How many times as fast one work is as another.

    Args:
        one: str. The work above the line.
        other: str. The work below it.
        median: float. Of one's median rate to the other's.
        least: float. The smallest ratio of a round.
        most: float. The largest.
    """

    one: str
    other: str
    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"| {self.one} : {self.other} | {self.median:.3g} | {self.least:.3g}–{self.most:.3g} |"


def in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """The rates of every work in each round, after one that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            rate = work()
            if number:
                rates[name].append(rate)
            print(f"{'warm-up' if not number else f'round {number}'}: {name}: {_shown(rate)}/s", file=sys.stderr)
    return rates


def ratio(rates: Rates, one: str, other: str) -> Ratio:
    """How many times as fast `one` is as `other`."""
    each = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
    return Ratio(one, other, median(rates[one]) / median(rates[other]), min(each), max(each))


def apart(work: Callable[..., Any], *given: Any) -> tuple[Any, int]:
    """What a module's function returns in a fresh process, and the most memory the process held, in bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, work, given).result()


def _with_peak(work: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Any, int]:
    result = work(*given)
    return result, max(_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def _own_peak() -> int:
    """The most memory that this process held, in KiB; `getrusage` begins with what the one that started it held."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def print_rounds(unit: str, rates: Rates, ratios: Sequence[Ratio], **more: Any) -> None:
    """Two Markdown tables, rates and ratios, the machine, and last one line of JSON."""
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
    """The processor, how many of its cores there are, and how busy they are."""
    return f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
