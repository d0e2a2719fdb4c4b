"""Splits captions into lowercase words without punctuation, without Java, and finds words that no reference has.

The plain tokenizer follows `ptb`, the Java tokenizer of COCO's evaluation: contractions become two words (`does n't`,
`man 's`), hyphens, periods and commas within a word stay, brackets count as words, other punctuation is removed.
"""

import re
from collections.abc import Sequence
from typing import Literal

Tokenizer = Literal["ptb", "plain"]

_CONTRACTED = re.compile(r"(?<=[a-z])(n't|'(?:s|re|ve|ll|d|m))(?![^\W_])")
_JOINED = re.compile(r"\b(can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:gim|lem)(?=me\b))")
_TOKEN = re.compile(r"n't|'(?:s|re|ve|ll|d|m)\b|[^\W_](?:[\w/]|[-.,:'@&](?=\w))*|[^\w\s]|_+")
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_DROPPED = frozenset("'\"`.?!,:;-")
_PLAIN_MARKS = str.maketrans("‘’“”–—…", "''\"\"--.")


def one_line(text: str) -> str:
    """Returns the text with all white space, including line ends, as single spaces."""
    return " ".join(text.split())


def plain_tokens(text: str) -> list[str]:
    """Returns the words of a caption."""
    text = _CONTRACTED.sub(r" \1", text.lower().translate(_PLAIN_MARKS))
    text = _JOINED.sub(r"\1 ", text)
    return [_BRACKETS.get(token, token) for token in _TOKEN.findall(text) if token not in _DROPPED]


def plain_tokenize(texts: Sequence[str]) -> list[str]:
    """Returns the words of each text, joined by spaces."""
    return [" ".join(plain_tokens(text)) for text in texts]


def mark_wrong_words(words: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Returns for each word of a caption whether no reference contains it; punctuation is never wrong."""
    known = {token for text in references for token in plain_tokens(text)}
    return [not known.issuperset(plain_tokens(word)) for word in words]
