"""Layout: which objects a scene has, and where they lie."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from features.synthetic.scenes.dataset_config import PLAIN, SceneDatasetConfig
from features.synthetic.scenes.grammar import pick, write_captions
from features.synthetic.scenes.outlines import outline
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
    describe,
    find_relation,
)

_REACH: dict[Size, tuple[int, int]] = {"small": (19, 25), "large": (40, 50)}  # half the longer side, in pixels
_MARGIN, _GAP, _TURN = 4, 8, 12
_SHARES = {1: 0.3, 2: 0.45, 3: 0.25}  # of scenes, by how many objects they have


def make_scene(seed: int, number: int, rules: SceneDatasetConfig = PLAIN) -> Scene:
    """The scene of a seed and a number from 1: its objects and captions. `draw` makes the picture."""
    random = np.random.default_rng((seed, number, 0))
    shares = np.array([_SHARES[count] for count in rules.objects])
    count = int(random.choice(rules.objects, p=shares / shares.sum()))
    objects = _objects(random, count)
    while not rules.allow(number, objects):
        objects = _objects(random, count)
    return Scene(number, objects, write_captions(describe(objects), random), rules.split(number))


def _objects(random: np.random.Generator, count: int) -> tuple[PlacedObject, ...]:
    kinds = random.permutation(len(SHAPES) * len(COLORS))[:count]
    things = [SceneObject(pick(random, SIZES), COLORS[k % len(COLORS)], SHAPES[k // len(COLORS)]) for k in kinds]
    return _place(random, things)


def _place(random: np.random.Generator, things: Sequence[SceneObject]) -> tuple[PlacedObject, ...]:
    """Boxes inside the picture with a gap between them, the first two in a relation drawn at random."""
    relation = pick(random, RELATIONS)
    turns = [int(random.integers(-_TURN, _TURN + 1)) for _ in things]
    sides = [_sides(random, thing, turn) for thing, turn in zip(things, turns, strict=True)]
    room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN - np.array(sides) + 1
    while True:
        corners = _MARGIN + (random.random((len(things), 2)) * room).astype(int)
        boxes: list[Box] = [
            (int(x), int(y), width, height) for (x, y), (width, height) in zip(corners, sides, strict=True)
        ]
        objects = tuple(PlacedObject(*each) for each in zip(things, boxes, turns, strict=True))
        apart = all(_apart(one.box, other.box) for one, other in combinations(objects, 2))
        if apart and (len(objects) == 1 or find_relation(objects[0], objects[1]) == relation):
            return objects


def _sides(random: np.random.Generator, thing: SceneObject, turn: int) -> tuple[int, int]:
    least, most = _REACH[thing.size]
    half = int(random.integers(least, most + 1)) * np.abs(outline(thing.shape, turn)).max(axis=0)
    width, height = np.ceil(2 * half)
    return int(width), int(height)


def _apart(one: Box, other: Box) -> bool:
    """Whether a gap lies between two boxes along at least one axis."""
    return any(
        one[axis] + one[axis + 2] + _GAP <= other[axis] or other[axis] + other[axis + 2] + _GAP <= one[axis]
        for axis in (0, 1)
    )
