"""Captions of scenes are correct or have a first error, and the attention is on the named objects or not."""

import numpy as np
import pytest

from features.synthetic.scenes.scene import PlacedObject, Scene, SceneObject
from features.synthetic.scenes.scores import find_error, measure_attention

TRUE = "a small red star is left of a large blue heart and there is a small black cross"


@pytest.fixture
def shown() -> Scene:
    objects = (
        PlacedObject(SceneObject("small", "red", "star"), (20, 150, 40, 40), 0),
        PlacedObject(SceneObject("large", "blue", "heart"), (200, 130, 90, 90), 0),
        PlacedObject(SceneObject("small", "black", "cross"), (20, 20, 40, 40), 0),
    )
    return Scene(1, objects, (), "test")


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        (TRUE, None),
        (f"{TRUE} cross", "not in the grammar"),
        ("", "not in the grammar"),
        ("a small red star is left of a large blue heart", "number of objects"),
        (TRUE.replace("red", "green"), "colors"),
        (TRUE.replace("heart", "circle"), "shapes"),
        (TRUE.replace("red", "x").replace("blue", "red").replace("x", "blue"), "color-shape combinations"),
        (TRUE.replace("large", "little"), "sizes"),
        (TRUE.replace("left of", "above"), "relation"),
    ],
)
def test_the_first_error_of_a_caption_is_reported(shown: Scene, caption: str, fault: str | None) -> None:
    assert find_error(caption, shown) == fault


def test_attention_is_compared_with_the_boxes_of_the_named_objects(shown: Scene) -> None:
    words = TRUE.replace("black", "white").split()
    attention = np.full((len(words), 48), 0.01)
    attention[words.index("red"), 0] = 0.5
    attention[words.index("star"), 4 * 8 + 1] = 0.5  # the middle of row 4, column 1 lies in the star's box
    attention[words.index("blue"), 4 * 8 + 6] = 0.5
    attention[words.index("heart"), 0] = 0.5
    looks = measure_attention(words, attention, shown, 6, 8)
    assert [(color, shape) for color, shape, _ in looks] == [(False, True), (True, False)]
    assert [chance for *_, chance in looks] == pytest.approx([1600 / 76800, 8100 / 76800])
