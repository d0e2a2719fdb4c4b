"""The grammar of scenes: what captions say in many ways, and what a caption claims.

description → sentences → description
"""

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from features.synthetic.scenes.scene import (
    COLORS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    Relation,
    SceneObject,
    Size,
)

CAPTIONS = 5

_T = TypeVar("_T")


_SIZE_WORDS: dict[Size, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
_RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_ONE = ("{a}", "there is {a}", "the picture shows {a}", "you can see {a}", "this is {a}")
_TWO = (
    "{a} is {relation} {b}",
    "{a} {relation} {b}",
    "there is {a} {relation} {b}",
    "the picture shows {a} {relation} {b}",
    "you can see {a} {relation} {b}",
    "{relation} {b} is {a}",
    "{relation} {b} there is {a}",
)
_THIRD = ("{two}, and there is {c}", "{two}, along with {c}", "{two}, and also {c}")
_THREE = tuple(third.replace("{two}", two) for third in _THIRD for two in _TWO)
_TEMPLATES = (_ONE, _TWO, _THREE)


def write_captions(description: Description, random: np.random.Generator) -> tuple[str, ...]:
    """`CAPTIONS` different sentences that all say the same, a relation being told from either side."""
    captions: dict[str, None] = {}
    while len(captions) < CAPTIONS:
        captions[_sentence(description, random)] = None
    return tuple(captions)


def parse_caption(caption: str) -> Description | None:
    """What a caption claims, or None where it is no sentence of the grammar.

    Capitals and punctuation do not matter, so that a model's output parses as the references do.
    """
    words = " ".join(re.findall(r"\S+", re.sub(r"[.,]", " ", caption.lower())))
    match = next(filter(None, (pattern.fullmatch(words) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    found = match.groupdict()
    things = tuple(_thing_of(found[name]) for name in "abc" if name in found)
    return Description(things, _MEANING[found["relation"]] if "relation" in found else None)


def _sentence(description: Description, random: np.random.Generator) -> str:
    things, relation, words = description.things, description.relation, ""
    if relation is not None:
        if random.integers(2):
            things, relation = (things[1], things[0], *things[2:]), OPPOSITE[relation]
        words = pick(random, _RELATION_WORDS[relation])
    phrases = {name: _phrase(thing, random) for name, thing in zip("abc", things, strict=False)}
    text = pick(random, _TEMPLATES[len(things) - 1]).format(relation=words, **phrases)
    return f"{text[0].upper()}{text[1:]}."


def _phrase(thing: SceneObject, random: np.random.Generator) -> str:
    return f"a {pick(random, _SIZE_WORDS[thing.size])} {thing.color} {thing.shape}"


def _thing_of(phrase: str) -> SceneObject:
    _, size, color, shape = phrase.split()
    return SceneObject(
        next(each for each in SIZES if size in _SIZE_WORDS[each]),
        next(each for each in COLORS if each == color),
        next(each for each in SHAPES if each == shape),
    )


def _pattern(template: str) -> re.Pattern[str]:
    sizes = [word for words in _SIZE_WORDS.values() for word in words]
    phrase = f"a ({'|'.join(sizes)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
    groups = {name: f"(?P<{name}>{phrase})" for name in "abc"}
    return re.compile(template.replace(",", "").format(relation=f"(?P<relation>{'|'.join(_MEANING)})", **groups))


_MEANING: dict[str, Relation] = {word: relation for relation in RELATIONS for word in _RELATION_WORDS[relation]}
_PATTERNS = tuple(_pattern(template) for templates in _TEMPLATES for template in templates)


def pick(random: np.random.Generator, options: Sequence[_T]) -> _T:
    """One of the options, each as likely."""
    return options[int(random.integers(len(options)))]
