"""Where a run keeps what it needs while it runs: in the store, or aside where the run must change nothing."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.io.atomic_files import working_path
from pipelines.beam.scratch import open_scratch
from pipelines.ingest.caption_database import CaptionDatabase
from pipelines.ingest.job_database import JobDatabase, copy_hash_cache

LEDGER = "ledger.sqlite"


@dataclass(frozen=True)
class Workspace:
    """Directories of a run.

    Args:
        root: Path. A store, or a directory that stands in for one.
    """

    root: Path

    @property
    def work(self) -> Path:
        """Plans and ledgers of running jobs."""
        return self.root / "work"

    @property
    def hash_cache(self) -> Path:
        """Content keys by file times."""
        return working_path(self.root / "cache" / "stat.sqlite")

    @property
    def networks(self) -> Path:
        """Frozen networks by digest."""
        return self.root / "networks"

    @contextlib.contextmanager
    def job_database(self) -> Iterator[JobDatabase]:
        """A new ledger of images, removed afterwards."""
        with (
            open_scratch(self.work) as directory,
            contextlib.closing(JobDatabase(directory / LEDGER, self.hash_cache)) as job_database,
        ):
            yield job_database

    @contextlib.contextmanager
    def caption_ledger(self) -> Iterator[CaptionDatabase]:
        """A new ledger of captions, removed afterwards."""
        with (
            open_scratch(self.work) as directory,
            contextlib.closing(CaptionDatabase(directory / LEDGER)) as job_database,
        ):
            yield job_database


@contextlib.contextmanager
def dry_run_workspace(store: Path) -> Iterator[Workspace]:
    """A workspace for a run that changes nothing: a temporary one that knows what the store's stat cache knows."""
    with tempfile.TemporaryDirectory(prefix="capt-plan-") as root:
        workspace = Workspace(Path(root))
        workspace.hash_cache.parent.mkdir(parents=True)
        copy_hash_cache(Workspace(store).hash_cache, workspace.hash_cache)
        yield workspace
