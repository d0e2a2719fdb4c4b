"""Run reports: what became of the records of a dataset's last runs, and failures grouped by reason."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.store.layout import REPORTS
from schemas.errors import CorruptFileError

EXAMPLES = 3
KEPT_REPORTS = 10


class Failures:
    """Failures counted by stage and reason; the first few of each kind are kept as examples."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[dict[str, str]]] = {}

    def add(self, record: str, stage: str, reason: str, detail: str) -> None:
        """Count one failure of `record`, an image's id or content key or a caption's id; the rest as in a report."""
        self._counts[stage, reason] += 1
        examples = self._examples.setdefault((stage, reason), [])
        if len(examples) < EXAMPLES:
            examples.append({"record": record, "detail": detail})

    def figures(self) -> list[dict[str, Any]]:
        """`stage, reason, count, examples` of each kind, the most frequent first; an example is `record, detail`."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [
            {"stage": kind[0], "reason": kind[1], "count": count, "examples": self._examples[kind]}
            for kind, count in ranked
        ]


def last_reports(root: Path) -> list[Path]:
    """The newest report of each kind of run, such as `features` and `captions`, by kind.

    Args:
        root: Path. The dataset's directory; it need not have a commit.
    """
    return [paths[-1] for paths in _by_kind(root)]


def old_reports(root: Path) -> list[Path]:
    """Returns the reports that garbage collection may delete: all but the newest of each kind of run.

    Args:
        root: The dataset's directory.

    Returns:
        The files.
    """
    return [path for paths in _by_kind(root) for path in paths[:-KEPT_REPORTS]]


def _by_kind(root: Path) -> list[list[Path]]:
    """The reports of each kind of run, oldest first, in the order of the kinds."""
    found: dict[str, list[Path]] = {}
    for path in sorted((root / REPORTS).glob("**/*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path)):
        found.setdefault(path.stem, []).append(path)
    return [found[kind] for kind in sorted(found)]


def report_figures(path: Path) -> dict[str, Any]:
    """`input`, how many records have each status, and the failures by reason.

    Raises:
        CorruptFileError: the file is no run report.
    """
    statuses, failures = Counter({"ok": 0, "cached": 0, "duplicate": 0, "failed": 0}), Failures()
    try:
        for status, *failure in _rows(path):
            statuses[status] += 1
            if status == "failed":
                failures.add(*failure)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CorruptFileError(
            f"the run report is damaged: {error}", location=str(path), hint="delete it; nothing depends on it"
        ) from None
    return {"input": statuses.total(), **statuses, "failures": failures.figures()}


def _rows(path: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """The columns `status, record, stage, reason, detail` of each record."""
    columns = ("status", "record", "stage", "reason", "detail")
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        for batch in file.iter_batches(columns=list(columns)):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
