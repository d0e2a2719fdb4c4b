"""Rules: what sort of scenes a dataset has, which split each is in, and what training never shows."""

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

MOST_HELD_OUT = 0.25
_MOST_OBJECTS = 3
_HELD_OUT_SEED = 0


@dataclass(frozen=True)
class SceneDatasetConfig:
    """The rules of a dataset of scenes.

    Every fifth scene is held out, all of it `val`. With `held_out_combinations`, of five scenes held out one shows an
    unseen combination and is `test`, one is `val`, and three are `test`.

    Args:
        objects: tuple of int. How many objects a scene has, 1 to 3: the counts that there are.
        held_out_combinations: float. Share of the combinations of colour, shape and relation that are unseen in
            training, 0 to `MOST_HELD_OUT`: none of its scenes shows one, told or not, where each scene with unseen
            combinations tells one. Each pair of colour and shape is unseen in one relation at most.

    Raises:
        UsageError: one of them is out of range.
    """

    objects: tuple[int, ...] = (1, 2, 3)
    held_out_combinations: float = 0.0

    def __post_init__(self) -> None:
        counts = range(1, _MOST_OBJECTS + 1)
        if not self.objects or not set(self.objects) <= set(counts):
            raise UsageError(f"got scenes of {[*self.objects]} objects", hint="some of 1, 2 and 3")
        if not 0 <= self.held_out_combinations <= MOST_HELD_OUT:
            raise UsageError(
                f"got {self.held_out_combinations} of the combinations held out", hint=f"0 to {MOST_HELD_OUT}"
            )
        if self.held_out_combinations and 1 in self.objects:
            raise UsageError("scenes of one object show no combination", hint="objects of 2 and 3 alone")

    @cached_property
    def unseen(self) -> frozenset[Combination]:
        """The combinations that training never shows."""
        kinds = [(color, shape) for color in COLORS for shape in SHAPES]
        each = round(len(kinds) * self.held_out_combinations)
        order = np.random.default_rng(_HELD_OUT_SEED).permutation(len(kinds)).tolist()
        return frozenset(
            (*kinds[kind], relation)
            for place, relation in enumerate(RELATIONS)
            for kind in order[place * each : (place + 1) * each]
        )

    def split(self, number: int) -> Split:
        """The split of a scene; it does not change as a dataset grows."""
        if number % 5:
            return "train"
        return "test" if self.unseen and number // 5 % 5 != 1 else "val"

    def describes_held_out(self, number: int) -> bool:
        """Whether the captions of a scene tell an unseen combination; all others show none."""
        return bool(self.unseen) and number % 25 == 0

    def allow(self, number: int, objects: Sequence[PlacedObject]) -> bool:
        """Whether a scene may show these objects, of which the first two are told in relation."""
        if self.describes_held_out(number):
            return not self.unseen.isdisjoint(list_combinations(objects[:2]))
        return self.unseen.isdisjoint(list_combinations(objects))


PLAIN = SceneDatasetConfig()


def parse_object_counts(text: str) -> tuple[int, ...]:
    """The counts of objects that `--objects-per-scene` names, such as `2,3`; UsageError where they are no numbers."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise UsageError(
            f"got {text!r}", location="--objects-per-scene", hint="counts with commas between, such as 2,3"
        ) from None
