"""Reads the registered models of a store: their decisions, their runs, and the champion.

    STORE/models/<name>/log/, manifests/          one commit per decision
    STORE/models/<name>/runs/<run>/               a run directory; the commit that promoted it references its files
    STORE/models/<name>/runs/<run>/evaluation/    what `capt evaluate` wrote; no commit references it

The champion is the run that the last commit names. If the store is in a bucket, run directories are on this machine.
`ModelHistory.ensure_local` downloads a champion's files.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from features.io.atomic_files import atomic_write, ensure_local, working_path
from features.io.locations import parse_location
from features.store.commit_log import CommitLog, LogState
from features.store.corruption import has_valid_checksum
from features.store.layout import MODELS, RUNS
from features.store.store import Store, open_store
from schemas.errors import StoreError, UsageError
from schemas.manifests import FileEntry, Manifest, ModelMetadata

RUN_NAME = re.compile(r"[0-9a-f]{16}")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class ModelDecision:
    """One decision about a registered model: its number from 1, the decision, and the commit that records it."""

    number: int
    facts: ModelMetadata
    manifest: Manifest


class ModelHistory:
    """The decisions, runs and champion of a registered model; raises UsageError if the name is invalid."""

    def __init__(self, store: Store, name: str) -> None:
        if not _NAME.fullmatch(name):
            hint = "Use letters, digits, dashes and underscores, at most 100 in total."
            raise UsageError(f"invalid model name {name!r}", hint=hint)
        self.name = name
        self.root = store.path / MODELS / name
        self._store = store.path
        self._here = working_path(self.root)
        self._log = CommitLog(self.root)

    def history(self) -> list[ModelDecision]:
        """Returns every decision, oldest first; raises CorruptFileError if the log or a manifest cannot be read."""
        return list_decisions(self._log.read_complete_state())

    @property
    def champion(self) -> str | None:
        """The champion's run; None before the first champion."""
        history = self.history()
        return history[-1].facts.champion if history else None

    def run_path(self, run: str) -> Path:
        """Returns the directory of a run on this machine."""
        return self._here / RUNS / run

    def ensure_local(self, run: str) -> Path:
        """Downloads the missing files of a run, checks them, and returns the run's directory on this machine."""
        for entry in self.promoted_files(run).values() if self._here != self.root else ():
            path = self._here / entry.path
            if not has_valid_checksum(self._here, entry):
                with atomic_write(path) as temporary:
                    shutil.copyfile(ensure_local(self.root / entry.path, entry.sha256), temporary)
        return self.run_path(run)

    def runs(self) -> list[str]:
        """Returns the runs whose directories are on this machine."""
        directory = self._here / RUNS
        paths = directory.iterdir() if directory.is_dir() else ()
        return sorted(path.name for path in paths if RUN_NAME.fullmatch(path.name))

    def promoted_files(self, run: str) -> dict[str, FileEntry]:
        """Returns the files of a run, as its first promotion references them; empty if it was never promoted."""
        files = (one.manifest.files for one in self.history() if one.facts.champion == run)
        return dict(next(filter(None, files), {}))


def list_decisions(log_state: LogState) -> list[ModelDecision]:
    """Returns the decisions that a model's log references, oldest first."""
    return [
        ModelDecision(number, facts, log_state.known[digest])
        for number, digest in enumerate(log_state.entries, 1)
        if digest in log_state.known and isinstance(facts := log_state.known[digest].facts, ModelMetadata)
    ]


def find_champion(path: str | Path) -> Path | None:
    """Returns the champion's run directory on this machine; None if the path or URI is not that of a registered model.

    Raises:
        StoreError: The model has no champion yet.
    """
    root = parse_location(path)
    if root.parent.name != MODELS or not CommitLog(root).last():
        return None
    model = ModelHistory(open_store(root.parent.parent), root.name)
    if model.champion is None:
        hint = "Run `capt models promote` to choose one."
        raise StoreError("the model has no champion yet", location=str(root), hint=hint)
    return model.ensure_local(model.champion)
