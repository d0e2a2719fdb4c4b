"""Orders names as people number them: a2 before a10."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

_DIGITS = re.compile(r"([0-9]{1,100})")
_NUMBERED = re.compile(r"([^0-9]*)([0-9]{1,100})")
_MIN_NUMBERED = 3
# Numbered files of which some are missing have nearly all numbers. Numeric labels rarely do.
_DENSE = 0.95


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Returns the sort key of a name: numbers in it are compared as numbers."""
    parts = _DIGITS.split(name)
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts)), name


def read_numbers(names: Sequence[str]) -> list[int] | None:
    """Returns the numbers of files that are named `a0.png`, `a1.png`, … in any directory; None for other names."""
    matches = _match_numbers(names)
    return None if matches is None else [int(match[2]) for match in matches]


def are_only_numbered(names: Sequence[str]) -> bool:
    """Returns whether three or more files have names that count them: `a0.png`, `a7.png`, …, or most of 0, 1, 2, …."""
    matches = _match_numbers(names)
    numbers = sorted({int(match[2]) for match in matches or ()})
    if not matches or len(numbers) < _MIN_NUMBERED:
        return False
    return bool(matches[0][1]) or len(numbers) >= _DENSE * (numbers[-1] - numbers[0] + 1)


def _match_numbers(names: Sequence[str]) -> list[re.Match[str]] | None:
    """Matches names of an equal prefix and a number; None if one is no such name, or there is none."""
    matches = [_NUMBERED.fullmatch(PurePosixPath(name).stem) for name in names]
    found = [match for match in matches if match]
    is_numbered = len(found) == len(matches) and len({match[1] for match in found}) == 1
    return found if is_numbered else None


def find_gap(numbers: Sequence[int]) -> tuple[int, int] | None:
    """Returns the first two neighbours of numbers that do not follow each other; None without a gap."""
    return next((pair for pair in pairwise(numbers) if pair[1] != pair[0] + 1), None)
