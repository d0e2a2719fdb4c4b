"""Writes captions of descriptions in many phrasings, and parses captions to descriptions."""

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
    """Returns `CAPTIONS` different sentences with the same meaning. The relation is phrased from either side."""
    captions: dict[str, None] = {}
    while len(captions) < CAPTIONS:
        captions[_write_caption(description, random)] = None
    return tuple(captions)


def parse_caption(caption: str) -> Description | None:
    """Returns the description of a caption, or None if the grammar does not contain it.

    Case and punctuation are ignored, so that predictions parse like references.
    """
    words = " ".join(re.findall(r"\S+", re.sub(r"[.,]", " ", caption.lower())))
    match = next(filter(None, (pattern.fullmatch(words) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    groups = match.groupdict()
    objects = tuple(_parse_phrase(groups[name]) for name in "abc" if name in groups)
    return Description(objects, _RELATION_BY_WORDS[groups["relation"]] if "relation" in groups else None)


def choose(random: np.random.Generator, options: Sequence[_T]) -> _T:
    """Returns a uniformly random option."""
    return options[int(random.integers(len(options)))]


def _write_caption(description: Description, random: np.random.Generator) -> str:
    objects, relation, words = description.objects, description.relation, ""
    if relation is not None:
        if random.integers(2):
            objects, relation = (objects[1], objects[0], *objects[2:]), OPPOSITE[relation]
        words = choose(random, _RELATION_WORDS[relation])
    phrases = {
        name: f"a {choose(random, _SIZE_WORDS[each.size])} {each.color} {each.shape}"
        for name, each in zip("abc", objects, strict=False)
    }
    text = choose(random, _TEMPLATES[len(objects) - 1]).format(relation=words, **phrases)
    return f"{text[0].upper()}{text[1:]}."


def _parse_phrase(phrase: str) -> SceneObject:
    _, size, color, shape = phrase.split()
    return SceneObject(
        next(each for each in SIZES if size in _SIZE_WORDS[each]),
        next(each for each in COLORS if each == color),
        next(each for each in SHAPES if each == shape),
    )


def _compile_pattern(template: str) -> re.Pattern[str]:
    sizes = [word for words in _SIZE_WORDS.values() for word in words]
    phrase = f"a ({'|'.join(sizes)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
    groups = {name: f"(?P<{name}>{phrase})" for name in "abc"}
    relation = f"(?P<relation>{'|'.join(_RELATION_BY_WORDS)})"
    return re.compile(template.replace(",", "").format(relation=relation, **groups))


_RELATION_BY_WORDS: dict[str, Relation] = {words: each for each in RELATIONS for words in _RELATION_WORDS[each]}
_PATTERNS = tuple(_compile_pattern(template) for templates in _TEMPLATES for template in templates)
