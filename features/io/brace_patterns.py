"""Expands brace patterns in paths and URIs, such as `{00000..00099}.tar`, as a shell does."""

import re
from collections.abc import Iterator

from schemas.errors import UsageError

MAX_PATHS = 1_000_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def expand_braces(pattern: str) -> list[str]:
    """Returns the paths of a pattern in its order; the pattern itself if it has no range or list.

    `{008..010}` is a range of numbers of equal width, `{0..10}` one without zeros before them, `{a,b}` a list.
    UsageError for more than `MAX_PATHS` paths.
    """
    paths: list[str] = []
    for path in _expand(pattern):
        if len(paths) == MAX_PATHS:
            message = f"the pattern has more than {MAX_PATHS:,} paths"
            raise UsageError(message, location=pattern, hint="Name the directory instead.")
        paths.append(path)
    return paths


def has_braces(text: str) -> bool:
    """Returns whether a text has a range or list in braces."""
    return any(_has_choices(match) for match in _BRACES.finditer(text))


def _expand(pattern: str) -> Iterator[str]:
    match = next(filter(_has_choices, _BRACES.finditer(pattern)), None)
    if match is None:
        yield pattern
        return
    for choice in _list_choices(match[1]):
        for rest in _expand(pattern[match.end() :]):
            yield f"{pattern[: match.start()]}{choice}{rest}"


def _has_choices(match: re.Match[str]) -> bool:
    return "," in match[1] or _RANGE.fullmatch(match[1]) is not None


def _list_choices(text: str) -> Iterator[str]:
    found = _RANGE.fullmatch(text)
    if found is None:
        yield from text.split(",")
        return
    first, last = found.groups()
    is_padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    step = 1 if int(first) <= int(last) else -1
    for number in range(int(first), int(last) + step, step):
        yield f"{number:0{width}d}"
