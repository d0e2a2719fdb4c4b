"""Defines the scenes of a dataset: numbers of objects, splits, and combinations held out from training."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.synthetic.scenes.scene import (
    COLORS,
    RELATIONS,
    SHAPES,
    Combination,
    PlacedObject,
    Split,
    list_combinations,
)
from schemas.errors import UsageError

MAX_HELD_OUT_FRACTION = 0.25
_HELD_OUT_SEED = 0


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
