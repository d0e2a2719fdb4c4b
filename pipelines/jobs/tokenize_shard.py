"""The tokenizing job's step: one unit of captions becomes one shard."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.io.locations import parse_location
from features.store.caption_table import transform_directory
from features.store.shards import ShardWriter
from features.text.tokenizer import Tokenizer, Tokens
from pipelines.beam.work_units import Advance, open_unit
from schemas.frozen import Frozen
from schemas.manifests import FileEntry, Shard
from schemas.table_config import UNKNOWN, CaptionTableConfig
from schemas.tables import CAPTIONS

_BATCH = 8192

# The role and the file of each part.
Transform = tuple[tuple[str, FileEntry], ...]


class TokenizedUnit(Frozen):
    """What became of a unit: its shard, and what `schemas.manifests.CaptionMetadata` says of the captions in it."""

    shard: Shard
    unknown: dict[str, int]
    lengths: dict[str, dict[int, int]]
    truncated: int


@dataclass(frozen=True)
class TokenizeShard:
    """Tokenizes the captions of one unit into one shard.

    Args:
        root: str. The text table's directory.
        transform: Transform. The files of the saved transform.
        table_config: CaptionTableConfig. What a row means.
        commit: str. The directory within the table that the shard goes to.
        count: int. How many shards the commit's key ranges divide into.
    """

    root: str
    transform: Transform
    table_config: CaptionTableConfig
    commit: str
    count: int

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """The result of the unit named by its shard's number."""
        tokenizer = _tokenizer(self.root, self.transform)
        writer = ShardWriter(
            parse_location(self.root), self.commit, CAPTIONS, self.table_config.format, int(unit.stem), self.count
        )
        tally = _Tally()
        try:
            for batch in _batches(unit):
                tokens = tokenizer.tokenize_utf8(batch["caption"].cast(pa.binary()).to_pylist())
                writer.append_batch(_rows(batch, self.table_config.dataset, tokens))
                tally.add(batch["split"], tokens)
                advance(batch.num_rows, 0)
            shard = writer.close()
        finally:
            writer.abandon()
        assert shard is not None
        return tally.result(shard).model_dump_json().encode()


class _Tally:
    def __init__(self) -> None:
        self._unknown: Counter[str] = Counter()
        self._lengths: dict[str, Counter[int]] = {}
        self._truncated = 0

    def add(self, splits: pa.StringArray, tokens: Tokens) -> None:
        coded = splits.dictionary_encode()
        rows = coded.indices.to_numpy()
        words = np.repeat(rows, tokens.lengths)
        for number, split in enumerate(coded.dictionary.to_pylist()):
            self._unknown[split] += int(np.count_nonzero(tokens.ids[words == number] == UNKNOWN))
            lengths, counts = np.unique(tokens.lengths[rows == number], return_counts=True)
            self._lengths.setdefault(split, Counter()).update(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))
        self._truncated += tokens.truncated

    def result(self, shard: Shard) -> TokenizedUnit:
        lengths = {split: dict(counts) for split, counts in self._lengths.items()}
        return TokenizedUnit(shard=shard, unknown=self._unknown, lengths=lengths, truncated=self._truncated)


def _batches(unit: Path) -> Iterator[pa.RecordBatch]:
    with open_unit(unit) as file:
        yield from file.iter_batches(_BATCH)


def _rows(batch: pa.RecordBatch, dataset: str, tokens: Tokens) -> pa.RecordBatch:
    """The rows of a batch of captions, as the table has them."""
    schema = CAPTIONS.arrow_schema()
    ends = np.cumsum(tokens.lengths, dtype=np.int32)
    made = {
        "dataset": pa.repeat(pa.scalar(dataset), batch.num_rows),
        "tokens": pa.ListArray.from_arrays(np.concatenate([np.zeros(1, np.int32), ends]), tokens.ids),
    }
    return pa.record_batch([made[name] if name in made else batch[name] for name in schema.names], schema=schema)


@lru_cache(maxsize=2)
def _tokenizer(root: str, transform: Transform) -> Tokenizer:
    return Tokenizer(transform_directory(parse_location(root), dict(transform)))
