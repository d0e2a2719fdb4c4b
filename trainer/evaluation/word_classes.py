"""Classifies the words of captions from a committed list: function words, colours, background, verbs and nouns."""

from functools import cache
from importlib.resources import files

import yaml

OTHER = "other"


@cache
def word_classes() -> dict[str, frozenset[str]]:
    """Returns the listed words by class. No word is in two classes."""
    text = files("trainer.evaluation").joinpath("word_classes.yaml").read_text(encoding="utf-8")
    return {name: frozenset(words.split()) for name, words in yaml.safe_load(text).items()}


def classify_word(word: str) -> str:
    """Returns the class of a lower-case word; an unlisted word in -ing is a verb, as most of them are."""
    listed = next((name for name, words in word_classes().items() if word in words), None)
    return listed or ("verbs" if word.endswith("ing") else OTHER)
