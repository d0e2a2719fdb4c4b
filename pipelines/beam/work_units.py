"""Runs the work units of a work plan on any runner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.beam.work_plans import Worker, list_pending_units


def run_units(
    plan: Path, worker: Worker, beam_options: Sequence[str], label: str, hints: Mapping[str, str] | None = None
) -> None:
    """Processes every unit of a work plan that has no result, in one pipeline."""
    if not any(list_pending_units(plan)):
        return
    # Importing Beam takes seconds, for which a job without new records does not wait.
    from pipelines.beam.unit_pipeline import run_pending_units

    run_pending_units(plan, worker, beam_options, label, hints or {})
