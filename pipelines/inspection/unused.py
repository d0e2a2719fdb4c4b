"""Lists the paths and files that no command uses, each with its problem."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from pipelines.inspection.commands import Placeholder
from pipelines.inspection.contents import Contents
from pipelines.inspection.problems import Problems

# The options whose values are read as annotations, with everything below them.
_SOURCES = ("--annotations", "--labels", "--from-arrays")
# Files that are rarely anything but data. Others are listed if a reader was tried on them.
_TABLES = tuple(f"{suffix}{end}" for suffix in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet") for end in ("", ".gz"))
_NOT_USED = "no command uses it"


class Unused(NamedTuple):
    """A path, a file below one or in an archive, and why no command uses it."""

    path: str
    problem: str


def list_unused(
    paths: Iterable[str], contents: Iterable[Contents], problems: Problems, commands: Iterable[Sequence[str]]
) -> list[Unused]:
    """Returns the named paths of which the commands use nothing, and the other files that they do not use."""
    options = list(_list_options(commands))
    values = {value for _, value in options}
    sources = tuple({value.rstrip("/") for option, value in options if option in _SOURCES})
    named = [path for path in paths if not any(_is_below(value, (path.rstrip("/"),)) for value in values)]
    tables = (one.label_file(file) for one in contents for file in one.find_files(_TABLES))
    others = (path for path in (*problems, *tables) if path not in values and not _is_below(path, sources))
    return [Unused(path, _find_problem(path, problems)) for path in dict.fromkeys([*named, *others])]


def _find_problem(path: str, problems: Problems) -> str:
    """Returns the problem of a path, or that of the first file below it."""
    below = (f"{one}: {problems.choose(one)}" for one in problems if _is_below(one, (path.rstrip("/"),)))
    return problems.choose(path) or next(below, _NOT_USED)


def _list_options(commands: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yields the options of commands with their values, without those that the user replaces."""
    for command in commands:
        for option, value in pairwise(command):
            if option.startswith("--") and not isinstance(value, Placeholder):
                yield option, value


def _is_below(path: str, roots: Sequence[str]) -> bool:
    return any(path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/") for root in roots)
