"""Units of work: files of references in, small results out, on any engine.

    <plan>/units/00003.parquet    what one worker does in one go
    <plan>/done/00003.json        its result, put once and only when its work is durable
    <plan>/progress/00003         records handled so far, for whoever watches on the same machine

A Beam element is the path of a unit. A unit that has a result is done: the same plan run again goes on where a killed
run stopped, and of two workers on one unit the first result counts.
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

_TALLY_SECONDS = 0.3
_ROWS_A_WRITE = 4096

Advance = Callable[[int, int], None]
Worker = Callable[[Path, Advance], bytes]


def write_unit(plan: Path, name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write one unit's references, as a Parquet file of the given schema."""
    with atomic_write(plan / "units" / f"{name}.parquet") as temporary, pq.ParquetWriter(temporary, schema) as writer:
        remaining = iter(rows)
        while some := list(islice(remaining, _ROWS_A_WRITE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def write_batches(plan: Path, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write one unit's references that come as record batches of the given schema."""
    with atomic_write(plan / "units" / f"{name}.parquet") as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_unit(unit: Path) -> list[dict[str, Any]]:
    """The references of a unit."""
    with open_unit(unit) as file:
        rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows


@contextlib.contextmanager
def open_unit(unit: Path) -> Iterator[pq.ParquetFile]:
    """A unit's file, open."""
    with hold_local_copy(unit) as here, pq.ParquetFile(here) as file:
        yield file


def run_units(
    plan: Path, worker: Worker, beam_options: Sequence[str], label: str, hints: Mapping[str, str] | None = None
) -> None:
    """Have an engine do every unit of the plan that has no result yet."""
    if not any(list_pending_units(plan)):
        return
    with run_pipeline(beam_options) as pipeline:
        add_units(pipeline, plan, worker, label, hints or {})


def add_units(pipeline: beam.Pipeline, plan: Path, worker: Worker, label: str, hints: Mapping[str, str]) -> None:
    """Add the steps that do a plan's units to a pipeline: paths of units are all that moves between machines.

    Args:
        pipeline: beam.Pipeline. To add to.
        plan: Path. The plan.
        worker: Worker. Does one unit.
        label: str. Name of the step that does.
        hints: mapping. What that step asks of the engine, as `pipelines.beam.resource_hints` has it.
    """
    work = beam.ParDo(ProcessUnit(worker)).with_resource_hints(**hints)
    _ = (
        pipeline
        | "Plan" >> beam.Create([str(plan)])
        | "Units" >> beam.FlatMap(_pending_names).with_output_types(str)
        | "Spread" >> beam.Reshuffle()
        | label >> work
    )


def read_results(plan: Path) -> Iterator[bytes]:
    """The results of the plan's units, in the units' order."""
    for path in sorted((plan / "done").glob("*.json")):
        yield path.read_bytes()


def delete_results(plan: Path, is_final: Callable[[bytes], bool]) -> None:
    """Have those units of the plan done again whose results are not final."""
    for path in sorted((plan / "done").glob("*.json")):
        if not is_final(path.read_bytes()):
            path.unlink()


def list_pending_units(plan: Path) -> Iterator[Path]:
    """The units without a result, in order."""
    done = {path.stem for path in (plan / "done").glob("*.json")}
    yield from (unit for unit in sorted((plan / "units").glob("*.parquet")) if unit.stem not in done)


class ProcessUnit(beam.DoFn):  # type: ignore[misc]
    """Does one unit of work and puts its result; yields nothing that is large."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def process(self, element: str) -> Iterator[str]:
        """Do the unit at the path `element`, unless another worker has."""
        unit = parse_location(element)
        if not _result_path(unit).exists():
            tally = UnitCounter(_progress_path(unit))
            put_if_absent(_result_path(unit), self._worker(unit, tally))
            tally.write()
        yield unit.name


class UnitCounter:
    """Counts records done, and how many of them failed, into a small file, a few times a second at most."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._done = 0
        self._failed = 0
        self._written = 0.0

    def __call__(self, records: int, failed: int) -> None:
        """Count `records` more, `failed` of them failures."""
        self._done += records
        self._failed += failed
        if time.monotonic() - self._written > _TALLY_SECONDS:
            self.write()

    def write(self) -> None:
        """Let whoever watches see the count."""
        self._written = time.monotonic()
        self._path.write_text(f"{self._done} {self._failed}", encoding="ascii")


def read_progress(plan: Path) -> tuple[int, str]:
    """Records that the plan's workers say they have handled, and a note on those that failed."""
    counts = [path.read_text(encoding="ascii").split() for path in working_path(plan / "progress").glob("*")]
    done = sum(int(count[0]) for count in counts if count)
    failed = sum(int(count[1]) for count in counts if count)
    return done, f"{failed} failed" if failed else ""


def _pending_names(plan: str) -> Iterator[str]:
    return (str(unit) for unit in list_pending_units(parse_location(plan)))


def _result_path(unit: Path) -> Path:
    return unit.parent.parent / "done" / f"{unit.stem}.json"


def _progress_path(unit: Path) -> Path:
    return working_path(unit.parent.parent / "progress" / unit.stem)
