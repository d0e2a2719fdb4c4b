"""Generates the scenes of a dataset: chooses their objects, also to hold combinations out, and places them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from features.synthetic.scenes.grammar import choose, write_captions
from features.synthetic.scenes.scene import (
    COLORS,
    HEIGHT,
    RELATIONS,
    SHAPES,
    SIZES,
    WIDTH,
    Box,
    Combination,
    PlacedObject,
    Scene,
    SceneObject,
    Size,
    Split,
    compute_outline,
    describe,
    find_relation,
    list_combinations,
)
from schemas.errors import UsageError

MAX_HELD_OUT_FRACTION = 0.25
_HELD_OUT_SEED = 0
_HALF_SIDE: dict[Size, tuple[int, int]] = {"small": (19, 25), "large": (40, 50)}  # of the longer side, in pixels
_MARGIN, _GAP, _MAX_ROTATION = 4, 8, 12
_FREQUENCIES = {1: 0.3, 2: 0.45, 3: 0.25}  # of scenes by their number of objects


@dataclass(frozen=True)
class SceneDatasetConfig:
    """The settings of a dataset of scenes.

    Every fifth scene is held out. All held-out scenes are `val`, unless combinations are held out. In that case, each
    five held-out scenes are one `test` scene with a held-out combination, one `val` scene and three `test` scenes.

    The captions of a scene with held-out combinations describe one of them. Each pair of color and shape is held out in
    at most one relation.
    """

    object_counts: tuple[int, ...] = (1, 2, 3)  # allowed numbers of objects per scene
    held_out_fraction: float = 0.0  # of the color-shape-relation combinations, which no training scene contains

    def __post_init__(self) -> None:
        counts, fraction, location = self.object_counts, self.held_out_fraction, "--objects-per-scene"
        if not counts or not set(counts) <= {1, 2, 3}:
            raise UsageError(f"got {[*counts]}", location=location, hint="Use some of 1, 2 and 3.")
        if not 0 <= fraction <= MAX_HELD_OUT_FRACTION:
            hint = f"Use 0 to {MAX_HELD_OUT_FRACTION}."
            raise UsageError(f"got {fraction}", location="--held-out-fraction", hint=hint)
        if fraction and 1 in counts:
            message = "a scene of one object has no combinations to hold out"
            raise UsageError(message, location=location, hint="Use only 2 and 3.")

    @cached_property
    def held_out(self) -> frozenset[Combination]:
        """The combinations that no training scene contains."""
        kinds = [(color, shape) for color in COLORS for shape in SHAPES]
        count = round(len(kinds) * self.held_out_fraction)
        order = np.random.default_rng(_HELD_OUT_SEED).permutation(len(kinds)).tolist()
        return frozenset(
            (*kinds[kind], relation)
            for index, relation in enumerate(RELATIONS)
            for kind in order[index * count : (index + 1) * count]
        )

    def split(self, number: int) -> Split:
        """Returns the split of a scene. It does not change as a dataset grows."""
        if number % 5:
            return "train"
        return "test" if self.held_out and number // 5 % 5 != 1 else "val"

    def describes_held_out(self, number: int) -> bool:
        """Returns whether a scene's captions describe a held-out combination. All other scenes contain none."""
        return bool(self.held_out) and number % 25 == 0

    def allows(self, number: int, objects: Sequence[PlacedObject]) -> bool:
        """Returns whether a scene can contain these objects; captions relate the first two."""
        if self.describes_held_out(number):
            return not self.held_out.isdisjoint(list_combinations(objects[:2]))
        return self.held_out.isdisjoint(list_combinations(objects))


DEFAULT_CONFIG = SceneDatasetConfig()


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
