"""Runs the work units of a work plan: files of references in, small results out, on any runner.

    <plan>/units/00003.parquet    the references of one unit
    <plan>/done/00003.json        its result, written once and only after its output is durable
    <plan>/progress/00003         number of processed records, for the progress bar on the same machine

A Beam element is the path of a unit. A unit with a result is done, so an interrupted job resumes. If two workers
process a unit, the first result is used.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from features.io.atomic_files import atomic_write, hold_local_copy, put_if_absent, working_path
from features.io.locations import parse_location
from pipelines.beam.runners import run_pipeline

_PROGRESS_SECONDS = 0.3
_ROWS_PER_WRITE = 4096

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


@contextlib.contextmanager
def open_unit(unit: Path) -> Iterator[pq.ParquetFile]:
    with hold_local_copy(unit) as here, pq.ParquetFile(here) as file:
        yield file


def run_units(
    plan: Path, worker: Worker, beam_options: Sequence[str], label: str, hints: Mapping[str, str] | None = None
) -> None:
    """Processes every unit of a work plan that has no result, in one pipeline."""
    if not any(list_pending_units(plan)):
        return
    with run_pipeline(beam_options) as pipeline:
        add_units(pipeline, plan, worker, label, hints or {})


def add_units(pipeline: beam.Pipeline, plan: Path, worker: Worker, label: str, hints: Mapping[str, str]) -> None:
    """Adds the step `label`, which processes a plan, to a pipeline. Only the paths of units move between machines."""
    process = beam.ParDo(ProcessUnit(worker)).with_resource_hints(**hints)
    _ = (
        pipeline
        | "Plan" >> beam.Create([str(plan)])
        | "Units" >> beam.FlatMap(_list_pending_paths).with_output_types(str)
        | "Spread" >> beam.Reshuffle()
        | label >> process
    )


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


class ProcessUnit(beam.DoFn):  # type: ignore[misc]
    """Processes one work unit and writes its result."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def process(self, element: str) -> Iterator[str]:
        """Processes the unit at the path `element`, unless it has a result. Yields its name."""
        unit = parse_location(element)
        result = unit.parent.parent / "done" / f"{unit.stem}.json"
        if not result.exists():
            counter = UnitCounter(working_path(unit.parent.parent / "progress" / unit.stem))
            put_if_absent(result, self._worker(unit, counter))
            counter.write()
        yield unit.name


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


def _list_pending_paths(plan: str) -> Iterator[str]:
    return (str(unit) for unit in list_pending_units(parse_location(plan)))
