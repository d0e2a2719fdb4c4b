"""A small convolutional network that learns what lies where in scenes, for `benchmarks/scenes.py`.

96×128 pixels → convolutions → what is in each of 48 cells, [6, 8, 23]: `places`
                                  ├→ which attributes go together, summed over the cells, 172 values: `scene`
                                  └→ the objects from left to right, told as well

`places` keeps what and where place by place, for captioners that attend; `scene` is one vector for the others, the
second-order pooling of bilinear networks (Lin et al., 2015, arXiv:1504.07889) over attributes: how much of what is red
is a circle, or large, where it is and how it stands to others. It has no weights. The network learns attributes of
objects alone: shape, colour, size, where it is, and whether some other object is right of, left of, below or above it;
which one it does not say. It sees no caption.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from features import scenes
from features.scenes import COLOURS, RELATIONS, SHAPES, SIZES, Drawn, Relation, Rules, make_scene, relation_between

HEIGHT, WIDTH = 96, 128
ROWS, COLUMNS = 6, 8
PLACES_LAYER, SCENE_LAYER = "places", "scene"
MOST_OBJECTS = 3
# What is said of an object: is there one, its shape, colour and size, its centre's x and y in 0…1, and which relations
# it has to others.
_PARTS = (1, len(SHAPES), len(COLOURS), len(SIZES), 2, len(RELATIONS))
_ENDS = np.cumsum(_PARTS)
_ATTRIBUTES = int(_ENDS[-1])
_WHERE_WEIGHT = 30.0
_WIDE = 96
_SHARPNESS = 2.0
_BATCH = 32
_LEARNING_RATE = 2e-3

Floats = NDArray[np.float32]


def build_network() -> keras.Model:
    """The network, untrained: pixels 0…255 [N, 96, 128, 3] → `cells` and `objects`, as `targets_of` has them."""
    image = keras.Input((HEIGHT, WIDTH, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    for filters, stride in ((24, 2), (48, 2), (48, 1), (96, 2), (96, 1), (128, 2)):
        x = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    ones = keras.layers.Conv2D(1, 1, kernel_initializer="zeros", bias_initializer="ones", trainable=False)(x)
    cell = keras.layers.Concatenate()([ops.cumsum(ones, axis=2) / COLUMNS, ops.cumsum(ones, axis=1) / ROWS])
    x = keras.layers.Conv2D(128, 1, activation="relu")(keras.layers.Concatenate()([x, cell]))
    presence = keras.layers.Conv2D(1, 1)(x)
    named = [keras.layers.Conv2D(values, 1)(x) for values in _PARTS[1:4]]
    centre = keras.layers.Add()([cell, keras.layers.Conv2D(2, 1)(x)])
    # A sigmoid is never 0, and so many empty places would add up to an object.
    there = keras.layers.Activation("hard_sigmoid")(_SHARPNESS * presence)
    relations = _relations(there, centre)
    cells = keras.layers.Concatenate(name="cells")([presence, *named, centre, relations])
    shares = [*map(keras.layers.Softmax(), named), centre, keras.layers.Activation("sigmoid")(relations)]
    said = keras.layers.Multiply()([there, keras.layers.Concatenate()(shares)])
    places = keras.layers.Concatenate(name=PLACES_LAYER)([there, said])
    slots = keras.layers.Dense(96)(_from_left_to_right(there, places))
    flat = keras.layers.Dense(MOST_OBJECTS * _ATTRIBUTES)(slots)
    objects = keras.layers.Reshape((MOST_OBJECTS, _ATTRIBUTES), name="objects")(flat)
    # Keras keeps a layer in a saved network only where an output comes of it.
    return keras.Model(image, {"cells": cells, "objects": objects, SCENE_LAYER: _pairs(places)})


def _pairs(places: Any) -> Any:
    """Which shape goes with which colour, and what else with either, added over all places: [N, 172]."""
    places = keras.layers.Reshape((ROWS * COLUMNS, _ATTRIBUTES))(places)
    _, shape, colour, size, where, relations = ops.split(places, _ENDS[:-1].tolist(), axis=-1)
    rest = keras.layers.Concatenate()([size, where, relations])
    pairs = ((shape, colour), (colour, rest), (shape, rest), (size, keras.layers.Concatenate()([where, relations])))
    return keras.layers.Concatenate(name=SCENE_LAYER)(
        [keras.layers.Flatten()(keras.layers.Dot(axes=1)([one, other])) for one, other in pairs]
    )


def _relations(there: Any, centre: Any) -> Any:
    """Logits [N, 6, 8, 4] of how each place's object stands to others, from where all objects are."""
    others = keras.layers.Dense(_WIDE)(_from_left_to_right(there, keras.layers.Concatenate()([there, centre])))
    own = keras.layers.Conv2D(_WIDE, 1)(centre)
    both = keras.layers.ReLU()(keras.layers.Add()([own, keras.layers.Reshape((1, 1, _WIDE))(others)]))
    return keras.layers.Conv2D(len(RELATIONS), 1)(keras.layers.Conv2D(_WIDE, 1, activation="relu")(both))


def _from_left_to_right(there: Any, code: Any) -> Any:
    """What `code` [N, 6, 8, C] says of the places of the first, second and third object, by columns: [N, 3 · C]."""
    there, code = (
        keras.layers.Reshape((ROWS * COLUMNS, -1))(keras.layers.Permute((2, 1, 3))(each)) for each in (there, code)
    )
    before = ops.cumsum(there, axis=1) - there
    shares = [there * ops.relu(1 - ops.absolute(before - place)) for place in range(MOST_OBJECTS)]
    return keras.layers.Concatenate()([keras.layers.Flatten()(keras.layers.Dot(axes=1)([s, code])) for s in shares])


def attribute_loss(truth: Any, said: Any) -> Any:
    """Cross entropies of what is there, and squared distances of where; attributes count where there is an object."""
    is_there, shape, colour, size, centre, relations = ops.split(truth, _ENDS[:-1].tolist(), axis=-1)
    parts = ops.split(said, _ENDS[:-1].tolist(), axis=-1)
    there = is_there[..., 0]
    presence = keras.losses.binary_crossentropy(is_there, parts[0], from_logits=True)
    named = sum(
        keras.losses.categorical_crossentropy(one, logits, from_logits=True)
        for one, logits in zip((shape, colour, size), parts[1:4], strict=True)
    )
    distance = ops.sum((centre - parts[4]) ** 2, axis=-1)
    standing = len(RELATIONS) * keras.losses.binary_crossentropy(relations, parts[5], from_logits=True)
    return ops.sum(presence + there * (named + standing + _WHERE_WEIGHT * distance)) / ops.sum(there)


def targets_of(objects: Sequence[Drawn]) -> tuple[Floats, Floats]:
    """What the network shall say: `cells` [6, 8, attributes] and `objects` [3, attributes], from left to right."""
    cells = np.zeros((ROWS, COLUMNS, _ATTRIBUTES), np.float32)
    told = np.zeros((MOST_OBJECTS, _ATTRIBUTES), np.float32)
    for place, drawn in enumerate(sorted(objects, key=_column_and_y)):
        x, y = drawn.centre[0] / scenes.WIDTH, drawn.centre[1] / scenes.HEIGHT
        thing = drawn.thing
        named = (SHAPES.index(thing.shape), COLOURS.index(thing.colour), SIZES.index(thing.size))
        told[place, 0] = 1
        told[place, _ENDS[:3] + named] = 1
        told[place, _ENDS[3] : _ENDS[4]] = x, y
        told[place, _ENDS[4] :] = [relation in _relations_of(drawn, objects) for relation in RELATIONS]
        cells[int(y * ROWS), int(x * COLUMNS)] = told[place]
    return cells, told


def _relations_of(drawn: Drawn, objects: Sequence[Drawn]) -> set[Relation | None]:
    return {relation_between(drawn, other) for other in objects if other is not drawn}


def _column_and_y(drawn: Drawn) -> tuple[int, float]:
    x, y = drawn.centre
    return int(x * COLUMNS / scenes.WIDTH), y


def drawn_scenes(seed: int, count: int, rules: Rules) -> tuple[NDArray[np.uint8], list[tuple[Drawn, ...]]]:
    """Pixels [count, 96, 128, 3] of scenes made for the network alone, and their objects."""

    def one(number: int) -> tuple[NDArray[np.uint8], tuple[Drawn, ...]]:
        scene = make_scene(seed, number, rules)
        picture = Image.open(BytesIO(scenes.draw(scene, seed)))
        return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)), scene.objects

    with ThreadPoolExecutor() as pool:
        pixels, objects = zip(*pool.map(one, range(1, count + 1)), strict=True)
    return np.stack(pixels), list(objects)


def mirrored(objects: Sequence[Drawn]) -> tuple[Drawn, ...]:
    """The objects of the scene as a mirror shows it."""
    return tuple(Drawn(one.thing, (scenes.WIDTH - one.box[0] - one.box[2], *one.box[1:]), -one.turn) for one in objects)


def train_network(path: Path, seed: int, count: int, epochs: int, rules: Rules) -> dict[str, Any]:
    """Train the network on scenes of its own, each once as drawn and once mirrored, and save it as `.keras`.

    Args:
        path: Path. The file to write.
        seed: int. Of the scenes, which are those of no other dataset.
        count: int. Scenes to learn from; a tenth as many more are made to measure what it learned.
        epochs: int.
        rules: Rules. Which scenes there are.

    Returns:
        dict: `scenes`, `epochs`, and of held-out scenes the shares of objects, found by their true cell and told from
        left to right, that are right in shape, colour and size: `cells` and `objects`.
    """
    keras.utils.set_random_seed(seed)
    pixels, objects = drawn_scenes(seed, count + count // 10, rules)
    train, held_out = pixels[:count], pixels[count:]
    truth = _targets([*objects[:count], *map(mirrored, objects[:count])])
    network = build_network()
    steps = -(-2 * count // _BATCH) * epochs
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=_LEARNING_RATE, warmup_steps=steps // 20)
    network.compile(keras.optimizers.Adam(rate), loss={"cells": attribute_loss, "objects": attribute_loss})
    network.fit(np.concatenate([train, train[:, :, ::-1]]), truth, batch_size=_BATCH, epochs=epochs, verbose=0)
    said = network.predict(held_out, batch_size=_BATCH, verbose=0)
    network.save(path)
    wanted = _targets(objects[count:])
    return {"scenes": count, "epochs": epochs, **{name: share_right(wanted[name], said[name]) for name in wanted}}


def share_right(truth: Floats, said: Floats) -> float:
    """Share of objects, float [..., attributes], whose shape, colour and size are all right."""
    parts = zip(np.split(truth, _ENDS[:-1], -1)[1:4], np.split(said, _ENDS[:-1], -1)[1:4], strict=True)
    right = np.all([one.argmax(-1) == other.argmax(-1) for one, other in parts], axis=0)
    return float(right[truth[..., 0] == 1].mean())


def _targets(scenes_objects: Sequence[Sequence[Drawn]]) -> dict[str, Floats]:
    cells, objects = zip(*map(targets_of, scenes_objects), strict=True)
    return {"cells": np.stack(cells), "objects": np.stack(objects)}
