"""Defines scenes: objects of a shape, color and size, their boxes and outlines, and their relations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Shape = Literal["circle", "square", "triangle", "star", "cross", "heart"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
Size = Literal["small", "large"]
Relation = Literal["left of", "right of", "above", "below"]
Split = Literal["train", "val", "test"]
Box = tuple[int, int, int, int]
Combination = tuple[Color, Shape, Relation]
Floats = npt.NDArray[np.float64]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLORS: tuple[Color, ...] = get_args(Color)
SIZES: tuple[Size, ...] = get_args(Size)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OPPOSITE: dict[Relation, Relation] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class SceneObject:
    """An object without a position, as a noun phrase describes it."""

    size: Size
    color: Color
    shape: Shape


@dataclass(frozen=True)
class PlacedObject:
    """An object of a scene."""

    scene_object: SceneObject
    box: Box  # x, y, width and height in pixels, as in COCO; the shape touches all four sides
    rotation: int  # of the shape, in degrees

    @property
    def center(self) -> tuple[float, float]:
        """X and y of the box's center in pixels."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


@dataclass(frozen=True)
class Description:
    """The meaning of a caption: 1 to 3 objects, and the relation of the first to the second, if there are several."""

    objects: tuple[SceneObject, ...]
    relation: Relation | None = None

    @property
    def canonical(self) -> "Description":
        """The same meaning with the relation `left of` or `above`."""
        if self.relation is None or self.relation in ("left of", "above"):
            return self
        first, second, *rest = self.objects
        return Description((second, first, *rest), OPPOSITE[self.relation])

    def matches(self, scene: "Scene") -> bool:
        """Returns whether a scene contains exactly these objects, the first two in this relation."""
        placed = {each.scene_object: each for each in scene.objects}
        if len(self.objects) != len(placed) or set(self.objects) != set(placed):
            return False
        if self.relation is None:
            return len(placed) == 1
        return find_relation(placed[self.objects[0]], placed[self.objects[1]]) == self.relation


@dataclass(frozen=True)
class Scene:
    """The ground truth of a scene."""

    number: int  # within its seed, from 1; also its image ID
    objects: tuple[PlacedObject, ...]  # 1 to 3, no two of the same color and shape; captions relate the first two
    captions: tuple[str, ...]  # different sentences that match the scene
    split: Split

    @property
    def file_name(self) -> str:
        """Name of the image file, as in COCO 2017."""
        return f"{self.number:012d}.jpg"

    @property
    def description(self) -> Description:
        """The meaning of the scene's captions."""
        return describe(self.objects)


def describe(objects: Sequence[PlacedObject]) -> Description:
    """Returns the description of all objects and of the relation between the first two."""
    relation = find_relation(objects[0], objects[1]) if len(objects) > 1 else None
    return Description(tuple(placed.scene_object for placed in objects), relation)


def find_relation(first: PlacedObject, second: PlacedObject) -> Relation | None:
    """Returns the relation of the first object to the second, or None if it is diagonal.

    The distance of the centers along one axis must be at least twice that along the other.
    """
    dx, dy = (b - a for a, b in zip(first.center, second.center, strict=True))
    if abs(dx) >= 2 * abs(dy):
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= 2 * abs(dx):
        return "above" if dy > 0 else "below"
    return None


def list_combinations(objects: Sequence[PlacedObject]) -> frozenset[Combination]:
    """Returns the color, the shape and each relation to another object, for all objects."""
    pairs = ((placed.scene_object, find_relation(placed, other)) for placed, other in permutations(objects, 2))
    return frozenset((each.color, each.shape, relation) for each, relation in pairs if relation)


def compute_outline(shape: Shape, rotation: int) -> Floats:
    """Returns the corners [N, 2] of a rotated shape around its box's center, scaled to a longer side of 2."""
    rotated = _compute_upright_outline(shape) @ _rotation_matrix(rotation)
    low, high = rotated.min(axis=0), rotated.max(axis=0)
    outline: Floats = (rotated - (low + high) / 2) * 2 / (high - low).max()
    return outline


def _rotation_matrix(degrees: int) -> Floats:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def _compute_upright_outline(shape: Shape) -> Floats:
    """Returns corners [N, 2] with x to the right and y down."""
    if shape == "square":
        return np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    if shape == "cross":
        third = 1 / 3
        quarter = np.array([[-third, -1], [third, -1], [third, -third]])
        return np.concatenate([quarter @ _rotation_matrix(90 * turns) for turns in range(4)])
    corners = {"circle": 90, "triangle": 3, "star": 10, "heart": 90}[shape]
    angle = np.arange(corners) * 2 * np.pi / corners
    if shape == "heart":
        heights = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        return np.stack([16 * np.sin(angle) ** 3, -heights], axis=1)
    radius = np.where(np.arange(corners) % 2, 0.42, 1) if shape == "star" else np.ones(corners)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)
