"""Computes the CIDEr-D of many sampled captions at once, with the document frequencies of the train references.

    references → word IDs, and per n-gram the number of images whose references contain it; once per run
    captions + references of their images → n-gram numbers → TF-IDF vectors → similarity per pair; once per step

If the captions of all images are scored, the mean equals the CIDEr-D of `trainer.metrics.score` with the plain
tokenizer. An n-gram is stored as one integer: the number of its first n − 1 words times the number of words, plus its
last word. So the document frequencies are exact and compact, and the captions of a step take milliseconds.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.table_config import END, PAD, START
from trainer.metrics.caption_tokenizer import plain_tokens

# Constants of pycocoevalcap.
_MAX_ORDER = 4
_SIGMA = 6.0
_SCALE = 10.0

_END_WORD = 0
_NO_NGRAM = np.iinfo(np.int64).max

_Integers = NDArray[Any]  # of any integer type
_Floats = NDArray[np.float64]


class CiderReward:
    """Scores captions, given as token IDs, against the references of train images.

    Args:
        references: Texts. Those of an image are adjacent, and every image has at least one.
        first: Number of the first reference of each image, and the number of references: int64 [images + 1].
        vocabulary: The tokens by ID.
        count_end: Whether the end of a caption counts as a word, in captions and references. Otherwise, an incomplete
            caption such as “a dog on a” can have a higher score than the complete one.
    """

    def __init__(
        self, references: Iterable[str], first: _Integers, vocabulary: Sequence[str], *, count_end: bool = True
    ) -> None:
        self._counts, self._first = np.diff(first), first
        ids: dict[str, int] = {"": _END_WORD}  # no word is empty
        end = [_END_WORD] if count_end else []
        self._references = _to_word_lists([*_number_words(text, ids), *end] for text in references)
        special: dict[int, list[int]] = {PAD: [], START: [], END: end}
        self._token_words = _to_word_lists(
            special[number] if number in special else _number_words(token, ids)
            for number, token in enumerate(vocabulary)
        )
        self._num_words = len(ids)
        self._log_images = np.log(max(len(self._counts), 1))
        self._documents = self._count_documents()

    def __call__(self, images: _Integers, tokens: _Integers) -> _Floats:
        """Returns the CIDEr-D of captions, from 0 to 10: float64 [B, K].

        Args:
            images: Numbers of images, int [B].
            tokens: Token IDs [B, K, T] of K captions per image without start and end token, padded with 0. A caption
                of T tokens has no end.
        """
        batch, samples, limit = tokens.shape
        counts = self._counts[images]
        captions = self._to_words(tokens.reshape(batch * samples, limit))
        references = self._references.select(_spans(self._first[images], counts))
        texts = captions.join(references)
        pairs = _Pairs(np.repeat(np.arange(batch), samples), counts)
        similarity = sum(pairs.compare(vectors) for vectors in self._weight_ngrams(texts))
        # pycocoevalcap measures the length of a text by its number of bigrams.
        scores = pairs.average(similarity * pairs.penalize(np.maximum(texts.lengths - 1, 0)))
        return _SCALE / _MAX_ORDER * scores.reshape(batch, samples)

    def _to_words(self, tokens: _Integers) -> "_WordLists":
        """Returns the words of captions of token IDs [N, T]."""
        ended = np.pad(tokens, ((0, 0), (0, 1)), constant_values=PAD)
        lengths = np.count_nonzero(tokens != PAD, axis=1)
        complete = np.flatnonzero(lengths < tokens.shape[1])
        ended[complete, lengths[complete]] = END
        words = self._token_words.select(ended.reshape(-1))
        return _WordLists(words.words, words.starts[:: ended.shape[1]])

    def _count_documents(self) -> list["_Documents"]:
        """Counts the images whose references contain each n-gram, for n = 1 … 4."""
        texts, counts = self._references, np.diff(self._first)
        image = np.repeat(np.repeat(np.arange(len(counts)), counts), texts.lengths)
        position, code = texts.start_ngrams()
        left, found = texts.count_left(), []
        for order in range(1, _MAX_ORDER + 1):
            position, code = _keep_longer(position, code, left, order)
            key = code * self._num_words + texts.words[position + order - 1]
            known, code = np.unique(key, return_inverse=True)
            pairs = np.unique(image[position] * len(known) + code)
            frequency = np.bincount(pairs % max(len(known), 1), minlength=len(known))
            idf = np.append(self._log_images - np.log(frequency), self._log_images)
            found.append(_Documents(np.append(known, _NO_NGRAM), idf))
        return found

    def _weight_ngrams(self, texts: "_WordLists") -> Iterator["_Vectors"]:
        """Iterates over the TF-IDF vectors of texts of n-grams, for n = 1 … 4."""
        text = np.repeat(np.arange(len(texts)), texts.lengths)
        position, code = texts.start_ngrams()
        left, known = texts.count_left(), np.zeros(1, np.int64)
        for order, documents in enumerate(self._documents, 1):
            position, code = _keep_longer(position, code, left, order)
            key = code * self._num_words + texts.words[position + order - 1]
            distinct, code = np.unique(key, return_inverse=True)
            before, word = np.divmod(distinct, self._num_words)
            # An n-gram whose first words are not found has a negative number, and is not found either.
            known = documents.find(known[before] * self._num_words + word)
            pair, count = np.unique(text[position] * len(distinct) + code, return_counts=True)
            owner, ngram = np.divmod(pair, max(len(distinct), 1))
            yield _Vectors(owner, ngram, count * documents.idf[known][ngram], len(distinct))


# === Texts and n-grams ===


@dataclass(frozen=True)
class _WordLists:
    """Word IDs of texts: those of text i are `words[starts[i]:starts[i + 1]]`."""

    words: _Integers
    starts: _Integers

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> _Integers:
        return np.diff(self.starts)

    def start_ngrams(self) -> tuple[_Integers, _Integers]:
        """Returns the positions of all n-grams of 0 words, and their number, 0."""
        return np.arange(len(self.words)), np.zeros(len(self.words), np.int64)

    def count_left(self) -> _Integers:
        """Returns the number of words of the text from each word on, this word included."""
        return np.repeat(self.starts[1:], self.lengths) - np.arange(len(self.words))

    def select(self, numbers: _Integers) -> "_WordLists":
        """Returns the texts with these numbers."""
        lengths = self.lengths[numbers]
        return _WordLists(self.words[_spans(self.starts[numbers], lengths)], _to_starts(lengths))

    def join(self, other: "_WordLists") -> "_WordLists":
        """Returns these texts and, after them, the others."""
        lengths = np.concatenate([self.lengths, other.lengths])
        return _WordLists(np.concatenate([self.words, other.words]), _to_starts(lengths))


@dataclass(frozen=True)
class _Documents:
    """The sorted n-grams of the references for one n, and their inverse document frequencies.

    The last element stands for n-grams that no reference contains.
    """

    ngrams: _Integers
    idf: _Floats

    def find(self, ngrams: _Integers) -> _Integers:
        """Returns the positions of n-grams; −1 if they are not among those of the references."""
        position = np.searchsorted(self.ngrams, ngrams)
        return np.where(self.ngrams[position] == ngrams, position, -1)


@dataclass(frozen=True)
class _Vectors:
    """TF-IDF vectors of texts for one n: the nonzero `values` by `text` and `ngram`, of `num_ngrams` in all texts."""

    text: _Integers
    ngram: _Integers
    values: _Floats
    num_ngrams: int

    def norms(self, num_texts: int) -> _Floats:
        """Returns the norm of the vector of each text; 1 if all its values are 0."""
        norms = np.sqrt(np.bincount(self.text, self.values**2, minlength=num_texts))
        return np.where(norms > 0, norms, 1.0)


class _Pairs:
    """The pairs of each caption with the references of its image.

    Texts have the captions first, then the references, those of the first image first.

    Args:
        image: Number of the image of each caption [captions].
        counts: Number of references of each image [images].
    """

    def __init__(self, image: _Integers, counts: _Integers) -> None:
        self._captions, self._counts = len(image), counts[image]
        self._image = np.concatenate([image, np.repeat(np.arange(len(counts)), counts)])
        self._first, self._width = _to_starts(counts), int(counts.max())

    def compare(self, vectors: _Vectors) -> _Floats:
        """Returns the clipped cosine similarities [captions, references of an image]; 0 for missing references."""
        norms = vectors.norms(len(self._image))
        key = self._image[vectors.text] * vectors.num_ngrams + vectors.ngram
        split = int(np.searchsorted(vectors.text, self._captions))
        order = split + np.argsort(key[split:], kind="stable")
        low, high = (np.searchsorted(key[order], key[:split], side) for side in ("left", "right"))
        ours, theirs = np.repeat(np.arange(split), high - low), order[_spans(low, high - low)]
        caption, reference = vectors.text[ours], vectors.text[theirs]
        product = np.minimum(vectors.values[ours], vectors.values[theirs]) * vectors.values[theirs]
        cell = caption * self._width + reference - self._captions - self._first[self._image[caption]]
        weights = product / (norms[caption] * norms[reference])
        sums: Any = np.bincount(cell, weights, minlength=self._captions * self._width)
        similarities: _Floats = sums.reshape(-1, self._width)
        return similarities

    def penalize(self, lengths: _Integers) -> _Floats:
        """Returns the factor for the difference of the lengths of caption and reference, as `compare`."""
        first = self._captions + self._first[self._image[: self._captions]]
        reference = np.minimum(first[:, None] + np.arange(self._width), len(lengths) - 1)
        difference = lengths[: self._captions, None] - lengths[reference]
        factors: _Floats = np.exp(-(difference**2) / (2 * _SIGMA**2))
        return factors

    def average(self, values: _Floats) -> _Floats:
        """Returns the mean over the references of each caption; values of missing references are 0."""
        means: _Floats = values.sum(axis=1) / self._counts
        return means


def _keep_longer(position: _Integers, code: _Integers, left: _Integers, order: int) -> tuple[_Integers, _Integers]:
    """Returns the n-grams that another word follows in their text, so that they can have `order` words."""
    kept = left[position] >= order
    return position[kept], code[kept]


def _number_words(text: str, ids: dict[str, int]) -> list[int]:
    """Returns the IDs of the words of a text; new words are added to `ids`."""
    return [ids.setdefault(word, len(ids)) for word in plain_tokens(text)]


def _to_word_lists(texts: Iterable[Sequence[int]]) -> _WordLists:
    words, lengths = array("i"), array("i")
    for text in texts:
        words.extend(text)
        lengths.append(len(text))
    return _WordLists(np.array(words, np.int32), _to_starts(np.array(lengths, np.int64)))


def _to_starts(lengths: _Integers) -> _Integers:
    """Returns the position of the first element of each of adjacent ranges, and of the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _spans(starts: _Integers, lengths: _Integers) -> _Integers:
    """Concatenates the ranges from each start to start + length − 1."""
    before = np.cumsum(lengths) - lengths
    numbers: _Integers = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return numbers
