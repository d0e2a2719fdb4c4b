"""What evaluations of every task share: where a run's store is, where results go, how they are told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.io.locations import parse_location
from schemas.errors import CaptError
from trainer.runs.directory import recorded_store
from trainer.runs.run import Run

SCORES = "scores.json"


def open_run_store(run: Run, store: str | Path | None) -> Path:
    """The store that is named, or else the one that the run was trained from; UsageError where that is not known."""
    return parse_location(store) if store else recorded_store(run.path)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """A block that writes results; CaptError where the directory cannot be written."""
    try:
        yield
    except OSError as error:
        raise CaptError(f"the results cannot be written: {error.strerror}", location=str(place)) from None


def shorten(path: str | Path) -> str:
    """A path as seen from where the command runs."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def learned_note(one: Mapping[str, Any]) -> list[str]:
    """Returns what must be said of the images that a run learned from and is scored on; nothing if there is none.

    Args:
        one: The figures of an evaluation, with `run`, `images` and `learned_from`.
    """
    count = one["learned_from"]
    told = f"{one['run']}: {count:,} of {one['images']:,} images are among those that the run learned from"
    return [f"{told}, so its scores are flattered"] if count else []
