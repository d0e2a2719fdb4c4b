"""The tokenizing job's step: one unit of captions becomes one shard."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.store.shards import ShardWriter
from features.text import Tokenizer
from pipelines.units import Advance, read_unit
from schemas.manifests import Shard
from schemas.recipes import UNKNOWN, Frozen, TextRecipe
from schemas.tables import CAPTIONS, KEY_BYTES

TOKENIZE_UNIT = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("image_id", pa.string()),
        ("caption_id", pa.string()),
        ("split", pa.string()),
        ("caption", pa.string()),
    ]
)
_BATCH = 8192


class TokenizedUnit(Frozen):
    """What became of a unit: its shard, and counts by split."""

    shard: Shard
    captions: dict[str, int]
    tokens: dict[str, int]
    unknown: dict[str, int]
    truncated: int
    longest: int


@dataclass(frozen=True)
class TokenizeShard:
    """Tokenizes the captions of one unit into one shard.

    Args:
        root: str. The text table's directory.
        transform: str. Directory of the saved transform.
        recipe: TextRecipe. What a row means.
        commit: str. The directory within the table that the shard goes to.
        count: int. How many shards the commit's key ranges divide into.
    """

    root: str
    transform: str
    recipe: TextRecipe
    commit: str
    count: int

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """The result of the unit named by its shard's number."""
        tokenizer = _tokenizer(self.transform)
        writer = ShardWriter(Path(self.root), self.commit, CAPTIONS, self.recipe.format, int(unit.stem), self.count)
        tally = _Tally()
        try:
            rows = iter(read_unit(unit))
            while some := list(islice(rows, _BATCH)):
                tokens = tokenizer.tokenize([row["caption"] for row in some])
                for row, ids in zip(some, tokens.rows(), strict=True):
                    writer.append({"dataset": self.recipe.dataset, **row, "tokens": ids.tolist()})
                    tally.add(row["split"], ids)
                tally.truncated += tokens.truncated
                advance(len(some), 0)
            shard = writer.close()
        finally:
            writer.abandon()
        assert shard is not None
        return tally.result(shard).model_dump_json().encode()


class _Tally:
    def __init__(self) -> None:
        self.captions: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.truncated = 0
        self.longest = 0

    def add(self, split: str, ids: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self.captions[split] += 1
        self.tokens[split] += len(ids)
        self.unknown[split] += int((ids == UNKNOWN).sum())
        self.longest = max(self.longest, len(ids))

    def result(self, shard: Shard) -> TokenizedUnit:
        return TokenizedUnit(
            shard=shard,
            captions=self.captions,
            tokens=self.tokens,
            unknown=self.unknown,
            truncated=self.truncated,
            longest=self.longest,
        )


@lru_cache(maxsize=2)
def _tokenizer(transform: str) -> Tokenizer:
    return Tokenizer(Path(transform))
