"""Training scenes contain all combinations except the held-out ones."""

import pytest

from features.synthetic.scenes.dataset_config import SceneDatasetConfig
from features.synthetic.scenes.layout import make_scene
from features.synthetic.scenes.scene import (
    COLORS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    list_combinations,
)
from schemas.errors import UsageError

CONFIG = SceneDatasetConfig(object_counts=(2, 3), held_out_fraction=0.125)


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
    told = [scene for scene in held_out if CONFIG.describes_held_out(scene.number)]
    assert len(told) == len(held_out) / 5
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
