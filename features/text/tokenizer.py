"""Text: captions to token ids through a saved transform graph, and back."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.io.plain_paths import PlainPath
from features.text.vocabulary import detokenize, read_vocabulary
from schemas.errors import RecordError, StoreError


@dataclass(frozen=True)
class Tokens:
    """The tokens of N captions, end to end.

    Args:
        ids: int64 [sum of lengths]. Word ids; each caption goes from 2 (start) to 3 (end), 1 is an unknown word.
        lengths: int64 [N]. Tokens of each caption, start and end included.
        untruncated: int64 [N]. What `lengths` would be if no caption were cut.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    untruncated: NDArray[np.int64]

    def rows(self) -> list[NDArray[np.int64]]:
        """The ids of each caption, views into `ids`."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.ids[start:end] for start, end in itertools.pairwise([0, *ends])]

    @property
    def truncated(self) -> int:
        """How many of the captions were cut."""
        return int(np.count_nonzero(self.untruncated > self.lengths))


class Tokenizer:
    """Tokenizes captions with the transform that the vocabulary was saved with; threads may share one.

    Args:
        transform_dir: Path. The directory that `features.text.transform.write_transform` wrote, or a copy.

    Raises:
        StoreError: the directory holds no transform.

    Example:
        tokens = Tokenizer(table.transform_path).tokenize(["A dog runs.", "Two cats"])
        tokens.rows()   # [array([2, 4, 10, 33, 3]), array([2, 14, 1, 3])]
    """

    def __init__(self, transform_dir: Path) -> None:
        import tensorflow as tf

        # The graph's normalizing operation is registered by this import.
        import tensorflow_text  # noqa: F401

        self.words = read_vocabulary(transform_dir)
        # The graph reads its vocabulary at every call, so the path lasts as long as this object.
        self._plain = PlainPath(transform_dir)
        try:
            with tf.device("CPU"):
                self._saved = tf.saved_model.load(str(self._plain.path / "transform_fn"))
        except OSError:
            raise StoreError("there is no transform graph", location=str(transform_dir)) from None

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """The tokens of the captions, in their order; fastest on some thousands at once.

        Args:
            captions: sequence of str, possibly none. Texts as published.

        Raises:
            RecordError: a text cannot be written in UTF-8, since it holds half of a surrogate pair.
        """
        return self.tokenize_utf8([_encoded(caption) for caption in captions])

    def tokenize_utf8(self, captions: Sequence[bytes]) -> Tokens:
        """The tokens of captions that are UTF-8 already."""
        import tensorflow as tf

        with tf.device("CPU"):
            texts = tf.constant(captions, tf.string, shape=[len(captions)])
            result = self._saved.transform_fn({"caption": texts})
        tokens = result["tokens"]
        return Tokens(tokens.values.numpy(), tokens.row_lengths().numpy(), result["untruncated"].numpy())

    def detokenize(self, ids: Iterable[int]) -> str:
        """The words of one row of ids, joined by spaces, up to the end token; start and padding are left out."""
        return detokenize(ids, self.words)


def _encoded(caption: str) -> bytes:
    try:
        return caption.encode()
    except UnicodeEncodeError as error:
        raise RecordError("parse", "invalid text", f"half a surrogate pair at character {error.start}") from None
