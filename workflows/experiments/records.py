"""Reads and writes the records of an experiment in its output directory.

OUTPUT_DIR/experiment.json        the experiment file of the last run, the trials and their tables
OUTPUT_DIR/tables/KIND-NAME.json  summary of the preparation of a table; with several datasets, KIND-NAME+DATASET.json
OUTPUT_DIR/runs/TRIAL/            run directory of a trial, with its TensorBoard logs
OUTPUT_DIR/results/TRIAL.json     scores of a trial, or the reason of its failure
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from features.io.atomic_files import write
from schemas.errors import CorruptFileError, StoreError
from schemas.frozen import Frozen
from schemas.strict_json import parse_json
from trainer.runs.directory import METRICS
from workflows.experiments.config import ExperimentConfig

# Key of the caption tables in `PreparedTask.preparations`.
CAPTIONS = "captions"

_Record = TypeVar("_Record", bound=Frozen)


@dataclass(frozen=True)
class ExperimentDirectory:
    """The paths in the output directory of an experiment, which may be missing."""

    root: Path

    @property
    def experiment(self) -> Path:
        return self.root / "experiment.json"

    def run(self, trial: str) -> Path:
        return self.root / "runs" / trial

    def result(self, trial: str) -> Path:
        return self.root / "results" / f"{trial}.json"

    def evaluation(self, result: "TrialResult") -> Path:
        """Returns the directory with the evaluation of a finished trial; the experiment may have moved."""
        with report_corruption(self.result(result.trial), "Delete the file, and run the experiment again."):
            written = Path(result.evaluated["scores_path"]).parent.relative_to(result.evaluated["run_dir"])
        return self.run(result.trial) / written

    def table(self, command: str, label: str) -> Path:
        return self.root / "tables" / f"{command}-{label}.json"


class TableKey(Frozen):
    """A table that a trial needs.

    Args:
        kind: Key of `PreparedTask.preparations`.
        name: Name in the experiment file.
        dataset: Name of its dataset in the store.
        vocabulary: Dataset whose vocabulary its captions have; empty for their own.
    """

    kind: str
    name: str
    dataset: str
    vocabulary: str = ""


class Trial(Frozen):
    """One run of an experiment.

    Args:
        name: Name of the trial and its directory, such as `soft_attention-inception-words5000-seed0`.
        position: Position in the grid: a value per axis, in the order of the axes.
        tables: Table names by key of `PreparedTask.preparations`.
        options: Options and hyperparameters of the training.
        datasets: Names in the store of the datasets to train on.
    """

    name: str
    position: dict[str, str | int]
    tables: dict[str, str]
    options: dict[str, Any]
    datasets: tuple[str, ...]

    @property
    def trained_tables(self) -> tuple[TableKey, ...]:
        """The tables that the trial is trained on: per dataset, with the vocabulary of the first one."""
        first = self.datasets[0]
        return tuple(
            TableKey(
                kind=kind,
                name=name,
                dataset=dataset,
                vocabulary=first if kind == CAPTIONS and dataset != first else "",
            )
            for kind, name in self.tables.items()
            for dataset in self.datasets
        )


class ExperimentRecord(Frozen):
    """The experiment file of the last run, all its trials in order, and the names of the excluded ones."""

    version: Literal[1] = 1
    config: ExperimentConfig
    trials: tuple[Trial, ...]
    excluded: tuple[str, ...]


class TableRecord(Frozen):
    """The preparation of a table.

    Args:
        seconds: Total duration of all preparations that added rows.
        summary: Summary of the last preparation, as `capt prepare --json` prints it.
    """

    version: Literal[1] = 1
    fingerprint: str
    seconds: float
    summary: dict[str, Any]


class TrialResult(Frozen):
    """The result of a trial.

    Args:
        identity: Digest of all inputs that determine the scores.
        reason: Reason of the failure, in one line.
        tables: Fingerprints of the tables by key of `PreparedTask.preparations`.
        trained: Result of the training command.
        evaluated: Result of `capt evaluate`.
        seconds: Durations: `training` (all epochs) and `evaluation`.
        bytes: Size of the run directory without files that the store shares.
    """

    version: Literal[1] = 1
    trial: str
    status: Literal["done", "failed"]
    identity: str
    reason: str = ""
    tables: dict[str, str] = Field(default_factory=dict)
    trained: dict[str, Any] = Field(default_factory=dict)
    evaluated: dict[str, Any] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    bytes: int = 0


def write_record(path: Path, record: Frozen) -> None:
    """Writes a record atomically."""
    write(path, record.model_dump_json(indent=1).encode() + b"\n")


def read_record(path: Path, kind: type[_Record]) -> _Record | None:
    """Reads a record; None if the file does not exist.

    Raises CorruptFileError if the file is not JSON, and StoreError if it is not a record of this kind.
    """
    try:
        data = path.read_bytes()
        parse_json(data)
        return kind.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = f"the file was written by another version of capt: {key}: {first['msg']}"
        is_rewritten = kind is ExperimentRecord
        hint = "Run the experiment again; finished trials are kept." if is_rewritten else "Delete the file."
        raise StoreError(message, location=str(path), hint=hint) from None
    except ValueError as error:
        raise CorruptFileError(f"the file is corrupt: {error}", location=str(path), hint="Delete the file.") from None


@contextlib.contextmanager
def report_corruption(path: Path, hint: str = "Evaluate the run again.") -> Iterator[None]:
    """Raises the errors of code that parses a file of a run or an evaluation as CorruptFileError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"the file is corrupt ({type(error).__name__})"
        raise CorruptFileError(message, location=str(path), hint=hint) from error


def read_epochs(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the metrics of each finished epoch of a run."""
    path = run_dir / METRICS
    if not path.exists():
        return []
    with report_corruption(path):
        return [dict(parse_json(line)) for line in path.read_text(encoding="utf-8").splitlines()]
