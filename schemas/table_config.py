"""Recipes: everything that decides what a row of a table means, and the fingerprint that names it.

A fingerprint is the SHA-256 of the recipe's canonical JSON (sorted keys, no spaces, UTF-8), which leaves out the fields
that are None. So a field that is None by default may be added, and the tables there are keep their fingerprints; any
other new field changes every fingerprint, and is added only together with a new `version`.
"""

import hashlib
import json
from typing import Any, Literal

from schemas.choices import (
    Compression,
    Format,
    Pooling,
    Precision,
    ResizeMethod,
    ResizeMode,
    Standardizer,
    StorageDtype,
)
from schemas.errors import UsageError
from schemas.frozen import Frozen
from schemas.tables import Table, features_table

SPECIAL_TOKENS = ("<pad>", "<unk>", "<start>", "<end>")
PAD, UNKNOWN, START, END = range(4)

SHORT_FINGERPRINT = 16


class TableConfig(Frozen):
    """What a table's rows mean."""

    @property
    def canonical(self) -> bytes:
        """The recipe as its table keeps it: canonical JSON, without the fields that are None."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def fingerprint(self) -> str:
        """The recipe's SHA-256 as 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical).hexdigest()


class FeatureTableConfig(TableConfig):
    """How an image becomes a row of features.

    Args:
        extractor: str. A name of `features.extractors`.
        weights: str. `random:SEED`, `imagenet:HASH` or `sha256:HEX`: the weights' identity, known without a model.
        layer: str. The layer whose output is kept.
        pooling: str. `avg` averages over places; `none` keeps them, as (places, channels).
        height, width: int. Input size in pixels.
        precision: str. Arithmetic of the network; the input and output are float32 in either.
        dtype: str. Storage dtype.
        format: str. File format of the shards.
        compression: str. How each row's value is kept: `none`, or `zstd`.
        resize, fit: str. Named rules of `features.images.resize` and `features.images.resizer`; a changed rule gets
            a new name.
        shorter_side: int or None. Length of an image's shorter side before it is cropped, in pixels; None for the least
            that covers the input size.
        preprocess: str or None. How a network of the user's own scales its pixels; None for a network that is known by
            name, which has its own scaling.
        decoder: str. Named rules of `features.images.decode`; a changed rule gets a new name.
        version: int. Version of the extraction as a whole.
    """

    extractor: str
    weights: str
    layer: str
    pooling: Pooling = "none"
    height: int
    width: int
    precision: Precision
    dtype: StorageDtype = "float16"
    format: Format = "tfrecord"
    compression: Compression = "none"
    resize: ResizeMethod = "pillow-bilinear"
    fit: ResizeMode = "stretch"
    shorter_side: int | None = None
    preprocess: str | None = None
    decoder: Literal["rgb-exif-1"] = "rgb-exif-1"
    version: Literal[1] = 1

    def table(self, shape: tuple[int, ...]) -> Table:
        """The declaration of this recipe's table, for features of the given shape."""
        return features_table(shape, self.dtype, self.compression)


class CaptionTableConfig(TableConfig):
    """How captions become token ids.

    Args:
        dataset: str. The dataset's name in the store.
        standardizer: str. A name of `features.text.tokenizer`.
        vocab_size: int. Ids at most, the four special ones included; 0 for no bound.
        min_count: int. Words seen fewer times on the train split are unknown.
        max_length: int. Tokens at most, start and end included; longer captions are cut; 0 for no bound.
        vocabulary: str. `train:HEX` (digest of the train captions) or `given:HEX` (digest of the vocabulary used).
        special: tuple of str. The words with ids 0, 1, 2, 3.
        format: str. File format of the shards.
        version: int. Version of the tokenization as a whole.
    """

    dataset: str
    standardizer: Standardizer = "keras"
    vocab_size: int = 5000
    min_count: int = 1
    max_length: int = 0
    vocabulary: str
    special: tuple[str, ...] = SPECIAL_TOKENS
    format: Format = "parquet"
    version: Literal[1] = 1

    def check(self) -> None:
        """UsageError where the bounds leave no room for a word, or mean nothing."""
        if self.special != SPECIAL_TOKENS:
            raise UsageError(f"the special words are {' '.join(SPECIAL_TOKENS)}, got {' '.join(self.special)}")
        smallest = len(SPECIAL_TOKENS) + 1
        if self.vocab_size and self.vocab_size < smallest:
            raise UsageError(
                f"a vocabulary of {self.vocab_size} holds no word beside the special ones",
                hint=f"take at least {smallest}, or 0 for no bound",
            )
        if self.max_length and self.max_length < 3:
            raise UsageError(
                f"a length of {self.max_length} holds no word beside start and end",
                hint="take at least 3, or 0 for no bound",
            )
        if self.min_count < 1:
            raise UsageError(f"a word cannot be seen {self.min_count} times", hint="take a minimum count of 1 or more")


def canonical_json(value: Any) -> bytes:
    """The value as JSON with sorted keys and no spaces, the form that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def compute_digest(value: Any) -> str:
    """SHA-256 of the value's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
