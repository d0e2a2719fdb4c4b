"""Tokenizes one work unit of captions into one shard."""

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

# Role and entry of each file.
TransformFiles = tuple[tuple[str, FileEntry], ...]


class TokenizedUnit(Frozen):
    """The result of a unit: its shard, and counts as in `schemas.manifests.CaptionMetadata`."""

    shard: Shard
    unknown: dict[str, int]
    lengths: dict[str, dict[int, int]]
    truncated: int


@dataclass(frozen=True)
class TokenizeShard:
    """Tokenizes the captions of one unit into one shard. The result is a `TokenizedUnit` in JSON.

    Args:
        root: The caption table's directory.
        transform: Files of the saved transform.
        table_config: The table's config.
        commit: Directory of the shard in the table.
        count: Number of shards of the commit.
    """

    root: str
    transform: TransformFiles
    table_config: CaptionTableConfig
    commit: str
    count: int

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """Returns the result of a unit, whose name is the number of its shard."""
        tokenizer = _load_tokenizer(self.root, self.transform)
        writer = ShardWriter(
            parse_location(self.root), self.commit, CAPTIONS, self.table_config.format, int(unit.stem), self.count
        )
        counter = _TokenCounter()
        try:
            for batch in _read_batches(unit):
                tokens = tokenizer.tokenize_utf8(batch["caption"].cast(pa.binary()).to_pylist())
                writer.append_batch(_build_rows(batch, self.table_config.dataset, tokens))
                counter.add(batch["split"], tokens)
                advance(batch.num_rows, 0)
            shard = writer.close()
        finally:
            writer.abandon()
        assert shard is not None
        return counter.build_result(shard).model_dump_json().encode()


class _TokenCounter:
    def __init__(self) -> None:
        self._unknown: Counter[str] = Counter()
        self._lengths: dict[str, Counter[int]] = {}
        self._truncated = 0

    def add(self, splits: pa.StringArray, tokens: Tokens) -> None:
        encoded = splits.dictionary_encode()
        rows = encoded.indices.to_numpy()
        token_rows = np.repeat(rows, tokens.lengths)
        for number, split in enumerate(encoded.dictionary.to_pylist()):
            self._unknown[split] += int(np.count_nonzero(tokens.ids[token_rows == number] == UNKNOWN))
            lengths, counts = np.unique(tokens.lengths[rows == number], return_counts=True)
            self._lengths.setdefault(split, Counter()).update(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))
        self._truncated += tokens.truncated

    def build_result(self, shard: Shard) -> TokenizedUnit:
        lengths = {split: dict(counts) for split, counts in self._lengths.items()}
        return TokenizedUnit(shard=shard, unknown=self._unknown, lengths=lengths, truncated=self._truncated)


def _read_batches(unit: Path) -> Iterator[pa.RecordBatch]:
    with open_unit(unit) as file:
        yield from file.iter_batches(_BATCH)


def _build_rows(batch: pa.RecordBatch, dataset: str, tokens: Tokens) -> pa.RecordBatch:
    """Returns the rows of the table for a batch of captions."""
    schema = CAPTIONS.arrow_schema()
    ends = np.cumsum(tokens.lengths, dtype=np.int32)
    added = {
        "dataset": pa.repeat(pa.scalar(dataset), batch.num_rows),
        "tokens": pa.ListArray.from_arrays(np.concatenate([np.zeros(1, np.int32), ends]), tokens.ids),
    }
    return pa.record_batch([added[name] if name in added else batch[name] for name in schema.names], schema=schema)


@lru_cache(maxsize=2)
def _load_tokenizer(root: str, transform: TransformFiles) -> Tokenizer:
    return Tokenizer(transform_directory(parse_location(root), dict(transform)))
