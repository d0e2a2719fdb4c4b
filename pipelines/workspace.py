"""Where a run keeps what it needs while it runs: in the store, or aside where the run must change nothing."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.files import local_side
from pipelines.caption_ledger import CaptionLedger
from pipelines.ledger import Ledger, copy_stat_cache
from pipelines.scratch import scratch

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
    def stat_cache(self) -> Path:
        """Content keys by file times."""
        return local_side(self.root / "cache" / "stat.sqlite")

    @property
    def networks(self) -> Path:
        """Frozen networks by digest."""
        return self.root / "networks"

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """A new ledger of images, removed afterwards."""
        with scratch(self.work) as directory, contextlib.closing(Ledger(directory / LEDGER, self.stat_cache)) as ledger:
            yield ledger

    @contextlib.contextmanager
    def caption_ledger(self) -> Iterator[CaptionLedger]:
        """A new ledger of captions, removed afterwards."""
        with scratch(self.work) as directory, contextlib.closing(CaptionLedger(directory / LEDGER)) as ledger:
            yield ledger


@contextlib.contextmanager
def untouched(store: Path) -> Iterator[Workspace]:
    """A workspace for a run that changes nothing: a temporary one that knows what the store's stat cache knows."""
    with tempfile.TemporaryDirectory(prefix="capt-plan-") as root:
        workspace = Workspace(Path(root))
        workspace.stat_cache.parent.mkdir(parents=True)
        copy_stat_cache(Workspace(store).stat_cache, workspace.stat_cache)
        yield workspace
