"""Orders names as people number them: a2 before a10."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

_DIGITS = re.compile(r"([0-9]{1,100})")
_NUMBERED = re.compile(r"([^0-9]*)([0-9]{1,100})")


def natural_key(name: str) -> tuple[str | int, ...]:
    """Returns the sort key of a name: numbers in it are compared as numbers."""
    parts = _DIGITS.split(name)
    return (*(int(part) if number % 2 else part for number, part in enumerate(parts)), name)


def read_numbers(names: Sequence[str]) -> list[int] | None:
    """Returns the numbers of files that are named `a0.png`, `a1.png`, …, in order; None for other names."""
    matches = [_NUMBERED.fullmatch(PurePosixPath(name).stem) for name in names]
    found = [match for match in matches if match]
    if not found or len(found) < len(matches) or len({match[1] for match in found}) > 1:
        return None
    return sorted(int(match[2]) for match in found)


def find_gap(numbers: Sequence[int]) -> tuple[int, int] | None:
    """Returns the first two neighbours of ordered numbers that do not follow each other; None without a gap."""
    return next((pair for pair in pairwise(numbers) if pair[1] != pair[0] + 1), None)
