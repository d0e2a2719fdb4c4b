"""The text job: captions in, a committed table of tokens out, with the vocabulary and transform that made it."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa

from features.io.atomic_files import atomic_write, describe_file
from features.io.file_trees import remove_tree
from features.io.locations import parse_location
from features.io.plain_paths import plain_path
from features.store import CaptionTable
from features.store.commit_log import CommitLog
from features.store.corruption import check_file, has_valid_checksum
from features.store.shards import choose_shard_count, find_shards
from features.text.vocabulary import read_vocabulary, vocabulary_path
from pipelines.beam.runners import run_pipeline
from pipelines.beam.scratch import open_scratch
from pipelines.beam.work_units import delete_results, open_unit, read_progress, read_results, run_units, write_batches
from pipelines.ingest.caption_database import SELECTED_CAPTIONS
from pipelines.ingest.selected_captions import SelectedCaptions
from pipelines.jobs.tokenize_shard import TokenizedUnit, TokenizeShard
from schemas.errors import CaptError
from schemas.manifests import CaptionMetadata, FileEntry, Manifest
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT, SPECIAL_TOKENS, CaptionTableConfig, compute_digest
from schemas.tables import FILE_NAMES
from schemas.terminal.progress import show_progress

_ROW_BYTES = 256
_LEARNING_BATCH = 65_536


@dataclass(frozen=True)
class CaptionJob:
    """One run's tokenizing into one table.

    Args:
        root: Path. The table's directory.
        work: Path. Where plans lie.
        table_config: CaptionTableConfig. What a row means.
        words: sequence of str or None. A given vocabulary by id; None learns one from the train captions.
        captions: Chosen. The captions that the commit is to hold.
        known: CaptionTable or None. What the table holds so far; None where that is nothing, or damaged.
    """

    root: Path
    work: Path
    table_config: CaptionTableConfig
    words: Sequence[str] | None
    captions: SelectedCaptions
    known: CaptionTable | None

    def run(self, beam_options: Sequence[str]) -> Manifest:
        """Tokenize the captions and commit them in place of what the table holds."""
        count = choose_shard_count(self.captions.rows, _ROW_BYTES)
        commit = compute_digest([self.table_config.fingerprint, self.captions.inputs, count])[:SHORT_FINGERPRINT]
        plan = self.work / f"{self.table_config.fingerprint[:SHORT_FINGERPRINT]}-{commit}"
        for number, batches in groupby(_by_shard(self.captions.batches(), count), lambda part: part[0]):
            write_batches(plan, f"{number:05d}", (batch for _, batch in batches), SELECTED_CAPTIONS)
        transform = self._transform_files(plan, commit, beam_options)
        delete_results(plan, self._holds)
        worker = TokenizeShard(str(self.root), tuple(transform.items()), self.table_config, commit, count)
        with show_progress("tokenizing", self.captions.rows, "captions", lambda: read_progress(plan)):
            run_units(plan, worker, beam_options, "Tokenize")
        files = {**transform, **self._names_file(commit)}
        manifest = self._manifest([TokenizedUnit.model_validate_json(data) for data in read_results(plan)], files)
        CommitLog(self.root).supersede(manifest)
        remove_tree(plan)
        return manifest

    def _transform_files(self, plan: Path, commit: str, beam_options: Sequence[str]) -> dict[str, FileEntry]:
        """The table's transform, made where it has none, as manifest entries."""
        if self.known:
            files = self.known.manifests[-1].files
            return {role: entry for role, entry in files.items() if _is_transform(role)}
        with open_scratch(self.work) as directory:
            return _publish(self._make_transform(plan, directory, beam_options), self.root, commit)

    def _names_file(self, commit: str) -> dict[str, FileEntry]:
        """The file names of the images, as a manifest entry, where there are any."""
        if self.captions.names is None:
            return {}
        target = self.root / commit / self.captions.names.name
        with atomic_write(target) as temporary:
            shutil.copyfile(self.captions.names, temporary)
        return {FILE_NAMES.name: describe_file(target, self.root)}

    def _make_transform(self, plan: Path, directory: Path, beam_options: Sequence[str]) -> Path:
        # tensorflow-transform takes seconds to import, which a run with nothing new does not wait for.
        from features.text.transform import write_transform
        from pipelines.jobs.vocabulary import build_vocabulary

        made = directory / "transform"
        if self.words is not None:
            write_transform(self.words, self.table_config, made)
            return made
        with plain_path(directory) as plain, run_pipeline(beam_options) as pipeline:
            batches = (
                pipeline
                | "Captions" >> beam.Create([str(plan)])
                | "CaptionUnits" >> beam.FlatMap(_unit_names)
                | "SpreadCaptions" >> beam.Reshuffle()
                | "TrainCaptions" >> beam.FlatMap(_train_batches)
            )
            build_vocabulary(batches, self.table_config, made, plain / "temporary")
        if len(read_vocabulary(made)) == len(SPECIAL_TOKENS):
            raise CaptError(
                f"no word of the train captions is seen {self.table_config.min_count} times", hint="lower --min-count"
            )
        return made

    def _manifest(self, units: list[TokenizedUnit], files: dict[str, FileEntry]) -> Manifest:
        if sum(unit.shard.rows for unit in units) != self.captions.rows:
            raise CaptError(f"{self.captions.rows} captions were planned, and units account for another number")
        lengths = _by_split(unit.lengths for unit in units)
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

    def _holds(self, data: bytes) -> bool:
        """Whether a unit's result still has the files that it tells of."""
        return all(
            has_valid_checksum(self.root, entry) for entry in TokenizedUnit.model_validate_json(data).shard.entries()
        )


def _by_shard(batches: Iterable[pa.RecordBatch], count: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches cut where shards end, each part with its shard's number."""
    for batch in batches:
        numbers = find_shards(stack_keys(batch), count)
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, end in pairwise(starts):
            yield int(numbers[start]), batch.slice(start, end - start)


def _by_split(parts: Iterable[dict[str, dict[int, int]]]) -> dict[str, dict[int, int]]:
    total: dict[str, Counter[int]] = {}
    for part in parts:
        for split, counts in part.items():
            total.setdefault(split, Counter()).update(counts)
    return {split: dict(sorted(counts.items())) for split, counts in sorted(total.items())}


def _unit_names(plan: str) -> Iterator[str]:
    return (str(unit) for unit in sorted((parse_location(plan) / "units").glob("*.parquet")))


def _train_batches(unit: str) -> Iterator[pa.RecordBatch]:
    with open_unit(parse_location(unit)) as file:
        for batch in file.iter_batches(_LEARNING_BATCH, columns=["split", "caption"]):
            train = batch.filter(pa.compute.equal(batch["split"], "train"))
            if train.num_rows:
                yield train.select(["caption"])


def _publish(made: Path, root: Path, commit: str) -> dict[str, FileEntry]:
    files = {}
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        role = f"transform/{path.relative_to(made).as_posix()}"
        target = root / commit / role
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
        files[role] = describe_file(target, root)
    vocabulary = f"transform/{vocabulary_path(made).relative_to(made).as_posix()}"
    return {**files, "vocabulary": files[vocabulary]}


def _is_transform(role: str) -> bool:
    return role == "vocabulary" or role.startswith("transform/")
