"""Scores captions of scenes: whether they are correct, and whether the attention is on what a word names.

A caption is correct if the grammar parses it, and every object, its size, color and shape, and one relation are right.
Otherwise its first error is reported.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from features.synthetic.scenes.grammar import parse_caption
from features.synthetic.scenes.scene import HEIGHT, WIDTH, PlacedObject, Scene

Look = tuple[bool, bool, float]


def find_error(caption: str, scene: Scene) -> str | None:
    """Returns the first error of a caption, or None if it is correct."""
    claim = parse_caption(caption)
    if claim is None:
        return "not in the grammar"
    if claim.matches(scene):
        return None
    shown = [drawn.scene_object for drawn in scene.objects]
    if len(claim.objects) != len(shown):
        return "number of objects"
    faults = (
        ("colors", lambda thing: thing.color),
        ("shapes", lambda thing: thing.shape),
        ("color-shape combinations", lambda thing: (thing.color, thing.shape)),
        ("sizes", lambda thing: thing),
    )
    differs = [message for message, part in faults if Counter(map(part, claim.objects)) != Counter(map(part, shown))]
    return differs[0] if differs else "relation"


def measure_attention(
    words: Sequence[str], attention: NDArray[Any], scene: Scene, rows: int, columns: int
) -> list[Look]:
    """Returns, for each object named by color and shape, whether the attention peaks in its box.

    Args:
        words: The caption.
        attention: Attention weights [words, locations], locations row by row.
        scene: The scene. Objects that it does not contain are skipped.
        rows: Number of rows of locations.
        columns: Number of columns of locations.

    Returns:
        Per object: whether the center of the location with the largest weight is in the box at the color word, and at
        the shape word; and the fraction of the image that the box covers.
    """
    shown: dict[tuple[str, str], PlacedObject] = {
        (drawn.scene_object.color, drawn.scene_object.shape): drawn for drawn in scene.objects
    }
    looks = []
    for at in range(1, len(words)):
        drawn = shown.get((words[at - 1], words[at]))
        if drawn is not None:
            color, shape = (_peaks_in_box(weights, drawn, rows, columns) for weights in attention[at - 1 : at + 1])
            looks.append((color, shape, drawn.box[2] * drawn.box[3] / (WIDTH * HEIGHT)))
    return looks


def _peaks_in_box(weights: NDArray[Any], drawn: PlacedObject, rows: int, columns: int) -> bool:
    """Returns whether the center of the location with the largest weight is in the object's box."""
    row, column = divmod(int(weights.argmax()), columns)
    across, down = (column + 0.5) * WIDTH / columns, (row + 0.5) * HEIGHT / rows
    x, y, width, height = drawn.box
    return x <= across <= x + width and y <= down <= y + height
