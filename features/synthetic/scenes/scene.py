"""What a scene shows: objects of a shape, colour and size, each in its box, and how two of them stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

Shape = Literal["circle", "square", "triangle", "star", "cross", "heart"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
Size = Literal["small", "large"]
Relation = Literal["left of", "right of", "above", "below"]
Split = Literal["train", "val", "test"]
Box = tuple[int, int, int, int]
Combination = tuple[Color, Shape, Relation]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLORS: tuple[Color, ...] = get_args(Color)
SIZES: tuple[Size, ...] = get_args(Size)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class SceneObject:
    """An object as a noun phrase names it."""

    size: Size
    color: Color
    shape: Shape


@dataclass(frozen=True)
class PlacedObject:
    """An object of a scene.

    Args:
        thing: Thing. What it looks like.
        box: tuple of int. x, y, width, height in pixels, as in COCO; the shape touches all four sides.
        turn: int. How far the shape is turned from upright, in degrees.
    """

    thing: SceneObject
    box: Box
    turn: int

    @property
    def center(self) -> tuple[float, float]:
        """x, y of the box's centre in pixels."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


@dataclass(frozen=True)
class Description:
    """What a caption claims.

    Args:
        things: tuple of Thing. The objects, 1 to 3, of which the relation is between the first two.
        relation: Relation or None. How the first stands to the second; None where there is one object.
    """

    things: tuple[SceneObject, ...]
    relation: Relation | None = None

    @property
    def canonical(self) -> "Description":
        """The same claim told with `left of` or `above`."""
        if self.relation is None or self.relation in ("left of", "above"):
            return self
        first, second, *rest = self.things
        return Description((second, first, *rest), OPPOSITE[self.relation])

    def matches(self, scene: "Scene") -> bool:
        """Whether the scene shows these objects and no others, the first two in this relation."""
        at = {drawn.thing: drawn for drawn in scene.objects}
        if len(self.things) != len(at) or set(self.things) != set(at):
            return False
        if self.relation is None:
            return len(at) == 1
        return find_relation(at[self.things[0]], at[self.things[1]]) == self.relation


@dataclass(frozen=True)
class Scene:
    """A scene's truth.

    Args:
        number: int. Which scene of its seed, from 1; also its image id.
        objects: tuple of Drawn. 1 to 3, no two of the same colour and shape; the captions relate the first two.
        captions: tuple of str. Different sentences, each true of the scene.
        split: str. What it is for.
    """

    number: int
    objects: tuple[PlacedObject, ...]
    captions: tuple[str, ...]
    split: Split

    @property
    def file_name(self) -> str:
        """The image's name, as COCO 2017 names its images."""
        return f"{self.number:012d}.jpg"

    @property
    def description(self) -> Description:
        """What every caption of the scene says in its own way."""
        return describe(self.objects)


def describe(objects: Sequence[PlacedObject]) -> Description:
    """What captions say of objects: all of them, and how the first two stand."""
    relation = find_relation(objects[0], objects[1]) if len(objects) > 1 else None
    return Description(tuple(drawn.thing for drawn in objects), relation)


def find_relation(one: PlacedObject, other: PlacedObject) -> Relation | None:
    """How an object stands to another; None where they lie across.

    Their centres must be at least twice as far apart along one axis as along the other.
    """
    dx, dy = (b - a for a, b in zip(one.center, other.center, strict=True))
    if abs(dx) >= 2 * abs(dy):
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= 2 * abs(dx):
        return "above" if dy > 0 else "below"
    return None


def list_combinations(objects: Sequence[PlacedObject]) -> frozenset[Combination]:
    """The colour, the shape and each relation that an object has to another, of all of them."""
    pairs = ((one, find_relation(one, other)) for one, other in permutations(objects, 2))
    return frozenset((one.thing.color, one.thing.shape, relation) for one, relation in pairs if relation)
