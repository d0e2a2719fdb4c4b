"""What captions of scenes are worth, for `benchmarks/scenes.py`: whether they are true, and where the captioner looked.

A caption is true where the grammar parses it and it names every object, its size, colour and shape, and one relation,
all right. Else its first fault is told.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from features.synthetic.scenes.grammar import parse_caption
from features.synthetic.scenes.scene import HEIGHT, WIDTH, PlacedObject, Scene

Look = tuple[bool, bool, float]


def fault_of(caption: str, scene: Scene) -> str | None:
    """The first thing that is wrong with a caption of a scene; None where it is true."""
    claim = parse_caption(caption)
    if claim is None:
        return "no sentence of the grammar"
    if claim.matches(scene):
        return None
    shown = [drawn.scene_object for drawn in scene.objects]
    if len(claim.objects) != len(shown):
        return "objects too few or too many"
    faults = (
        ("colours", lambda thing: thing.color),
        ("shapes", lambda thing: thing.shape),
        ("which colour goes with which shape", lambda thing: (thing.color, thing.shape)),
        ("sizes", lambda thing: thing),
    )
    differs = [message for message, part in faults if Counter(map(part, claim.objects)) != Counter(map(part, shown))]
    return differs[0] if differs else "the relation"


def looks_of(words: Sequence[str], attention: NDArray[Any], scene: Scene, rows: int, columns: int) -> list[Look]:
    """For each object named by colour and shape: whether the looks at these words peak in its box, and chance.

    Args:
        words: sequence of str. The caption.
        attention: float array [words, places]. What each word was said under, places row by row.
        scene: Scene. What is named but not shown counts not.
        rows: int. Rows of places.
        columns: int. Columns of places.

    Returns:
        list of (whether the middle of the place with the most weight lies in the box at the colour's word, whether it
        does at the shape's, the box's share of the picture).
    """
    shown = {(drawn.scene_object.color, drawn.scene_object.shape): drawn for drawn in scene.objects}
    looks = []
    for at in range(1, len(words)):
        drawn = shown.get((words[at - 1], words[at]))
        if drawn is not None:
            color, shape = (_peaks_in_box(weights, drawn, rows, columns) for weights in attention[at - 1 : at + 1])
            looks.append((color, shape, drawn.box[2] * drawn.box[3] / (WIDTH * HEIGHT)))
    return looks


def _peaks_in_box(weights: NDArray[Any], drawn: PlacedObject, rows: int, columns: int) -> bool:
    """Whether the middle of the place with the most weight lies in the object's box."""
    row, column = divmod(int(weights.argmax()), columns)
    across, down = (column + 0.5) * WIDTH / columns, (row + 0.5) * HEIGHT / rows
    x, y, width, height = drawn.box
    return x <= across <= x + width and y <= down <= y + height
