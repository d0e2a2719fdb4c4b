"""Records: what an experiment keeps of its tables and trials, as JSON in its directory.

OUT/experiment.json        what the file said when it last ran, the trials and their tables
OUT/tables/KIND-NAME.json  what preparing a table took and gave
OUT/runs/TRIAL/            the run, see `trainer.runs.directory`; TensorBoard's logs are in it
OUT/results/TRIAL.json     what became of the trial: its scores, or why it failed
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from features.io.atomic_files import write
from schemas.errors import CorruptFileError, StoreError
from schemas.frozen import Frozen
from schemas.strict_json import parse_json
from workflows.experiments.config import ExperimentConfig

Kept = TypeVar("Kept", bound=Frozen)


@dataclass(frozen=True)
class RunLocation:
    """An experiment's directory.

    Args:
        root: Path. The directory; it need not be there.
    """

    root: Path

    @property
    def experiment(self) -> Path:
        """What the file said."""
        return self.root / "experiment.json"

    @property
    def report(self) -> Path:
        """The page that shows it all."""
        return self.root / "report.html"

    def run(self, trial: str) -> Path:
        """The run directory of a trial."""
        return self.root / "runs" / trial

    def result(self, trial: str) -> Path:
        """What became of a trial."""
        return self.root / "results" / f"{trial}.json"

    def table(self, kind: str, name: str) -> Path:
        """What preparing a table took and gave."""
        return self.root / "tables" / f"{kind}-{name}.json"


class TrialRecord(Frozen):
    """A trial as its experiment names it.

    Args:
        name: str. What it is called.
        at: dict. Its place in the grid: a name by axis.
        tables: dict. The names of its tables, by kind.
        options: dict. What it is trained with.
    """

    name: str
    at: dict[str, str | int]
    tables: dict[str, str]
    options: dict[str, Any]


class ExperimentRecord(Frozen):
    """An experiment as it last ran.

    Args:
        definition: Definition. What its file said.
        trials: tuple of TrialRecord. All its trials, in order.
        skipped: tuple of str. Names of those that the file leaves out.
    """

    version: Literal[1] = 1
    definition: ExperimentConfig
    trials: tuple[TrialRecord, ...]
    skipped: tuple[str, ...]


class TableRecord(Frozen):
    """What preparing a table took and gave.

    Args:
        fingerprint: str. The table's.
        seconds: float. Of all preparing that added rows to it.
        figures: dict. Of the last time, as `capt prepare` prints them.
    """

    version: Literal[1] = 1
    fingerprint: str
    seconds: float
    figures: dict[str, Any]


class TrialResult(Frozen):
    """What became of a trial.

    Args:
        trial: str. Its name.
        status: str. `done` or `failed`.
        identity: str. Digest of all that decides its scores.
        reason: str. Why it failed, in a line; empty where it did not.
        tables: dict. The fingerprints of its tables, by kind.
        trained: dict. What the training command returned.
        evaluated: dict. What `capt evaluate` returned of it.
        seconds: dict. `training`, of all epochs, and `evaluation`.
        bytes: int. Of its run directory, what it shares with the store left out.
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


def write_result(path: Path, record: Frozen) -> None:
    """Write a record, whole or not at all."""
    write(path, record.model_dump_json(indent=1).encode() + b"\n")


def read_result(path: Path, kind: type[Kept]) -> Kept | None:
    """A record; None where there is none, StoreError where it cannot be used, CorruptFileError where it is not JSON."""
    try:
        data = path.read_bytes()
        parse_json(data)
        return kind.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"not what this capt wrote: {place}: {first['msg']}", location=str(path), hint="delete it"
        ) from None
    except ValueError as error:
        raise CorruptFileError(f"damaged: {error}", location=str(path), hint="delete it") from None


def read_results(place: RunLocation, trials: tuple[TrialRecord, ...]) -> Mapping[str, TrialResult]:
    """What became of trials, by name, of those that something did."""
    found = {trial.name: read_result(place.result(trial.name), TrialResult) for trial in trials}
    return {name: result for name, result in found.items() if result is not None}
