"""A description matches a scene only if all objects and the relation are right."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.grammar import parse_caption
from features.synthetic.scenes.scene import (
    COLORS,
    OPPOSITE,
    SHAPES,
    SIZES,
    Description,
    PlacedObject,
    Scene,
    SceneObject,
)

scene_objects = st.builds(SceneObject, st.sampled_from(SIZES), st.sampled_from(COLORS), st.sampled_from(SHAPES))
any_scene = st.builds(make_scene, st.integers(0, 2**63), st.integers(1, 2**40))


@given(any_scene, st.data())
@settings(deadline=None)
def test_a_changed_description_does_not_match(scene, data):
    truth = scene.description
    index = data.draw(st.integers(0, len(truth.objects) - 1))
    other = data.draw(scene_objects.filter(lambda each: each not in truth.objects))
    changed = tuple(other if i == index else each for i, each in enumerate(truth.objects))
    assert not replace(truth, objects=changed).matches(scene)
    if truth.relation:
        assert not replace(truth, relation=OPPOSITE[truth.relation]).matches(scene)
        assert not Description(truth.objects[:1]).matches(scene)


@pytest.fixture
def scene():
    """A small red star left of a large blue heart, above both a black cross."""
    objects = (
        PlacedObject(SceneObject("small", "red", "star"), (20, 150, 40, 40), 0),
        PlacedObject(SceneObject("large", "blue", "heart"), (200, 130, 90, 90), 0),
        PlacedObject(SceneObject("small", "black", "cross"), (20, 20, 40, 40), 0),
    )
    return Scene(1, objects, (), "test")


@pytest.mark.parametrize(
    "caption",
    [
        "A small red star is left of a large blue heart, and there is a small black cross.",
        "Under a little black cross there is a little red star, along with a big blue heart.",
    ],
)
def test_a_caption_with_the_right_objects_and_relation_matches(scene, caption):
    assert parse_caption(caption).matches(scene)


@pytest.mark.parametrize(
    "caption",
    [
        "A small green star is left of a large blue heart, and there is a small black cross.",
        "A small red circle is left of a large blue heart, and there is a small black cross.",
        "A large red star is left of a large blue heart, and there is a small black cross.",
        "A small blue star is left of a large red heart, and there is a small black cross.",
        "A small red star is right of a large blue heart, and there is a small black cross.",
        "A small black cross is above a large blue heart, and there is a small red star.",
        "A small red star is left of a large blue heart.",
        "A small red star is left of a large blue heart, and there is a small red star.",
        "There is a small red star.",
    ],
)
def test_a_caption_with_an_error_does_not_match(scene, caption):
    assert not parse_caption(caption).matches(scene)


def test_a_description_of_several_objects_needs_a_relation(scene):
    assert not Description(tuple(placed.scene_object for placed in scene.objects)).matches(scene)
