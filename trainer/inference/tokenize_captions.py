"""Runs `capt tokenize`: converts captions to words and token IDs, and token IDs to words.

captions → standardizer → words → vocabulary → token IDs → text, by the rules of a table, a run, or the options
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from features.store import CaptionTable, open_store
from features.text.vocabulary import detokenize, identify_given_vocabulary, rank_vocabulary
from schemas.errors import StoreError, UsageError
from schemas.options.prepare import Tokenize
from schemas.table_config import (
    END,
    SHORT_FINGERPRINT,
    SPECIAL_TOKENS,
    START,
    UNKNOWN,
    CaptionTableConfig,
    parse_filters,
)
from schemas.terminal.console import Printer
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.run import open_run

_SETTINGS = ("standardize", "filters", "vocab_size", "min_count", "max_length")
_HINT = "Use --store STORE, --run RUN, or options such as --standardize alone."


@dataclass(frozen=True)
class _Rules:
    """How captions are tokenized: settings, tokens by ID, and where both come from."""

    table_config: CaptionTableConfig
    vocabulary: Sequence[str]
    source: str

    @cached_property
    def number(self) -> dict[str, int]:
        """The IDs of the tokens."""
        return {word: token_id for token_id, word in enumerate(self.vocabulary)}


def tokenize(options: Tokenize) -> dict[str, Any]:
    """Tokenizes captions, and converts token IDs to words.

    Returns:
        `source` (what determined the rules), `standardizer`, `filters` (null for the default), `max_length` (0 for no
        limit), `vocab_size`, and `results`, first of the captions, then of `--ids`: `caption` (null for IDs), `words`
        (of the standardized caption, before truncation; null for IDs), `token_ids`, `tokens`, `text` (the words of the
        IDs, without special tokens except `<unk>`), `unknown_words` (the words that became `<unk>`) and `truncated`.

    Raises:
        UsageError: Nothing is given, options exclude each other, a caption is not valid Unicode, or an ID is unknown.
        StoreError: The store or the run has no such caption table.
    """
    if not options.captions and not options.ids:
        raise UsageError("there is nothing to tokenize", hint="Name a caption, or token IDs with --ids.")
    for caption in options.captions:
        _check_text(caption)
    rules = _find_rules(options)
    config = rules.table_config
    results = [_describe_caption(*one, rules) for one in _split_all(options.captions, config)]
    return {
        "source": rules.source,
        "standardizer": config.standardizer,
        "filters": config.filters,
        "max_length": config.max_length,
        "vocab_size": len(rules.vocabulary),
        "results": results + [_describe_ids(_parse_ids(ids, rules), rules) for ids in options.ids],
    }


def print_tokens(result: Mapping[str, Any]) -> None:
    """Prints the result of `tokenize`: one table per caption, one line per token."""
    printer = Printer()
    for one in result["results"]:
        title = "token IDs" if one["caption"] is None else one["caption"]
        printer.table(title, ("token", "unknown word"), ("ID",), _rows(one))
        printer.line(f"text: {one['text'] or '(empty)'}{' (truncated)' if one['truncated'] else ''}")
        printer.line("")
    printer.line(f"{result['source']}, {result['vocab_size']:,} tokens")


def _rows(one: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    """Iterates over the tokens of a result, with the word that each `<unk>` stands for."""
    words = iter(one["words"] or ())
    for token, token_id in zip(one["tokens"], one["token_ids"], strict=True):
        word = "" if token_id in (START, END) else next(words, "")
        yield token, "" if word == token else word, token_id


# === Rules ===


def _find_rules(options: Tokenize) -> _Rules:
    settings = [name for name in _SETTINGS if getattr(options, name) is not None]
    sources = [name for name in ("store", "run") if getattr(options, name)]
    if len(sources) > 1:
        raise UsageError("a store and a run are two sources of rules", location="--run", hint=_HINT)
    if sources and settings:
        flag = f"--{settings[0].replace('_', '-')}"
        raise UsageError(f"the rules of the {sources[0]} cannot be changed", location=flag, hint=_HINT)
    if options.caption_table and not options.store:
        raise UsageError("a caption table needs its store", location="--caption-table", hint="Add --store STORE.")
    if options.run:
        return _read_run(options.run)
    if options.store:
        return _read_table(options.store, options.caption_table)
    if options.ids:
        hint = "Add --store STORE or --run RUN."
        raise UsageError("only a vocabulary can convert token IDs to words", location="--ids", hint=hint)
    return _build_rules(options)


def _read_run(path: str) -> _Rules:
    run = open_run(path, CaptionerRun)
    return _Rules(run.metadata.caption_tables[0].table_config, run.vocabulary, f"run {run.path.name}")


def _read_table(path: str, fingerprint: str | None) -> _Rules:
    store = open_store(path)
    tables = [store.caption_table(fingerprint)] if fingerprint else store.caption_tables()
    if not tables:
        hint = "Add one with `capt prepare captions`."
        raise StoreError("the store has no caption table", location=str(store.path), hint=hint)
    if len(tables) > 1:
        found = "; ".join(map(_describe_table, tables))
        hint = "Choose one with --caption-table FINGERPRINT."
        raise StoreError(f"the store has several caption tables: {found}", location=str(store.path), hint=hint)
    return _Rules(tables[0].table_config, tables[0].vocabulary(), f"caption table {_describe_table(tables[0])}")


def _describe_table(table: CaptionTable) -> str:
    config = table.table_config
    return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({config.dataset}, {config.standardization})"


def _build_rules(options: Tokenize) -> _Rules:
    """Builds a vocabulary from the given captions, as `capt prepare captions` does from those of the train split."""
    standardizer = options.standardize or "keras"
    config = CaptionTableConfig(
        dataset="",
        standardizer=standardizer,
        filters=parse_filters(options.filters, standardizer),
        vocab_size=options.vocab_size or 0,
        min_count=1 if options.min_count is None else options.min_count,
        max_length=options.max_length or 0,
        vocabulary=identify_given_vocabulary(SPECIAL_TOKENS),
    )
    config.check()
    counts = Counter(itertools.chain.from_iterable(words for _, words in _split_all(options.captions, config)))
    frequent = ((count, word.encode()) for word, count in counts.items() if count >= config.min_count)
    vocabulary = rank_vocabulary(frequent)
    return _Rules(
        config,
        vocabulary[: config.vocab_size] if config.vocab_size else vocabulary,
        f"{config.standardization}, vocabulary of the given captions",
    )


# === Captions and IDs ===


def _check_text(caption: str) -> None:
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"character {error.start} is not valid Unicode", location=ascii(caption)) from None


def _split_all(captions: Sequence[str], config: CaptionTableConfig) -> Iterable[tuple[str, list[str]]]:
    """Returns each caption with its words."""
    if not captions:
        return []
    import tensorflow as tf

    from features.text.standardize import split_words

    with tf.device("CPU"):
        texts = tf.constant([caption.encode() for caption in captions], tf.string, [len(captions)])
        rows = split_words(texts, config.standardizer, config.filters).to_list()
    return [(caption, [word.decode() for word in row]) for caption, row in zip(captions, rows, strict=True)]


def _describe_caption(caption: str, words: list[str], rules: _Rules) -> dict[str, Any]:
    number = rules.number
    kept = words[: rules.table_config.max_length - 2] if rules.table_config.max_length else words
    ids = [START, *(number.get(word, UNKNOWN) for word in kept), END]
    return {
        **_describe_ids(ids, rules),
        "caption": caption,
        "words": words,
        "unknown_words": list(dict.fromkeys(word for word in kept if word not in number)),
        "truncated": len(kept) < len(words),
    }


def _describe_ids(ids: Sequence[int], rules: _Rules) -> dict[str, Any]:
    return {
        "caption": None,
        "words": None,
        "token_ids": list(ids),
        "tokens": [rules.vocabulary[token_id] for token_id in ids],
        "text": detokenize(ids, rules.vocabulary),
        "unknown_words": [],
        "truncated": False,
    }


def _parse_ids(text: str, rules: _Rules) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts:
        raise UsageError("there are no token IDs", location="--ids", hint="Use numbers, such as 2,4,10,3.")
    size = len(rules.vocabulary)
    for part in parts:
        if not (part.isascii() and part.isdigit()):
            raise UsageError(f"{part!r} is not a token ID", location="--ids", hint="Use numbers, such as 2,4,10,3.")
        if int(part) >= size:
            message = f"the vocabulary of {size:,} tokens has no ID {part}"
            raise UsageError(message, location="--ids", hint=f"Use 0 to {size - 1}.")
    return list(map(int, parts))
