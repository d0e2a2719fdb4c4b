"""Finds words and phrases in the captions of a store: whether a model can say them, how often they occur, and where."""

import hashlib
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from features.store import CaptionTable
from schemas.errors import UsageError
from schemas.table_config import SPECIAL_TOKENS, CaptionTableConfig
from schemas.tables import SPLITS

_BATCH = 8192

_Phrase = tuple[str, ...]


@dataclass(frozen=True)
class FoundCaption:
    """A caption that contains a word."""

    image_id: str
    split: str
    caption: str


@dataclass
class WordUse:
    """The use of a word or phrase in the captions of one or several tables.

    Args:
        text: The standardized word, or the words of a phrase.
        token_ids: ID of each word; None for words that are not in the vocabulary.
        occurrences, captions, images: Numbers by split.
        examples: Captions of different images, by dataset.
        reason: Why a word is not in the vocabulary, if one is not.
    """

    text: str
    token_ids: tuple[int | None, ...]
    occurrences: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, FoundCaption]] = field(default_factory=list)
    reason: str = ""

    @property
    def in_vocabulary(self) -> bool:
        """Whether a model can generate all of the words."""
        return None not in self.token_ids

    def counts(self, split: str) -> tuple[int, int, int]:
        """Returns the numbers of occurrences, captions and images in a split."""
        return self.occurrences[split], self.captions[split], self.images[split]


def search_words(
    tables: Sequence[CaptionTable], words: Sequence[str], num_examples: int = 0, vocabulary: Sequence[str] = ()
) -> list[WordUse]:
    """Searches words and phrases in caption tables.

    Captions and words are standardized by the rules of the first table, and captions are searched as published, not as
    truncated. The examples of a word are those with the smallest hashes of the image ID, from the train split first.

    Args:
        tables: The caption tables.
        words: Words, or phrases such as `water bottle`.
        num_examples: Maximum number of examples per word.
        vocabulary: The tokens by ID; by default, those of the first table.

    Returns:
        One entry per word or phrase; texts that are equal after standardization share one.

    Raises:
        UsageError: A text has no word after standardization.
    """
    config, tokens = tables[0].table_config, vocabulary or tables[0].vocabulary()
    number = {word: token_id for token_id, word in enumerate(tokens) if token_id >= len(SPECIAL_TOKENS)}
    # A word of the vocabulary, such as one that a model generated, is already standardized.
    split = _split(words, config)
    phrases = [(word,) if word in number else tuple(parts) for word, parts in zip(words, split, strict=True)]
    if () in phrases:
        text = words[phrases.index(())]
        raise UsageError(f"{text!r} has no word after standardization ({config.standardization})")
    uses = {phrase: WordUse(" ".join(phrase), tuple(map(number.get, phrase))) for phrase in phrases}
    single: dict[_Phrase, WordUse] = {
        (word,): uses.get((word,)) or WordUse(word, (None,)) for phrase in phrases for word in phrase
    }
    for table in tables:
        _count(table, config, {**single, **uses}, num_examples)
    for phrase, use in uses.items():
        missing = [word for word, token_id in zip(phrase, use.token_ids, strict=True) if token_id is None]
        use.reason = "; ".join(_explain(word, single[word,], config) for word in dict.fromkeys(missing))
        use.examples[:] = sorted(use.examples, key=lambda one: _rank(one[1]))[:num_examples]
    return list(uses.values())


def _split(texts: Sequence[str], config: CaptionTableConfig) -> list[list[str]]:
    import tensorflow as tf

    from features.text.standardize import split_words

    with tf.device("CPU"):
        given = tf.constant([text.encode() for text in texts], tf.string, [len(texts)])
        rows = split_words(given, config.standardizer, config.filters).to_list()
    return [[word.decode() for word in row] for row in rows]


def _count(table: CaptionTable, config: CaptionTableConfig, uses: dict[_Phrase, WordUse], num_examples: int) -> None:
    """Counts phrases in the captions of one table, and collects the examples of each."""
    by_first: defaultdict[str, list[_Phrase]] = defaultdict(list)
    for phrase in uses:
        by_first[phrase[0]].append(phrase)
    images: defaultdict[_Phrase, set[str]] = defaultdict(set)
    nearest: defaultdict[_Phrase, list[FoundCaption]] = defaultdict(list)
    for found, words in _read(table, config):
        times = Counter(_matches(words, by_first))
        for phrase, count in times.items():
            uses[phrase].occurrences[found.split] += count
            uses[phrase].captions[found.split] += 1
            if found.image_id not in images[phrase]:
                images[phrase].add(found.image_id)
                uses[phrase].images[found.split] += 1
                insort(nearest[phrase], found, key=_rank)
                del nearest[phrase][num_examples:]
    for phrase, captions in nearest.items():
        uses[phrase].examples += [(table.table_config.dataset, one) for one in captions]


def _read(table: CaptionTable, config: CaptionTableConfig) -> Iterator[tuple[FoundCaption, list[str]]]:
    for batch in table.record_batches(_BATCH):
        columns = [batch.column(name).to_pylist() for name in ("image_id", "split", "caption")]
        for row, words in zip(zip(*columns, strict=True), _split(columns[-1], config), strict=True):
            yield FoundCaption(*row), words


def _matches(words: list[str], by_first: dict[str, list[_Phrase]]) -> Iterable[_Phrase]:
    """Iterates over the phrases in a caption, each as often as it occurs."""
    for start, word in enumerate(words):
        for phrase in by_first.get(word, ()):
            if tuple(words[start : start + len(phrase)]) == phrase:
                yield phrase


def _rank(found: FoundCaption) -> tuple[int, bytes, str]:
    return SPLITS.index(found.split), hashlib.sha256(found.image_id.encode()).digest(), found.image_id


def _explain(word: str, use: WordUse, config: CaptionTableConfig) -> str:
    if not use.occurrences["train"]:
        return f"{word} is in no train caption"
    if config.vocabulary.startswith("given:"):
        return f"{word} is not in the reused vocabulary"
    limits = f"--vocab-size {config.vocab_size}, --min-count {config.min_count}"
    return f"{word} is too rare for the vocabulary ({limits})"
