"""Classifies the words of captions from a committed list: function words, colours, background, verbs and nouns."""

import re
from functools import cache
from importlib.resources import files

import yaml

OTHER = "other"

# Most verbs of captions are participles. These words end like one.
_PARTICIPLE = re.compile(
    r"(?!(?:building|ceiling|clothing|evening|king|morning|railing|ring|sling|string|thing|wing)$)\w{2,}ing"
)


@cache
def word_classes() -> dict[str, frozenset[str]]:
    """Returns the listed words by class, in order of precedence."""
    text = files("trainer.evaluation").joinpath("word_classes.yaml").read_text(encoding="utf-8")
    return {name: frozenset(words.split()) for name, words in yaml.safe_load(text).items()}


def classify_word(word: str) -> str:
    """Returns the class of a lower-case word; a participle that no list contains is a verb."""
    listed = next((name for name, words in word_classes().items() if word in words), None)
    return listed or ("verbs" if _PARTICIPLE.fullmatch(word) else OTHER)
