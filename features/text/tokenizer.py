"""Converts captions to token IDs with a saved transform graph, and back."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.io.plain_paths import PlainPath
from features.text.padding import pad_tokens
from features.text.vocabulary import detokenize, read_vocabulary
from schemas.errors import RecordError, StoreError


@dataclass(frozen=True)
class Tokens:
    """The concatenated tokens of N captions."""

    ids: NDArray[np.int64]  # [sum of lengths]; each caption from 2 (start) to 3 (end); 1 is an OOV word
    lengths: NDArray[np.int64]  # [N], with start and end
    untruncated: NDArray[np.int64]  # [N], lengths without truncation

    def rows(self) -> list[NDArray[np.int64]]:
        """Returns the token IDs of each caption as views into `ids`."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.ids[start:end] for start, end in itertools.pairwise([0, *ends])]

    def padded(self, length: int | None = None) -> NDArray[np.int32]:
        """Returns the token IDs as an int32 matrix [N, length], padded with 0; see `features.text.padding`."""
        return pad_tokens(self.rows(), length)

    @property
    def truncated(self) -> int:
        """Number of truncated captions."""
        return int(np.count_nonzero(self.untruncated > self.lengths))


class Tokenizer:
    """Tokenizes captions with a saved transform. Threads can share a tokenizer.

    Args:
        transform_dir: Directory that `features.text.transform.write_transform` wrote, or a copy.

    Raises:
        StoreError: The directory contains no transform.

    Example:
        tokens = Tokenizer(table.transform_path).tokenize(["A dog runs.", "Two cats"])
        tokens.rows()   # [array([2, 4, 10, 33, 3]), array([2, 14, 1, 3])]
    """

    def __init__(self, transform_dir: Path) -> None:
        import tensorflow as tf

        # The import registers the normalizing operation of the graph.
        import tensorflow_text  # noqa: F401

        self.words = read_vocabulary(transform_dir)
        # The graph reads its vocabulary in every call, so the path must live as long as this object.
        self._plain = PlainPath(transform_dir)
        try:
            with tf.device("CPU"):
                self._saved = tf.saved_model.load(str(self._plain.path / "transform_fn"))
        except OSError:
            raise StoreError("the transform graph is missing", location=str(transform_dir)) from None

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """Tokenizes captions in their order. Batches of some thousands are fastest.

        Raises:
            RecordError: A caption contains an unpaired surrogate and cannot be encoded in UTF-8.
        """
        try:
            return self.tokenize_utf8([caption.encode() for caption in captions])
        except UnicodeEncodeError as error:
            raise RecordError("parse", "invalid text", f"unpaired surrogate at character {error.start}") from None

    def tokenize_utf8(self, captions: Sequence[bytes]) -> Tokens:
        """Tokenizes captions in UTF-8."""
        import tensorflow as tf

        with tf.device("CPU"):
            texts = tf.constant(captions, tf.string, shape=[len(captions)])
            result = self._saved.transform_fn({"caption": texts})
        tokens = result["tokens"]
        return Tokens(tokens.values.numpy(), tokens.row_lengths().numpy(), result["untruncated"].numpy())

    def detokenize(self, ids: Iterable[int]) -> str:
        return detokenize(ids, self.words)
