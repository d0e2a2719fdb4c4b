"""The Beam pipeline of a work plan: an element is the path of a unit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import apache_beam as beam

from features.io.atomic_files import put_if_absent, working_path
from features.io.locations import parse_location
from pipelines.beam.runners import run_pipeline
from pipelines.beam.work_plans import UnitCounter, Worker, list_pending_units


def run_pending_units(
    plan: Path, worker: Worker, beam_options: Sequence[str], label: str, hints: Mapping[str, str]
) -> None:
    """Processes every unit of a work plan that has no result."""
    with run_pipeline(beam_options) as pipeline:
        add_units(pipeline, plan, worker, label, hints)


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


def _list_pending_paths(plan: str) -> Iterator[str]:
    return (str(unit) for unit in list_pending_units(parse_location(plan)))
