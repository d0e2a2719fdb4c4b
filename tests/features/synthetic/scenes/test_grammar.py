"""Captions parse to the description that they were written from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.grammar import CAPTIONS, parse_caption, write_captions
from features.synthetic.scenes.scene import (
    COLORS,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    SceneObject,
)

scene_objects = st.builds(SceneObject, st.sampled_from(SIZES), st.sampled_from(COLORS), st.sampled_from(SHAPES))
any_scene = st.builds(make_scene, st.integers(0, 2**63), st.integers(1, 2**40))


@st.composite
def descriptions(draw_from):
    seen = draw_from(st.lists(scene_objects, min_size=1, max_size=3, unique=True))
    relation = draw_from(st.sampled_from(RELATIONS)) if len(seen) > 1 else None
    return Description(tuple(seen), relation)


@given(any_scene)
@settings(deadline=None)
def test_each_caption_parses_to_the_description_of_its_scene(scene):
    assert len(set(scene.captions)) == CAPTIONS
    for caption in scene.captions:
        parsed = parse_caption(caption)
        assert parsed.canonical == scene.description.canonical
        assert parsed.matches(scene)


@given(descriptions(), st.integers(0, 1000))
@settings(deadline=None)
def test_written_captions_parse_to_their_description(description, seed):
    for caption in write_captions(description, np.random.default_rng(seed)):
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert parse_caption(caption).canonical == description.canonical
        assert parse_caption(caption.lower().replace(",", "").strip(".")) == parse_caption(caption)


def test_a_scene_has_many_phrasings():
    pair = Description((SceneObject("small", "red", "star"), SceneObject("large", "blue", "heart")), "above")
    random = np.random.default_rng(0)
    assert len({caption for _ in range(200) for caption in write_captions(pair, random)}) > 100


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "A dog on a sofa.",
        "a red circle",
        "a large red circle is above",
        "a large red circle above a large red",
        "a large red circle and a small blue star",
        "a large red circle is is above a small blue star",
        "a large red circles",
        "<unk> large red circle",
        "a large red circle a large red circle",
    ],
)
def test_a_sentence_outside_the_grammar_has_no_description(caption):
    assert parse_caption(caption) is None


def test_a_relation_and_its_opposite_have_the_same_meaning():
    one = parse_caption("A big red circle is over a little blue star.")
    other = parse_caption("A small blue star below a large red circle")
    assert one == Description((SceneObject("large", "red", "circle"), SceneObject("small", "blue", "star")), "above")
    assert one != other
    assert one == other.canonical
