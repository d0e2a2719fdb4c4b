"""Tokenizes the captions of a job into a committed caption table, with its vocabulary and transform."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.io.atomic_files import atomic_write, describe_file
from features.io.file_trees import remove_tree
from features.io.plain_paths import plain_path
from features.store import CaptionTable
from features.store.commit_log import CommitLog
from features.store.corruption import check_file, has_valid_checksum
from features.store.shards import choose_shard_count, find_shards
from features.text.vocabulary import read_vocabulary, vocabulary_path
from pipelines.beam.scratch import open_scratch
from pipelines.beam.work_plans import delete_results, read_progress, read_results, write_batches
from pipelines.beam.work_units import run_units
from pipelines.ingest.caption_database import SELECTED_CAPTIONS, SelectedCaptions
from pipelines.jobs.tokenize_shard import TokenizedUnit, TokenizeShard
from schemas.errors import CaptError
from schemas.manifests import CaptionMetadata, FileEntry, Manifest
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT, SPECIAL_TOKENS, CaptionTableConfig, compute_digest
from schemas.tables import FILE_NAMES
from schemas.terminal.progress import show_progress

_ROW_BYTES = 256


@dataclass(frozen=True)
class CaptionJob:
    """Tokenizes captions into one table. A `pipelines.jobs.sinks.Job`.

    `words` is a reused vocabulary by token ID; None to build one from the train captions. `known` is the current table;
    None if it is missing or corrupt.
    """

    root: Path
    work: Path
    table_config: CaptionTableConfig
    words: Sequence[str] | None
    captions: SelectedCaptions
    known: CaptionTable | None
    beam_options: Sequence[str] = ()

    def run(self) -> dict[str, Any]:
        """Tokenizes the captions and replaces the content of the table, unless it contains exactly these.

        Returns `shards` and `bytes` of the commit, and `metadata`, the `CaptionMetadata` of the table.
        """
        if self.known and self.known.facts.inputs == self.captions.inputs:
            return {"shards": 0, "bytes": 0, "metadata": self.known.facts}
        count = choose_shard_count(self.captions.rows, _ROW_BYTES)
        commit = compute_digest([self.table_config.fingerprint, self.captions.inputs, count])[:SHORT_FINGERPRINT]
        plan = self.work / f"{self.table_config.fingerprint[:SHORT_FINGERPRINT]}-{commit}"
        for number, batches in groupby(_divide_by_shard(self.captions.read_batches(), count), lambda part: part[0]):
            write_batches(plan, f"{number:05d}", (batch for _, batch in batches), SELECTED_CAPTIONS)
        transform = self._find_or_make_transform(plan, commit)
        delete_results(plan, self._is_final)
        worker = TokenizeShard(str(self.root), tuple(transform.items()), self.table_config, commit, count)
        with show_progress("tokenizing", self.captions.rows, "captions", lambda: read_progress(plan)):
            run_units(plan, worker, self.beam_options, "Tokenize")
        names = self.captions.names
        named = {FILE_NAMES.name: _copy(names, self.root, f"{commit}/{names.name}")} if names else {}
        units = [TokenizedUnit.model_validate_json(data) for data in read_results(plan)]
        manifest = self._build_manifest(units, {**transform, **named})
        CommitLog(self.root).supersede(manifest)
        remove_tree(plan)
        size = sum(shard.data.bytes for shard in manifest.shards)
        return {"shards": len(manifest.shards), "bytes": size, "metadata": manifest.facts}

    def estimate(self, directory: Path) -> dict[str, Any]:
        # Tokenization is fast.
        return {"metadata": None}

    def _find_or_make_transform(self, plan: Path, commit: str) -> dict[str, FileEntry]:
        if self.known:
            files = self.known.manifests[-1].files
            return {role: one for role, one in files.items() if role == "vocabulary" or role.startswith("transform/")}
        with open_scratch(self.work) as directory:
            return _copy_transform(self._make_transform(plan, directory, self.beam_options), self.root, commit)

    def _make_transform(self, plan: Path, directory: Path, beam_options: Sequence[str]) -> Path:
        # Importing Beam and tensorflow-transform takes seconds, for which a job without new captions does not wait.
        from features.text.transform import write_transform
        from pipelines.jobs.vocabulary import analyze_captions

        transform = directory / "transform"
        if self.words is not None:
            write_transform(self.words, self.table_config, transform)
            return transform
        with plain_path(directory) as plain:
            analyze_captions(plan, self.table_config, transform, plain / "temporary", beam_options)
        if len(read_vocabulary(transform)) == len(SPECIAL_TOKENS):
            message = f"no word of the train captions occurs {self.table_config.min_count} times"
            raise CaptError(message, location="--min-count", hint="Use a smaller number.")
        return transform

    def _build_manifest(self, units: list[TokenizedUnit], files: dict[str, FileEntry]) -> Manifest:
        if sum(unit.shard.rows for unit in units) != self.captions.rows:
            message = f"{self.captions.rows} captions were planned, and the work units contain another number"
            raise CaptError(message, hint="Run the same command again.")
        totals: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for split, counts in chain.from_iterable(unit.lengths.items() for unit in units):
            totals[split].update(counts)
        lengths = {split: dict(sorted(counts.items())) for split, counts in sorted(totals.items())}
        facts = CaptionMetadata(
            inputs=self.captions.inputs,
            words=len(read_vocabulary(check_file(self.root, files["vocabulary"]))),
            captions={split: sum(counts.values()) for split, counts in lengths.items()},
            tokens={split: sum(n * count for n, count in counts.items()) for split, counts in lengths.items()},
            unknown={split: sum(unit.unknown.get(split, 0) for unit in units) for split in lengths},
            truncated=sum(unit.truncated for unit in units),
            longest=max(max(counts) for counts in lengths.values()),
            lengths=lengths,
        )
        shards = tuple(unit.shard for unit in units)
        return Manifest(table=self.table_config.fingerprint, shards=shards, files=files, facts=facts)

    def _is_final(self, data: bytes) -> bool:
        shard = TokenizedUnit.model_validate_json(data).shard
        return all(has_valid_checksum(self.root, entry) for entry in shard.entries())


def _divide_by_shard(batches: Iterable[pa.RecordBatch], count: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Divides sorted batches at shard boundaries. Yields each part with its shard number."""
    for batch in batches:
        numbers = find_shards(stack_keys(batch), count)
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, end in pairwise(starts):
            yield int(numbers[start]), batch.slice(start, end - start)


def _copy_transform(transform: Path, root: Path, commit: str) -> dict[str, FileEntry]:
    files = {}
    for path in sorted(path for path in transform.rglob("*") if path.is_file()):
        role = f"transform/{path.relative_to(transform).as_posix()}"
        files[role] = _copy(path, root, f"{commit}/{role}")
    vocabulary = f"transform/{vocabulary_path(transform).relative_to(transform).as_posix()}"
    return {**files, "vocabulary": files[vocabulary]}


def _copy(source: Path, root: Path, name: str) -> FileEntry:
    with atomic_write(root / name) as temporary:
        shutil.copyfile(source, temporary)
    return describe_file(root / name, root)
