"""Reads and writes the records of a work directory.

WORK_DIR/data/DATASET/                   fetched or generated data
WORK_DIR/store/                          the store
WORK_DIR/runs/RECIPE/seedN/stageM/       run directories
WORK_DIR/evaluations/NAME-SPLIT.json     result of `capt evaluate`, and a digest of its inputs
WORK_DIR/results/RECIPE-SPLIT.json       result of `capt reproduce`
WORK_DIR/RECIPE-SPLIT.html               page of `capt reproduce`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.io.locations import local_path
from features.io.temporary_names import TEMP_PREFIX
from schemas.errors import UsageError
from schemas.frozen import Frozen

# Also marks a work directory, so it has another name than the lock of a run directory.
LOCK = ".reproduce.lock"


class EvaluationRecord(Frozen):
    """A result of `capt evaluate`.

    Args:
        identity: Digest of all inputs that determine the scores.
        evaluated: The result.
    """

    version: Literal[1] = 1
    identity: str
    evaluated: dict[str, Any]


class ReproductionRecord(Frozen):
    """A result of `capt reproduce`."""

    version: Literal[1] = 1
    result: dict[str, Any]


@dataclass(frozen=True)
class WorkDirectory:
    """The paths in a work directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / LOCK

    @property
    def store(self) -> Path:
        return self.root / "store"

    def run(self, recipe: str, seed: int, stage: int) -> Path:
        return self.root / "runs" / recipe / f"seed{seed}" / f"stage{stage}"

    def evaluation(self, name: str, split: str) -> Path:
        return self.root / "evaluations" / f"{name}-{split}.json"

    def result(self, name: str, split: str) -> Path:
        return self.root / "results" / f"{name}-{split}.json"

    def page(self, name: str, split: str) -> Path:
        return self.root / f"{name}-{split}.html"


def open_work_directory(path: str) -> WorkDirectory:
    """Opens a work directory, which need not exist; UsageError if it contains something else."""
    root = local_path(path, "--work-dir").absolute()
    if root.exists() and not root.is_dir():
        raise UsageError("this is not a directory", location=f"--work-dir {path}", hint="Choose a directory.")
    directory = WorkDirectory(root)
    if root.exists() and not directory.lock.exists():
        others = sorted(one.name for one in root.iterdir() if not one.name.startswith(TEMP_PREFIX))
        if others:
            message = f"the directory is not empty and not a work directory: it contains {others[0]}"
            raise UsageError(message, location=f"--work-dir {path}", hint="Choose a new or empty directory.")
    return directory
