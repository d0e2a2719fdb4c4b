"""A small convolutional network that learns what lies where in scenes, for `benchmarks/scenes.py`.

96×128 pixels → convolutions → what is in each of 48 cells, [6, 8, 19]
    → of cells that mean the same object the surest → [6, 8, 34]: `places`
    → two that stand in a relation, and the third: 3 × 17 values, how the two stand: 2, what goes with what: 76
    → `scene`, 129 values

`places` says at each object's place what it is, which it is from left to right, and how it stands to each of the three,
for captioners that attend. `scene` is one vector for the others. It takes the objects in roles, as a sentence does: of
a pair that stands in a relation the one that is left of or above the other, that other, and who is left. It tells each
by itself, how the pair stands, and as second-order pooling, after bilinear networks (Lin et al., 2015,
arXiv:1504.07889), what goes together in it: how much of what is red is a circle, or large. Both are read off the cells
without weights but for the relations of two objects, which a small network learns from how far apart their centres are,
as in relation networks (Santoro et al., 2017, arXiv:1706.01427). The network sees no caption.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from features.synthetic.scenes.dataset_config import SceneDatasetConfig
from features.synthetic.scenes.layout import make_scene
from features.synthetic.scenes.renderer import draw_scene
from features.synthetic.scenes.scene import (
    COLORS,
    RELATIONS,
    SHAPES,
    SIZES,
    PlacedObject,
    Relation,
    SceneObject,
    find_relation,
)
from features.synthetic.scenes.scene import (
    HEIGHT as SCENE_HEIGHT,
)
from features.synthetic.scenes.scene import (
    WIDTH as SCENE_WIDTH,
)

HEIGHT, WIDTH = 96, 128
ROWS, COLUMNS = 6, 8
PLACES_LAYER, SCENE_LAYER = "places", "scene"
MOST_OBJECTS = 3
_AHEAD: tuple[Relation, ...] = ("left of", "above")  # the relations in which the first is ahead, the rarer last
# What is said of an object: is there one, its shape, colour and size, its centre's x and y in 0…1.
_PARTS = (1, len(SHAPES), len(COLORS), len(SIZES), 2)
_ENDS = np.cumsum(_PARTS)
_ATTRIBUTES = int(_ENDS[-1])
_WHERE_WEIGHT = 60.0
# A cell tells of an object whose centre is at most so many cells from its own middle, per axis: more than half a cell,
# so that both cells tell of an object on their border.
_REACH = 0.8
_SAME = 0.09  # how far apart, in heights, centres told of one object lie at most; those of two lie farther
_ASPECT = (SCENE_WIDTH / SCENE_HEIGHT, 1.0)
_WIDE = 64
_BATCH = 32
_LEARNING_RATE = 2e-3
_RELATION_EPOCHS = 20

Floats = NDArray[np.float32]
Objects = Sequence[PlacedObject]
Facts = tuple[frozenset[SceneObject], frozenset[tuple[SceneObject, Relation, SceneObject]]]


def build_cells() -> keras.Model:
    """The part that sees, untrained: pixels 0…255 [N, 96, 128, 3] → [N, 6, 8, 19], as `cells_of` has them.

    Presence, shape, colour and size are logits.
    """
    image = keras.Input((HEIGHT, WIDTH, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    for filters, stride in ((16, 2), (32, 2), (48, 1), (96, 2), (96, 1), (128, 2), (128, 1)):
        x = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    ones = keras.layers.Conv2D(1, 1, kernel_initializer="zeros", bias_initializer="ones", trainable=False)(x)
    cell = keras.layers.Concatenate()([ops.cumsum(ones, axis=2) / COLUMNS, ops.cumsum(ones, axis=1) / ROWS])
    x = keras.layers.Conv2D(128, 1, activation="relu")(keras.layers.Concatenate()([x, cell]))
    named = [keras.layers.Conv2D(values, 1)(x) for values in _PARTS[:-1]]
    moved = keras.layers.Conv2D(_PARTS[-1], 1, kernel_initializer="zeros")(x)
    return keras.Model(image, keras.layers.Concatenate()([*named, keras.layers.Add()([cell, moved])]))


def build_relations() -> keras.Model:
    """The part that relates, untrained: from one centre to another, in heights [..., 2] → shares [..., 5].

    How the one stands to the other: each of `RELATIONS`, or none.
    """
    step = keras.Input((2,))
    x = keras.layers.Dense(_WIDE, activation="relu")(step)
    x = keras.layers.Dense(_WIDE, activation="relu")(x)
    return keras.Model(step, keras.layers.Dense(len(RELATIONS) + 1, activation="softmax")(x))


def build_network(cells: keras.Model, relations: keras.Model) -> keras.Model:
    """The whole, of its two parts: pixels 0…255 [N, 96, 128, 3] → `places` [N, 6, 8, 34], `scene` [N, 129]."""
    told = keras.layers.Reshape((ROWS * COLUMNS, _ATTRIBUTES))(cells.output)
    presence, shape, color, size, center = ops.split(told, _ENDS[:-1].tolist(), axis=-1)
    there = _surest(presence, center)
    shares = [*map(keras.layers.Softmax(), (shape, color, size)), center]
    told = keras.layers.Concatenate()([there, there * keras.layers.Concatenate()(shares)])
    rank = _ranks(there, center[..., :1])
    slots = keras.layers.Dot(axes=1)([rank, told])
    log_state = _log_state(slots, relations)
    beside = keras.layers.Reshape((MOST_OBJECTS, MOST_OBJECTS * len(RELATIONS)))(log_state)
    places = keras.layers.Concatenate()([told, rank, keras.layers.Dot(axes=(2, 1))([rank, beside])])
    roles, relation = _roles(slots, log_state)
    scene = [keras.layers.Dot(axes=1)([roles, slots[..., : _ENDS[3]]]), relation, *_pairs(slots, roles)]
    outputs = {
        PLACES_LAYER: keras.layers.Reshape((ROWS, COLUMNS, places.shape[-1]), name=PLACES_LAYER)(places),
        SCENE_LAYER: keras.layers.Concatenate(name=SCENE_LAYER)([*map(keras.layers.Flatten(), scene)]),
    }
    return keras.Model(cells.input, outputs)


def _surest(presence: Any, center: Any) -> Any:
    """1 for the surest of the cells that tell of one object, if they together hold it to be there, else 0: [N, 48, 1].

    An object on the border of two cells may be in either, so that neither is sure of it.
    """
    center = center * np.array(_ASPECT, np.float32)
    apart = ops.expand_dims(center, 2) - ops.expand_dims(center, 1)
    same = ops.cast(ops.sum(apart * apart, axis=-1) < _SAME**2, "float32")
    together = ops.matmul(same, ops.sigmoid(presence))
    surer = ops.cast(ops.transpose(presence, (0, 2, 1)) > presence, "float32")
    beaten = ops.sum(same * surer, axis=-1, keepdims=True)
    return ops.cast(together > 0.5, "float32") * ops.relu(1 - beaten)


def _ranks(there: Any, x: Any) -> Any:
    """Which object each place's is from left to right, then downwards: [N, 48, 3], all 0 where there is none."""
    x = x + np.linspace(0, 1e-5, ROWS * COLUMNS, dtype=np.float32)[:, None]
    before = ops.cast(ops.transpose(x, (0, 2, 1)) < x, "float32")
    rank = ops.matmul(before, there)
    return there * ops.relu(1 - ops.absolute(rank - np.arange(MOST_OBJECTS, dtype=np.float32)))


def _log_state(slots: Any, relations: Any) -> Any:
    """How each object stands to each: [N, 3, 3, 4], 0 where either is missing and to itself."""
    there, center = slots[..., :1], slots[..., -2:] * np.array(_ASPECT, np.float32)
    step = ops.expand_dims(center, 1) - ops.expand_dims(center, 2)
    shares = relations(ops.reshape(step, (-1, 2)))[:, : len(RELATIONS)]
    shares = ops.reshape(shares, (-1, MOST_OBJECTS, MOST_OBJECTS, len(RELATIONS)))
    others = (1 - np.eye(MOST_OBJECTS, dtype=np.float32))[None, :, :, None]
    return shares * others * ops.expand_dims(there, 1) * ops.expand_dims(there, 2)


def _roles(slots: Any, log_state: Any) -> tuple[Any, Any]:
    """Which object is ahead in a pair, behind in it, or left over; and how the one stands to the other.

    Relations are told from the object that is ahead alone, so that the order of a pair is no choice. Of several pairs
    one above the other goes first, for fewer stand so by chance than side by side; of those of a kind the surest.

    Returns:
        [N, 3 objects, 3 roles], and [N, 2], a relation of `_AHEAD`; where nothing is related, all are left over.
    """
    told = ops.stack([log_state[..., RELATIONS.index(relation)] for relation in _AHEAD], axis=-1)
    rarer = ops.cast(told > 0.5, "float32") * np.arange(len(_AHEAD), dtype=np.float32)
    flat = ops.reshape(told + rarer, (-1, MOST_OBJECTS * MOST_OBJECTS * len(_AHEAD)))
    is_chosen = ops.one_hot(ops.argmax(flat, axis=-1), flat.shape[-1]) * ops.cast(flat > 0, "float32")
    chosen = ops.reshape(is_chosen, (-1, MOST_OBJECTS, MOST_OBJECTS, len(_AHEAD)))
    ahead, behind = ops.sum(chosen, axis=(2, 3)), ops.sum(chosen, axis=(1, 3))
    return ops.stack([ahead, behind, slots[..., 0] - ahead - behind], axis=-1), ops.sum(chosen, axis=(1, 2))


def _pairs(slots: Any, roles: Any) -> list[Any]:
    """Of the pair, which shape goes with which colour, which size with which colour, and shape with size: 76 values."""
    _, shape, color, size, _ = ops.split(slots, _ENDS[:-1].tolist(), axis=-1)
    is_paired = ops.sum(roles[..., :2], axis=-1, keepdims=True)
    pairs = ((color, shape), (color, size), (size, shape))
    return [keras.layers.Dot(axes=1)([one * is_paired, other]) for one, other in pairs]


def cell_loss(truth: Any, said: Any) -> Any:
    """Cross entropies of what is there, and squared distances of where; attributes count where a cell has any."""
    is_there, *named, center = ops.split(truth, _ENDS[:-1].tolist(), axis=-1)
    parts = ops.split(said, _ENDS[:-1].tolist(), axis=-1)
    presence = keras.losses.binary_crossentropy(is_there, parts[0], from_logits=True)
    named_loss = sum(
        keras.losses.categorical_crossentropy(one, logits, from_logits=True)
        for one, logits in zip(named, parts[1:4], strict=True)
    )
    tells = ops.sum(named[0], axis=-1)
    distance = ops.sum((center - parts[4]) ** 2, axis=-1)
    return ops.sum(presence + tells * (named_loss + _WHERE_WEIGHT * distance)) / ops.sum(is_there)


def cells_of(objects: Objects) -> Floats:
    """What the cells shall say, [6, 8, 19]: one says that there is an object, it and those near tell what and where."""
    cells = np.zeros((ROWS, COLUMNS, _ATTRIBUTES), np.float32)
    nearest = np.full((ROWS, COLUMNS), np.inf)
    for drawn in objects:
        x, y = _where(drawn)
        row, column = int(y * ROWS), int(x * COLUMNS)
        away = np.maximum(
            np.abs(np.arange(ROWS) + 0.5 - y * ROWS)[:, None], np.abs(np.arange(COLUMNS) + 0.5 - x * COLUMNS)
        )
        away[row, column] = 0
        told = (away < _REACH) & (away < nearest)
        nearest[told] = away[told]
        thing = drawn.scene_object
        cells[told, 1:] = 0
        for end, at in zip(
            _ENDS[:3],
            (SHAPES.index(thing.shape), COLORS.index(thing.color), SIZES.index(thing.size)),
            strict=True,
        ):
            cells[told, end + at] = 1
        cells[told, _ENDS[3] :] = x, y
        cells[row, column, 0] = 1
    return cells


def _where(drawn: PlacedObject) -> tuple[float, float]:
    return drawn.center[0] / SCENE_WIDTH, drawn.center[1] / SCENE_HEIGHT


def facts_of(objects: Objects) -> Facts:
    """What is there, and how each thing stands to each."""
    stand = ((one, find_relation(one, other), other) for one, other in permutations(objects, 2))
    return (
        frozenset(drawn.scene_object for drawn in objects),
        frozenset((one.scene_object, relation, other.scene_object) for one, relation, other in stand if relation),
    )


def facts_in(places: Floats) -> Facts:
    """What `places` [6, 8, 34] say is there, and how each thing stands to each: whatever is likelier than not."""
    told, rank, beside = np.split(places.reshape(ROWS * COLUMNS, -1), [_ATTRIBUTES, _ATTRIBUTES + MOST_OBJECTS], axis=1)
    things = [_thing_in(slot) if slot[0] > 0.5 else None for slot in rank.T @ told]
    log_state = (rank.T @ beside).reshape(MOST_OBJECTS, MOST_OBJECTS, len(RELATIONS))
    stand = ((things[one], RELATIONS[how], things[other]) for one, other, how in np.argwhere(log_state > 0.5))
    return (
        frozenset(thing for thing in things if thing),
        frozenset((one, relation, other) for one, relation, other in stand if one and other),
    )


def _thing_in(slot: Floats) -> SceneObject:
    shape, color, size = (int(part.argmax()) for part in np.split(slot, _ENDS)[1:4])
    return SceneObject(SIZES[size], COLORS[color], SHAPES[shape])


def drawn_scenes(
    seed: int, count: int, rules: SceneDatasetConfig
) -> tuple[NDArray[np.uint8], list[tuple[PlacedObject, ...]]]:
    """Pixels [count, 96, 128, 3] of scenes made for the network alone, and their objects."""

    def one(number: int) -> tuple[NDArray[np.uint8], tuple[PlacedObject, ...]]:
        scene = make_scene(seed, number, rules)
        picture = Image.open(BytesIO(draw_scene(scene, seed)))
        return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)), scene.objects

    with ThreadPoolExecutor() as pool:
        pixels, objects = zip(*pool.map(one, range(1, count + 1)), strict=True)
    return np.stack(pixels), list(objects)


def mirrored(objects: Objects) -> tuple[PlacedObject, ...]:
    """The objects of the scene as a mirror shows it."""
    return tuple(
        PlacedObject(one.scene_object, (SCENE_WIDTH - one.box[0] - one.box[2], *one.box[1:]), -one.rotation)
        for one in objects
    )


def train_network(path: Path, seed: int, count: int, epochs: int, rules: SceneDatasetConfig) -> dict[str, Any]:
    """Train the network on scenes of its own, as drawn or mirrored, and save it as `.keras`.

    They are mirrored left to right only: a triangle on its tip looks like a heart.

    Args:
        path: Path. The file to write.
        seed: int. Of the scenes, which are those of no other dataset.
        count: int. Scenes to learn from; a tenth as many more are made to measure what it learned.
        epochs: int.
        rules: Rules. Which scenes there are.

    Returns:
        dict: `scenes`, `epochs`, and of held-out scenes the shares whose `objects` are right in number, shape, colour
        and size, and whose `relations` are, too.
    """
    keras.utils.set_random_seed(seed)
    pixels, objects = drawn_scenes(seed, count + count // 10, rules)
    train, held_out = pixels[:count], pixels[count:]
    cells = _trained_cells(train, objects[:count], epochs)
    network = build_network(cells, _trained_relations(cells, train, objects[:count]))
    network.save(path)
    said = network.predict(held_out, batch_size=_BATCH, verbose=0)[PLACES_LAYER]
    return {"scenes": count, "epochs": epochs, **shares_right(objects[count:], said)}


def shares_right(scenes_objects: Sequence[Objects], said: Floats) -> dict[str, float]:
    """Shares of scenes whose things are all right in `places` [N, 6, 8, 34], and whose things and relations are."""
    told = [(facts_of(objects), facts_in(places)) for objects, places in zip(scenes_objects, said, strict=True)]
    return {
        "objects": float(np.mean([truth[0] == claim[0] for truth, claim in told])),
        "relations": float(np.mean([truth == claim for truth, claim in told])),
    }


class _Batches(keras.utils.PyDataset):
    """The scenes in another order every epoch, each as drawn or mirrored by chance."""

    def __init__(self, pixels: NDArray[np.uint8], objects: Sequence[Objects]) -> None:
        super().__init__()
        self._pixels = pixels
        self._truths = [np.stack([cells_of(each) for each in view]) for view in (objects, map(mirrored, objects))]
        self._random = np.random.default_rng(0)
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self._pixels) / _BATCH)

    def __getitem__(self, step: int) -> tuple[NDArray[np.uint8], Floats]:
        rows = self._order[step * _BATCH : (step + 1) * _BATCH]
        turned = self._random.random(len(rows)) < 0.5
        pixels, (plain, mirror) = self._pixels[rows], self._truths
        pixels[turned] = pixels[turned, :, ::-1]
        return pixels, np.where(turned[:, None, None, None], mirror[rows], plain[rows])

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(len(self._pixels))


def _trained_cells(pixels: NDArray[np.uint8], objects: Sequence[Objects], epochs: int) -> keras.Model:
    cells, batches = build_cells(), _Batches(pixels, objects)
    cells.compile(keras.optimizers.Adam(_rate(len(batches) * epochs)), loss=cell_loss)
    cells.fit(batches, epochs=epochs, verbose=0, shuffle=False)
    return cells


def _trained_relations(cells: keras.Model, pixels: NDArray[np.uint8], objects: Sequence[Objects]) -> keras.Model:
    """Learned from centres as the cells tell them, so that a relation that these leave open is told as open."""
    said = cells.predict(pixels, batch_size=_BATCH, verbose=0)
    steps, stand = zip(*_steps(said, objects), strict=True)
    relations = build_relations()
    batch = 4 * _BATCH
    rate = _rate(-(-len(steps) // batch) * _RELATION_EPOCHS)
    relations.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    relations.fit(np.stack(steps), np.array(stand), batch_size=batch, epochs=_RELATION_EPOCHS, verbose=0)
    return relations


def _steps(said: Floats, scenes_objects: Sequence[Objects]) -> Iterator[tuple[Floats, int]]:
    """From each object's told centre to each other's, in heights, and how the one stands to the other."""
    for cells, objects in zip(said, scenes_objects, strict=True):
        for one, other in permutations(objects, 2):
            here, there = (cells[int(y * ROWS), int(x * COLUMNS), -2:] for x, y in map(_where, (one, other)))
            stands = find_relation(one, other)
            yield (there - here) * np.array(_ASPECT, np.float32), (*RELATIONS, None).index(stands)


def _rate(steps: int) -> Any:
    return keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=_LEARNING_RATE, warmup_steps=steps // 20)
