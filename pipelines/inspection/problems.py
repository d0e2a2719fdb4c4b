"""Collects why files are not read, so that no file of the user is dropped without a word."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.datasets import DATASET_READERS
from pipelines.datasets.annotation_files import remove_gzip_suffix

_URLS = "urls"


class Problems:
    """The problems of readers by path, in the order in which they were found.

    The path of a file in an archive begins with the path of the archive.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, str]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def add(self, path: str, problem: str, dataset_type: str = "") -> None:
        """Adds the problem that the reader of a dataset type has with a path, or that any has; the first one counts."""
        for start in (path, str(Path(path).absolute())):
            problem = problem.removeprefix(f"{start}: ")
        self._found.setdefault(path, {}).setdefault(dataset_type, problem)

    def choose(self, path: str) -> str:
        """Returns the problem that any reader has, or else that of the reader that fits a path best; empty without any.

        Lists of URLs are tried only if there is a column of URLs. Of the others, a reader whose files usually have
        such a name fits best, and then the one that was tried last, which is the most general one.
        """
        tried = reversed(self._found.get(path, {}).items())
        return max(tried, key=lambda one: _rate(one[0], path), default=("", ""))[1]

    def find_best(self) -> tuple[str, str]:
        """Returns the path with the problem of the reader that fits best, and the problem; both empty without any."""
        best = max(self._found, key=self._rate_path, default="")
        return best, self.choose(best)

    def _rate_path(self, path: str) -> tuple[bool, ...]:
        return max(_rate(dataset_type, path)[1:] for dataset_type in self._found[path])


def _rate(dataset_type: str, path: str) -> tuple[bool, bool, bool, bool]:
    pattern = getattr(DATASET_READERS.get(dataset_type), "pattern", None)
    has_usual_name = pattern is not None and pattern.search(remove_gzip_suffix(path)) is not None
    return not dataset_type, dataset_type == _URLS, has_usual_name, dataset_type in DATASET_READERS
