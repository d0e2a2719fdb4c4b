"""Generates scenes: chooses their objects and places them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from features.synthetic.scenes.dataset_config import DEFAULT_CONFIG, SceneDatasetConfig
from features.synthetic.scenes.grammar import choose, write_captions
from features.synthetic.scenes.scene import (
    COLORS,
    HEIGHT,
    RELATIONS,
    SHAPES,
    SIZES,
    WIDTH,
    Box,
    PlacedObject,
    Scene,
    SceneObject,
    Size,
    compute_outline,
    describe,
    find_relation,
)

_HALF_SIDE: dict[Size, tuple[int, int]] = {"small": (19, 25), "large": (40, 50)}  # of the longer side, in pixels
_MARGIN, _GAP, _MAX_ROTATION = 4, 8, 12
_FREQUENCIES = {1: 0.3, 2: 0.45, 3: 0.25}  # of scenes by their number of objects


def make_scene(seed: int, number: int, config: SceneDatasetConfig = DEFAULT_CONFIG) -> Scene:
    """Generates the scene of a seed and a number from 1, with its captions. `draw_scene` renders it."""
    random = np.random.default_rng((seed, number, 0))
    weights = np.array([_FREQUENCIES[count] for count in config.object_counts])
    count = int(random.choice(config.object_counts, p=weights / weights.sum()))
    objects = _generate_objects(random, count)
    while not config.allows(number, objects):
        objects = _generate_objects(random, count)
    return Scene(number, objects, write_captions(describe(objects), random), config.split(number))


def _generate_objects(random: np.random.Generator, count: int) -> tuple[PlacedObject, ...]:
    kinds = random.permutation(len(SHAPES) * len(COLORS))[:count]
    objects = [SceneObject(choose(random, SIZES), COLORS[k % len(COLORS)], SHAPES[k // len(COLORS)]) for k in kinds]
    return _place(random, objects)


def _place(random: np.random.Generator, objects: Sequence[SceneObject]) -> tuple[PlacedObject, ...]:
    """Places objects inside the image with gaps, the first two in a random relation."""
    relation = choose(random, RELATIONS)
    rotations = [int(random.integers(-_MAX_ROTATION, _MAX_ROTATION + 1)) for _ in objects]
    sides = []
    for each, rotation in zip(objects, rotations, strict=True):
        low, high = _HALF_SIDE[each.size]
        half = int(random.integers(low, high + 1)) * np.abs(compute_outline(each.shape, rotation)).max(axis=0)
        sides.append(np.ceil(2 * half).astype(int))
    room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN - np.array(sides) + 1
    while True:
        corners = _MARGIN + (random.random((len(objects), 2)) * room).astype(int)
        boxes: list[Box] = [(*corner.tolist(), *side.tolist()) for corner, side in zip(corners, sides, strict=True)]
        placed = tuple(PlacedObject(*each) for each in zip(objects, boxes, rotations, strict=True))
        has_gaps = all(_has_gap(one.box, other.box) for one, other in combinations(placed, 2))
        if has_gaps and (len(placed) == 1 or find_relation(placed[0], placed[1]) == relation):
            return placed


def _has_gap(one: Box, other: Box) -> bool:
    """Returns whether two boxes have a gap along at least one axis."""
    return any(
        one[axis] + one[axis + 2] + _GAP <= other[axis] or other[axis] + other[axis + 2] + _GAP <= one[axis]
        for axis in (0, 1)
    )
