"""Defines table configs: all settings that determine a table's rows, and the fingerprint that identifies the table.

A fingerprint is the SHA-256 of the config's canonical JSON (sorted keys, no spaces, UTF-8) without the fields that are
None. A field with the default None may therefore be added, and existing tables keep their fingerprints. Any other new
field changes every fingerprint, and needs a new `version`.
"""

import hashlib
import json
import unicodedata
from typing import Any, Literal

from schemas import choices
from schemas.errors import UsageError
from schemas.frozen import Frozen
from schemas.tables import Table, features_table

SPECIAL_TOKENS = ("<pad>", "<unk>", "<start>", "<end>")
PAD, UNKNOWN, START, END = range(4)

# Characters at which the `keras` standardizer splits by default: those of Keras' Tokenizer.
KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'

# The extractor of features that a user computed elsewhere.
IMPORTED = "arrays"

# No standardizer keeps these, so that no text becomes a special token.
_ALWAYS_FILTERED = "<>"

# Hexadecimal digits in file names and printed tables.
SHORT_FINGERPRINT = 16


class TableConfig(Frozen):
    """The settings that determine a table's rows."""

    @property
    def canonical(self) -> bytes:
        """The content of `recipe.json`: canonical JSON without the fields that are None."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of `canonical`, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical).hexdigest()


class FeatureTableConfig(TableConfig):
    """The settings that determine the features of an image.

    Args:
        extractor: A name from `features.extractors`, or `IMPORTED`.
        weights: Identity of the weights: `random:SEED`, `imagenet:HASH` or `sha256:HEX`. Of imported features, the
            digest of the arrays and their names.
        layer: The layer whose output is stored.
        pooling: `avg` stores the mean over all locations; `none` stores [locations, channels].
        height, width: Input size in pixels; 1 for imported features, so that figures show the whole image.
        precision: Compute precision of the extractor; its input and output are float32.
        dtype: Storage dtype.
        compression: Compression of each value.
        resize: Resize method (`--resize-method`); a changed method needs a new name.
        fit: Resize mode (`--resize-mode`); a changed mode needs a new name.
        shorter_side: Length in pixels of the shortest edge before the crop (`--shortest-edge`); None for the smallest
            length that covers the input size.
        preprocess: Input preprocessing of a custom extractor, or scale and offset of a preset of KerasHub; None for the
            other extractors, which have their own.
        decoder: Decoder rules of `features.images.decode`; changed rules need a new name.
    """

    extractor: str
    weights: str
    layer: str
    pooling: choices.Pooling = "none"
    height: int
    width: int
    precision: choices.Precision
    dtype: choices.StorageDtype = "float16"
    format: choices.Format = "tfrecord"
    compression: choices.Compression = "none"
    resize: choices.ResizeMethod = "pillow-bilinear"
    fit: choices.ResizeMode = "stretch"
    shorter_side: int | None = None
    preprocess: str | None = None
    decoder: Literal["rgb-exif-1"] = "rgb-exif-1"
    version: Literal[1] = 1

    def table(self, shape: tuple[int, ...]) -> Table:
        """Returns the declaration of the table's rows, for features of the given shape."""
        return features_table(shape, self.dtype, self.compression)


class CaptionTableConfig(TableConfig):
    """The settings that determine the token IDs of a caption.

    Args:
        dataset: The dataset's name in the store.
        standardizer: A name from `features.text.standardize`.
        filters: Characters at which the `keras` standardizer splits (`parse_filters`); None for `KERAS_FILTERS`.
        vocab_size: Maximum vocabulary size, including the four special tokens; 0 for no limit.
        min_count: Minimum number of occurrences in the train split; rarer words become `<unk>`.
        max_length: Maximum caption length in tokens, including start and end; 0 for no limit.
        vocabulary: `train:HEX`, the digest of the train captions, or `given:HEX`, the digest of the reused vocabulary.
        special: The tokens with IDs 0, 1, 2 and 3.
    """

    dataset: str
    standardizer: choices.Standardizer = "keras"
    filters: str | None = None
    vocab_size: int = 5000
    min_count: int = 1
    max_length: int = 0
    vocabulary: str
    special: tuple[str, ...] = SPECIAL_TOKENS
    format: choices.Format = "parquet"
    version: Literal[1] = 1

    @property
    def standardization(self) -> str:
        """The standardizer, with its filter characters if they are not the default, for people."""
        return self.standardizer if self.filters is None else f"{self.standardizer} {self.filters}"

    def check(self) -> None:
        """Raises UsageError if a limit leaves no room for a word, or is invalid."""
        if self.special != SPECIAL_TOKENS:
            raise UsageError(f"the special tokens must be {' '.join(SPECIAL_TOKENS)}, got {' '.join(self.special)}")
        for option, value, least, problem in (
            ("--vocab-size", self.vocab_size, 5, "a vocabulary of {} has no room for a word beside the special tokens"),
            ("--max-length", self.max_length, 3, "a caption of {} tokens has no room for a word between start and end"),
        ):
            if value and value < least:
                hint = f"Use at least {least}, or 0 for no limit."
                raise UsageError(problem.format(value), location=option, hint=hint)
        if self.min_count < 1:
            raise UsageError(f"invalid number {self.min_count}", location="--min-count", hint="Use 1 or more.")


def parse_filters(text: str | None, standardizer: choices.Standardizer) -> str | None:
    """Returns the filter characters of `--filters` in canonical form: equal sets of characters are equal texts.

    White space always separates words, and `<` and `>` always do; neither needs to be named. None stands for the
    characters of `KERAS_FILTERS`, so their fingerprints stay.

    Raises:
        UsageError: The standardizer has no filter characters, or the text is not valid Unicode.
    """
    if text is None:
        return None
    if standardizer != "keras":
        hint = "Omit --filters, or use --standardize keras."
        raise UsageError(f"the standardizer {standardizer} has no filter characters", location="--filters", hint=hint)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"character {error.start} is not valid Unicode", location="--filters") from None
    named = _significant(text)
    return None if named == _significant(KERAS_FILTERS) else named


def _significant(filters: str) -> str:
    characters = {*unicodedata.normalize("NFC", filters), *_ALWAYS_FILTERED}
    return "".join(sorted(one for one in characters if not one.isspace() and unicodedata.category(one) != "Cc"))


def canonical_json(value: Any) -> bytes:
    """Returns the value as JSON with sorted keys and no spaces, from which digests are computed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def compute_digest(value: Any) -> str:
    """Computes the SHA-256 of the value's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
