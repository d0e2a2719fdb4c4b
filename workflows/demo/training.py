"""Trains or resumes the runs of the demo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import StoreError
from workflows.demo.steps import Steps
from workflows.prepared_tasks import PreparedTask


def train_run(
    task: PreparedTask,
    model: str,
    store: Path,
    run_dir: Path,
    hyperparameters: Mapping[str, Any],
    tables: Mapping[str, str],
    dataset: str,
    steps: Steps,
) -> dict[str, Any]:
    """Trains or resumes a run as a step of the demo, `train the MODEL`. Returns the result of the training.

    Raises:
        StoreError: The run directory contains another run, such as one of another version of the demo.
    """

    def train() -> dict[str, Any]:
        try:
            return task.train(store, run_dir, hyperparameters, tables, [dataset])
        except StoreError as error:
            if error.location != str(run_dir):
                raise
            # The demo has no --run-dir to change.
            hint = f"Choose another --output, or delete {run_dir}."
            raise StoreError(error.message, location=error.location, hint=hint) from None

    return steps.run(f"train the {model}", train, _summarize)


def _summarize(training: Mapping[str, Any]) -> str:
    loss = f", best validation loss {training['val_loss']:.3f}" if "val_loss" in training else ""
    return f"{training['epochs']} epochs{loss}"
