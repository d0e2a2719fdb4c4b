"""Lists the paths and files that no command uses, each with its problem."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from pipelines.datasets import DATASET_READERS
from pipelines.datasets.annotation_files import remove_gzip_suffix
from pipelines.datasets.label_sources import LABEL_FILE
from pipelines.inspection.commands import Placeholder
from pipelines.inspection.contents import Contents, find_distinct, identify_path
from pipelines.inspection.problems import Problems

# The options whose values are files to read, or contain them, and which of these are read; None: the dataset type's.
_SOURCES: dict[str, re.Pattern[str] | None] = {
    "--annotations": None,
    "--labels": LABEL_FILE,
    "--from-arrays": re.compile(r"\.npy$", re.IGNORECASE),
}
# Files that are rarely anything but data. Others are listed if a reader was tried on them.
_TABLES = tuple(f"{suffix}{end}" for suffix in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet") for end in ("", ".gz"))
_NOT_USED = "no command uses it"


class Unused(NamedTuple):
    """A path, a file below one or in an archive, and why no command uses it."""

    path: str
    problem: str


class _Option(NamedTuple):
    """An option of the command of a dataset type, which is empty without one. The value is an absolute path."""

    option: str
    value: str
    dataset_type: str

    def reads(self, path: str) -> bool:
        """Returns whether the command reads a path: the value, or a file below it of a name that the type reads."""
        if path == self.value:
            return True
        pattern = _SOURCES[self.option] or getattr(DATASET_READERS.get(self.dataset_type), "pattern", None)
        return _is_below(path, self.value) and (not pattern or bool(pattern.search(remove_gzip_suffix(path))))


def list_unused(
    paths: Iterable[str], contents: Iterable[Contents], problems: Problems, commands: Iterable[Sequence[str]]
) -> list[Unused]:
    """Returns the named paths of which the commands use nothing, and the other files that they do not use."""
    options = [one for command in commands for one in _list_options(command)]
    values = {one.value for one in options}
    sources = {one for one in options if one.option in _SOURCES}
    named = [path for path in paths if not any(_is_below(value, identify_path(path)) for value in values)]
    files = [*problems, *(one.label_file(file) for one in contents for file in one.find_files(_TABLES))]
    read = (path in values or any(one.reads(path) for one in sources) for path in map(identify_path, files))
    others = [path for path, is_read in zip(files, read, strict=True) if not is_read]
    return [Unused(path, _find_problem(path, problems)) for path in find_distinct([*named, *others])]


def _find_problem(path: str, problems: Problems) -> str:
    """Returns the problem of a path, or that of the first file below it."""
    below = (f"{one}: {problems.choose(one)}" for one in problems if _is_below(one, path))
    return problems.choose(path) or next(below, _NOT_USED)


def _list_options(command: Sequence[str]) -> Iterator[_Option]:
    """Yields the options of a command that name paths, without those that the user replaces."""
    pairs = [(option, value) for option, value in pairwise(command) if option.startswith("--")]
    dataset_type = dict(pairs).get("--dataset-type", "")
    for option, value in pairs:
        if option in (*_SOURCES, "--images") and not isinstance(value, Placeholder):
            yield _Option(option, identify_path(value), dataset_type)


def _is_below(path: str, root: str) -> bool:
    """Returns whether a path is a root or below it."""
    return f"{path}/".startswith(f"{root.rstrip('/')}/")
