"""Keeps the downloads of a shard in files, until all of them have ended.

The image of a record is a file with its key as name, without a suffix. A line of `outcomes.jsonl` follows the image, so
a file without a line is incomplete. Neither is synced: after a power failure, an image that differs from the hash in
its line is downloaded again.
"""

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.io.atomic_files import hash_file, write
from pipelines.fetch_urls.records import ShardRecords, UrlRecord
from pipelines.ingest.host_turns import get_host
from schemas.errors import RecordError
from schemas.frozen import Frozen

_OUTCOMES = "outcomes.jsonl"
# Failures that say nothing about the network.
_UNASKED = frozenset(("scheme", "bad address", "no such host"))


class Outcome(Frozen):
    """The image of a record, or why it has none (`reason`, `detail`). `is_permanent`: a retry would probably fail."""

    key: str
    reason: str = ""
    detail: str = ""
    is_permanent: bool = True
    sha256: str = ""
    suffix: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0

    @classmethod
    def from_error(cls, key: str, error: RecordError) -> "Outcome":
        # A server's text may not be valid.
        detail = error.detail.encode(errors="backslashreplace").decode()
        return cls(key=key, reason=error.reason, detail=detail, is_permanent=error.permanent)


@dataclass(frozen=True)
class UrlTask:
    """The download of a record's image."""

    shard: "UnfinishedShard"
    record: UrlRecord

    @property
    def url(self) -> str:
        return self.record.url

    @property
    def path(self) -> Path:
        """The path of the image."""
        return self.shard.find_image(self.record)


class UnfinishedShard:
    """The records of a shard and the outcomes so far, also those of an interrupted run.

    Records of one URL and one expected hash share an outcome. `kept` is the number of images of an interrupted run.
    """

    def __init__(self, shard: ShardRecords, directory: Path, has_ended: Callable[["UnfinishedShard"], object]) -> None:
        self.name, self.records = shard.name, shard.records
        self._directory, self._has_ended = directory, has_ended
        self._first: dict[tuple[str, str], UrlRecord] = {}
        for record in self.records:
            if record.failure is None:
                self._first.setdefault((record.url, record.expected_hash), record)
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self._outcomes = self._read_outcomes()
        self._known = frozenset(self._outcomes)
        self.kept = sum(not one.reason for one in self._outcomes.values())

    def list_tasks(self) -> Sequence[UrlTask]:
        """Returns the downloads that are left. Without one, the shard has ended."""
        tasks = [UrlTask(self, record) for record in self._first.values() if record.key not in self._outcomes]
        if not tasks:
            self._has_ended(self)
        return tasks

    def find_image(self, record: UrlRecord) -> Path:
        """Returns the path of the image that a record shares with others."""
        return self._directory / self._first[record.url, record.expected_hash].key

    def insert(self, outcome: Outcome) -> None:
        """Appends an outcome. The last one ends the shard."""
        with self._lock:
            with (self._directory / _OUTCOMES).open("ab") as file:
                file.write(outcome.model_dump_json().encode() + b"\n")
            self._outcomes[outcome.key] = outcome
            is_last = len(self._outcomes) == len(self._first)
        if is_last:
            self._has_ended(self)

    def find_outcome(self, record: UrlRecord) -> Outcome:
        """Returns the outcome of a record of an ended shard."""
        if record.failure is not None:
            return Outcome(key=record.key, reason=record.failure.reason, detail=record.failure.detail)
        return self._outcomes[self._first[record.url, record.expected_hash].key]

    def count_passing_failures(self) -> tuple[Counter[str], int]:
        """Returns the failures by reason and the number of hosts, if no host answered a download of this run.

        The reasons are empty if a host answered, with an image or a permanent failure.
        """
        asked = [record for record in self._first.values() if record.key not in self._known]
        outcomes = [self._outcomes[record.key] for record in asked]
        reasons = Counter(one.reason for one in outcomes if one.reason and not one.is_permanent)
        answered = any(not one.reason or (one.is_permanent and one.reason not in _UNASKED) for one in outcomes)
        return Counter() if answered else reasons, len({get_host(record.url) for record in asked})

    def remove(self) -> None:
        """Deletes the files of the shard."""
        shutil.rmtree(self._directory)

    def _read_outcomes(self) -> dict[str, Outcome]:
        """Returns the outcomes of an interrupted run, except failures that may have passed, and removes the others."""
        path = self._directory / _OUTCOMES
        keys = {record.key for record in self._first.values()}
        found: dict[str, Outcome] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                outcome = Outcome.model_validate_json(line)
            except ValueError:
                continue
            if outcome.key in keys and self._is_valid(outcome):
                found[outcome.key] = outcome
        write(path, b"".join(one.model_dump_json().encode() + b"\n" for one in found.values()))
        return found

    def _is_valid(self, outcome: Outcome) -> bool:
        if outcome.reason:
            return outcome.is_permanent
        try:
            return hash_file(self._directory / outcome.key) == outcome.sha256
        except FileNotFoundError:
            return False
