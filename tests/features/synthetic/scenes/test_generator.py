"""Objects have gaps and their relation, and training scenes contain all combinations except the held-out ones."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.synthetic.scenes.generator import SceneDatasetConfig, make_scene
from features.synthetic.scenes.scene import (
    COLORS,
    HEIGHT,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    WIDTH,
    SceneObject,
    find_relation,
    list_combinations,
)
from schemas.errors import UsageError

CONFIG = SceneDatasetConfig(object_counts=(2, 3), held_out_fraction=0.125)
scene_objects = st.builds(SceneObject, st.sampled_from(SIZES), st.sampled_from(COLORS), st.sampled_from(SHAPES))
any_scene = st.builds(make_scene, st.integers(0, 2**63), st.integers(1, 2**40))


@given(any_scene)
@settings(deadline=None)
def test_objects_are_inside_with_gaps_and_in_their_relation(scene):
    boxes = [placed.box for placed in scene.objects]
    taken = np.zeros((HEIGHT, WIDTH), int)
    for x, y, width, height in boxes:
        assert x >= 4
        assert y >= 4
        assert x + width <= WIDTH - 4
        assert y + height <= HEIGHT - 4
        taken[y : y + height, x : x + width] += 1
    assert taken.max() == 1
    if len(boxes) > 1:
        first, second = scene.objects[:2]
        assert find_relation(first, second) == scene.description.relation
        assert find_relation(second, first) == OPPOSITE[scene.description.relation]


def test_all_object_counts_relations_and_looks_occur():
    many = [make_scene(3, number) for number in range(1, 401)]
    counts = [len(scene.objects) for scene in many]
    assert {n: counts.count(n) > 60 for n in (1, 2, 3)} == {1: True, 2: True, 3: True}
    relations = [scene.description.relation for scene in many]
    assert all(relations.count(each) > 40 for each in RELATIONS)
    scene_objects = [placed.scene_object for scene in many for placed in scene.objects]
    for part, values in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
        assert {getattr(each, part) for each in scene_objects} == set(values)


def test_large_is_larger_than_small():
    sides = {size: [] for size in SIZES}
    for number in range(1, 101):
        for placed in make_scene(5, number).objects:
            sides[placed.scene_object.size].append(max(placed.box[2:]))
    assert max(sides["small"]) + 20 < min(sides["large"])


def test_scenes_have_the_configured_numbers_of_objects():
    counts = Counter(
        len(make_scene(3, number, SceneDatasetConfig(object_counts=(2, 3))).objects) for number in range(1, 201)
    )
    assert set(counts) == {2, 3}
    assert min(counts.values()) > 40


def test_training_scenes_contain_no_held_out_combination():
    assert len(CONFIG.held_out) == 24
    for number in range(1, 401):
        scene = make_scene(5, number, CONFIG)
        if scene.split != "test":
            assert CONFIG.held_out.isdisjoint(list_combinations(scene.objects))


def test_training_scenes_contain_all_other_combinations_and_color_shape_pairs():
    shown = [list_combinations(make_scene(5, number, CONFIG).objects) for number in range(1, 1001) if number % 5]
    combinations = frozenset().union(*shown)
    assert combinations == {(c, s, r) for c in COLORS for s in SHAPES for r in RELATIONS} - CONFIG.held_out
    assert len({(color, shape) for color, shape, _ in combinations}) == len(COLORS) * len(SHAPES)


def test_a_fifth_of_the_held_out_scenes_describe_held_out_combinations():
    held_out = [make_scene(5, number, CONFIG) for number in range(5, 501, 5)]
    described = [scene for scene in held_out if CONFIG.describes_held_out(scene.number)]
    assert len(described) == len(held_out) / 5
    for scene in held_out:
        parsed, unseen = scene.description, CONFIG.describes_held_out(scene.number)
        (first, second), relation = parsed.objects[:2], parsed.relation
        sides = {
            (first.color, first.shape, relation),
            (second.color, second.shape, OPPOSITE[relation]),
        }
        assert sides.isdisjoint(CONFIG.held_out) != unseen
        assert not unseen or scene.split == "test"


@pytest.mark.parametrize(
    "arguments",
    [
        {"object_counts": ()},
        {"object_counts": (2, 4)},
        {"object_counts": (2,), "held_out_fraction": 0.3},
        {"held_out_fraction": 0.1},
    ],
)
def test_settings_out_of_range_are_rejected(arguments):
    with pytest.raises(UsageError):
        SceneDatasetConfig(**arguments)
