"""Reads the run reports of a dataset: the status of every input record, and failures grouped by reason."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.store.layout import REPORTS
from schemas.errors import CorruptFileError

MAX_EXAMPLES = 3
KEPT_REPORTS = 10


class FailureCounts:
    """Counts failures by stage and reason, with a few examples of each."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[dict[str, str]]] = {}

    def add(self, record: str, stage: str, reason: str, detail: str) -> None:
        """Counts the failure of an image ID, caption ID or content hash, with the columns of the run report."""
        self._counts[stage, reason] += 1
        examples = self._examples.setdefault((stage, reason), [])
        if len(examples) < MAX_EXAMPLES:
            examples.append({"record": record, "detail": detail})

    def to_list(self) -> list[dict[str, Any]]:
        """Returns `stage, reason, count, examples` per kind, most frequent first; an example is `record, detail`."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        names = ("stage", "reason", "count", "examples")
        return [dict(zip(names, (*kind, count, self._examples[kind]), strict=True)) for kind, count in ranked]


def latest_reports(root: Path) -> list[Path]:
    """Returns the newest report of each kind of run, such as `features`, in a dataset's directory."""
    return [paths[-1] for paths in _reports_by_kind(root)]


def old_reports(root: Path) -> list[Path]:
    """Returns the reports that garbage collection may delete: all but the newest ones of each kind of run."""
    return [path for paths in _reports_by_kind(root) for path in paths[:-KEPT_REPORTS]]


def _reports_by_kind(root: Path) -> list[list[Path]]:
    """Returns the reports of each kind of run, oldest first."""
    found: dict[str, list[Path]] = {}
    for path in sorted((root / REPORTS).glob("**/*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path)):
        found.setdefault(path.stem, []).append(path)
    return [found[kind] for kind in sorted(found)]


def summarize_report(path: Path) -> dict[str, Any]:
    """Returns `input`, the number of records per status, and `failures` as in `FailureCounts.to_list`.

    Raises:
        CorruptFileError: The file is not a run report.
    """
    statuses, failures = Counter({"ok": 0, "cached": 0, "duplicate": 0, "failed": 0}), FailureCounts()
    columns = ["status", "record", "stage", "reason", "detail"]
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            for batch in file.iter_batches(columns=columns):
                for status, *failure in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                    statuses[status] += 1
                    if status == "failed":
                        failures.add(*failure)
    except (pa.ArrowException, OSError, KeyError) as error:
        message, hint = f"the run report is corrupt: {error}", "Delete the file. Nothing depends on it."
        raise CorruptFileError(message, location=str(path), hint=hint) from None
    return {"input": statuses.total(), **statuses, "failures": failures.to_list()}
