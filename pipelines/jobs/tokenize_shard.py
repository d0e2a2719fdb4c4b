"""Tokenizes one work unit of captions into one shard."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.io.locations import parse_location
from features.store.caption_table import transform_directory
from features.store.shards import ShardWriter
from features.text.tokenizer import Tokenizer, Tokens
from pipelines.beam.work_plans import Advance, open_unit
from schemas.frozen import Frozen
from schemas.manifests import FileEntry, Shard
from schemas.table_config import UNKNOWN, CaptionTableConfig
from schemas.tables import CAPTIONS

_BATCH = 8192


class TokenizedUnit(Frozen):
    """The result of a unit: its shard, and counts as in `schemas.manifests.CaptionMetadata`."""

    shard: Shard
    unknown: dict[str, int]
    lengths: dict[str, dict[int, int]]
    truncated: int


@dataclass(frozen=True)
class TokenizeShard:
    """Tokenizes the captions of one unit into one shard. The result is a `TokenizedUnit` in JSON.

    `transform` contains role and entry of each file of the saved transform. `commit` is the shard's directory in the
    table, which has `count` shards.
    """

    root: str
    transform: tuple[tuple[str, FileEntry], ...]
    table_config: CaptionTableConfig
    commit: str
    count: int

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """Returns the result of a unit, whose name is the number of its shard."""
        tokenizer = _load_tokenizer(self.root, self.transform)
        writer = ShardWriter(
            parse_location(self.root), self.commit, CAPTIONS, self.table_config.format, int(unit.stem), self.count
        )
        unknown, lengths, truncated = Counter[str](), defaultdict[str, Counter[int]](Counter), 0
        try:
            with open_unit(unit) as file:
                for batch in file.iter_batches(_BATCH):
                    tokens = tokenizer.tokenize_utf8(batch["caption"].cast(pa.binary()).to_pylist())
                    writer.append_batch(_build_rows(batch, self.table_config.dataset, tokens))
                    splits = batch["split"].dictionary_encode()
                    rows = splits.indices.to_numpy()
                    token_rows = np.repeat(rows, tokens.lengths)
                    for number, split in enumerate(splits.dictionary.to_pylist()):
                        unknown[split] += int(np.count_nonzero(tokens.ids[token_rows == number] == UNKNOWN))
                        lengths[split].update(tokens.lengths[rows == number].tolist())
                    truncated += tokens.truncated
                    advance(batch.num_rows, 0)
            shard = writer.close()
        finally:
            writer.abandon()
        assert shard is not None
        result = TokenizedUnit(
            shard=shard,
            unknown=unknown,
            lengths={split: dict(counts) for split, counts in lengths.items()},
            truncated=truncated,
        )
        return result.model_dump_json().encode()


def _build_rows(batch: pa.RecordBatch, dataset: str, tokens: Tokens) -> pa.RecordBatch:
    schema = CAPTIONS.arrow_schema()
    ends = np.cumsum(tokens.lengths, dtype=np.int32)
    added = {
        "dataset": pa.repeat(pa.scalar(dataset), batch.num_rows),
        "tokens": pa.ListArray.from_arrays(np.concatenate([np.zeros(1, np.int32), ends]), tokens.ids),
    }
    return pa.record_batch([added[name] if name in added else batch[name] for name in schema.names], schema=schema)


@lru_cache(maxsize=2)
def _load_tokenizer(root: str, transform: tuple[tuple[str, FileEntry], ...]) -> Tokenizer:
    return Tokenizer(transform_directory(parse_location(root), dict(transform)))
