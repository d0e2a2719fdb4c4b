"""Work plans: directories with the work units of a job, small results, and progress.

    <plan>/units/00003.parquet    the references of one unit
    <plan>/done/00003.json        its result, written once and only after its output is durable
    <plan>/progress/00003         number of processed records, for the progress bar on the same machine

A unit with a result is done, so an interrupted job resumes. If two workers process a unit, the first result is used.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.io.atomic_files import atomic_write, hold_local_copy, working_path

_PROGRESS_SECONDS = 0.3
_ROWS_PER_WRITE = 4096
_ROWS_PER_READ = 1024

# Adds numbers of processed and of failed records to the progress of a unit.
Advance = Callable[[int, int], None]
# Processes the unit at a path, and returns its result.
Worker = Callable[[Path, Advance], bytes]


def write_unit(plan: Path, name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes the references of one unit as Parquet."""
    remaining = iter(rows)
    chunks = iter(lambda: list(islice(remaining, _ROWS_PER_WRITE)), [])
    batches = (batch for some in chunks for batch in pa.Table.from_pylist(some, schema=schema).to_batches())
    write_batches(plan, name, batches, schema)


def write_batches(plan: Path, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    with atomic_write(plan / "units" / f"{name}.parquet") as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_unit(unit: Path) -> list[dict[str, Any]]:
    with open_unit(unit) as file:
        return list(file.read().to_pylist())


def iterate_unit(unit: Path) -> Iterator[dict[str, Any]]:
    """Yields the references of a unit that does not fit into memory."""
    with open_unit(unit) as file:
        for batch in file.iter_batches(_ROWS_PER_READ):
            yield from batch.to_pylist()


@contextlib.contextmanager
def open_unit(unit: Path) -> Iterator[pq.ParquetFile]:
    with hold_local_copy(unit) as here, pq.ParquetFile(here) as file:
        yield file


def read_results(plan: Path) -> Iterator[bytes]:
    """Yields the results of a work plan in the order of its units."""
    yield from (path.read_bytes() for path in sorted((plan / "done").glob("*.json")))


def delete_results(plan: Path, is_final: Callable[[bytes], bool]) -> None:
    """Deletes the results that are not final, so that their units are processed again."""
    for path in sorted((plan / "done").glob("*.json")):
        if not is_final(path.read_bytes()):
            path.unlink()


def list_pending_units(plan: Path) -> Iterator[Path]:
    """Yields the units without a result, in order."""
    done = {path.stem for path in (plan / "done").glob("*.json")}
    yield from (unit for unit in sorted((plan / "units").glob("*.parquet")) if unit.stem not in done)


class UnitCounter:
    """Counts processed and failed records, and writes the counts to a small file a few times per second."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._done = self._failed = 0
        self._written = 0.0

    def __call__(self, records: int, failed: int) -> None:
        """Adds numbers of processed records and of failed ones among them."""
        self._done += records
        self._failed += failed
        if time.monotonic() - self._written > _PROGRESS_SECONDS:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        self._path.write_text(f"{self._done} {self._failed}", encoding="ascii")


def read_progress(plan: Path) -> tuple[int, str]:
    """Returns the number of processed records of a plan, and a note about the failed ones."""
    texts = (path.read_text(encoding="ascii") for path in working_path(plan / "progress").glob("*"))
    counts = [tuple(map(int, text.split())) for text in texts if text]
    done, failed = (sum(column) for column in zip((0, 0), *counts, strict=True))
    return done, f"{failed} failed" if failed else ""
