"""What the files of a run say about it: its epochs and the weights of its last checkpoint."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trainer.runs.checkpoints import Checkpoints

WEIGHTS = "model.weights.h5"


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The metrics of each epoch."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def learned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The metrics without those that depend on time."""
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def weights_of(run: Path, file_name: str = WEIGHTS) -> dict[str, NDArray[np.float32]]:
    """The weights of the last checkpoint by their names in a file of it."""
    state = Checkpoints(run / "checkpoints").state()
    assert state
    with h5py.File(run / "checkpoints" / state.last / file_name) as file:
        found: dict[str, NDArray[np.float32]] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found
