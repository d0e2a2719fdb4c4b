"""Trains a small convolutional extractor on the content of scenes: for `benchmarks/scenes.py`, and `scene_network`.

    python benchmarks/scene_network.py [--output FILE.keras]

writes the extractor `scene_network` that ships with capt, and its recipe beside it, FILE.json: settings, measured
accuracy, and SHA-256. The same settings give a network of the same accuracy on another processor, not the same bits.

pixels → convolutions → one prediction per cell, [rows, columns, 19]
    → the most confident of the cells that predict the same object → [rows, columns, 34]: `locations`
    → two related objects and the third: 3 × 17 values, their relation: 2, combinations of attributes: 76
    → `scene`, 129 values

`locations` contains, at the location of each object, its attributes, its rank from left to right, and its relations to
the three objects, for captioners with attention. `scene` is one vector for the other captioners. It has the objects in
roles, as in a sentence: the object of a related pair that is left of or above the other, the other object of the pair,
and the remaining one. It contains each object, the relation of the pair, and, as second-order pooling (bilinear
networks, Lin et al., 2015, arXiv:1504.07889), which attributes occur together. Both are computed from the cells without
weights, except for the relations: a small network predicts them from the distance of the centers, as in relation
networks (Santoro et al., 2017, arXiv:1706.01427). The extractor is not trained on captions.
"""

import argparse
import hashlib
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from features.extractors.scene_network import NETWORK_FILE
from features.synthetic.scenes.generator import DEFAULT_CONFIG, SceneDatasetConfig, make_scene
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

LOCATIONS_LAYER, SCENE_LAYER = "locations", "scene"
MOST_OBJECTS = 3
_AHEAD: tuple[Relation, ...] = ("left of", "above")  # relations from the first object of a pair, the rarer last
# Predictions per cell: presence, shape, color, size, and the center's x and y in 0…1.
_PARTS = (1, len(SHAPES), len(COLORS), len(SIZES), 2)
_ENDS = np.cumsum(_PARTS)
_ATTRIBUTES = int(_ENDS[-1])
_WHERE_WEIGHT = 60.0
# Maximum distance of an object's center from the center of a cell that predicts it, in cells per axis. Above 0.5, so
# that both cells predict an object on their border.
_REACH = 0.8
_SAME = 0.09  # maximum distance of predicted centers of one object, in heights; those of two are farther apart
_ASPECT = (SCENE_WIDTH / SCENE_HEIGHT, 1.0)
_WIDE = 64
_BATCH = 32
_LEARNING_RATE = 2e-3
_RELATION_EPOCHS = 20
# The settings of the network that ships with capt.
_SEED, _SCENES, _EPOCHS = 1002, 12000, 12

_STRIDE = 16  # pixels per cell and axis


@dataclass(frozen=True)
class Grid:
    """The size of the input in pixels, and the cells that it is divided into."""

    height: int
    width: int

    @property
    def rows(self) -> int:
        """Number of rows of cells."""
        return self.height // _STRIDE

    @property
    def columns(self) -> int:
        """Number of columns of cells."""
        return self.width // _STRIDE


# Cells of the benchmark are square in the scene. Attention is drawn on maps with as many rows as columns.
GRID, EMBEDDED_GRID = Grid(96, 128), Grid(128, 128)

Floats = NDArray[np.float32]
Objects = Sequence[PlacedObject]
Facts = tuple[frozenset[SceneObject], frozenset[tuple[SceneObject, Relation, SceneObject]]]


def build_cells(grid: Grid = GRID) -> keras.Model:
    """Builds the convolutional part: pixels 0…255 [N, height, width, 3] → [N, rows, columns, 19]; see `encode_cells`.

    Presence, shape, color and size are logits.
    """
    image = keras.Input((grid.height, grid.width, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    for filters, stride in ((16, 2), (32, 2), (48, 1), (96, 2), (96, 1), (128, 2), (128, 1)):
        x = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    ones = keras.layers.Conv2D(1, 1, kernel_initializer="zeros", bias_initializer="ones", trainable=False)(x)
    cell = keras.layers.Concatenate()([ops.cumsum(ones, axis=2) / grid.columns, ops.cumsum(ones, axis=1) / grid.rows])
    x = keras.layers.Conv2D(128, 1, activation="relu")(keras.layers.Concatenate()([x, cell]))
    named = [keras.layers.Conv2D(values, 1)(x) for values in _PARTS[:-1]]
    moved = keras.layers.Conv2D(_PARTS[-1], 1, kernel_initializer="zeros")(x)
    return keras.Model(image, keras.layers.Concatenate()([*named, keras.layers.Add()([cell, moved])]))


def build_relations() -> keras.Model:
    """Builds the relation part: vector between two centers, in heights [..., 2] → probabilities [..., 5].

    The classes are `RELATIONS` and none.
    """
    step = keras.Input((2,))
    x = keras.layers.Dense(_WIDE, activation="relu")(step)
    x = keras.layers.Dense(_WIDE, activation="relu")(x)
    return keras.Model(step, keras.layers.Dense(len(RELATIONS) + 1, activation="softmax")(x))


def build_network(cells: keras.Model, relations: keras.Model) -> keras.Model:
    """Builds the extractor: pixels 0…255 [N, height, width, 3] → `locations` [N, rows, columns, 34], `scene` [N, 129].

    The grid is that of `cells`.
    """
    _, rows, columns, _ = cells.output.shape
    predictions = keras.layers.Reshape((rows * columns, _ATTRIBUTES))(cells.output)
    presence, shape, color, size, center = ops.split(predictions, _ENDS[:-1].tolist(), axis=-1)
    there = _select_cells(presence, center)
    shares = [*map(keras.layers.Softmax(), (shape, color, size)), center]
    predictions = keras.layers.Concatenate()([there, there * keras.layers.Concatenate()(shares)])
    rank = _ranks(there, center[..., :1])
    slots = keras.layers.Dot(axes=1)([rank, predictions])
    related = _relate(slots, relations)
    beside = keras.layers.Reshape((MOST_OBJECTS, MOST_OBJECTS * len(RELATIONS)))(related)
    locations = keras.layers.Concatenate()([predictions, rank, keras.layers.Dot(axes=(2, 1))([rank, beside])])
    roles, relation = _roles(slots, related)
    scene = [keras.layers.Dot(axes=1)([roles, slots[..., : _ENDS[3]]]), relation, *_pairs(slots, roles)]
    outputs = {
        LOCATIONS_LAYER: keras.layers.Reshape((rows, columns, locations.shape[-1]), name=LOCATIONS_LAYER)(locations),
        SCENE_LAYER: keras.layers.Concatenate(name=SCENE_LAYER)([*map(keras.layers.Flatten(), scene)]),
    }
    return keras.Model(cells.input, outputs)


def _select_cells(presence: Any, center: Any) -> Any:
    """Returns 1 for the most confident of the cells that predict one object if their sum exceeds 0.5: [N, cells, 1].

    An object on the border of two cells can be in either, so that neither is confident.
    """
    center = center * np.array(_ASPECT, np.float32)
    offsets = ops.expand_dims(center, 2) - ops.expand_dims(center, 1)
    same = ops.cast(ops.sum(offsets * offsets, axis=-1) < _SAME**2, "float32")
    together = ops.matmul(same, ops.sigmoid(presence))
    surer = ops.cast(ops.transpose(presence, (0, 2, 1)) > presence, "float32")
    beaten = ops.sum(same * surer, axis=-1, keepdims=True)
    return ops.cast(together > 0.5, "float32") * ops.relu(1 - beaten)


def _ranks(there: Any, x: Any) -> Any:
    """Returns the one-hot rank of each location's object from left to right: [N, cells, 3], 0 without an object."""
    x = x + np.linspace(0, 1e-5, x.shape[1], dtype=np.float32)[:, None]
    before = ops.cast(ops.transpose(x, (0, 2, 1)) < x, "float32")
    rank = ops.matmul(before, there)
    return there * ops.relu(1 - ops.absolute(rank - np.arange(MOST_OBJECTS, dtype=np.float32)))


def _relate(slots: Any, relations: Any) -> Any:
    """Returns the relation of each object to each other: [N, 3, 3, 4], 0 if either is missing."""
    there, center = slots[..., :1], slots[..., -2:] * np.array(_ASPECT, np.float32)
    step = ops.expand_dims(center, 1) - ops.expand_dims(center, 2)
    shares = relations(ops.reshape(step, (-1, 2)))[:, : len(RELATIONS)]
    shares = ops.reshape(shares, (-1, MOST_OBJECTS, MOST_OBJECTS, len(RELATIONS)))
    others = (1 - np.eye(MOST_OBJECTS, dtype=np.float32))[None, :, :, None]
    return shares * others * ops.expand_dims(there, 1) * ops.expand_dims(there, 2)


def _roles(slots: Any, related: Any) -> tuple[Any, Any]:
    """Returns the roles of the objects in a pair, and the relation of the pair.

    Only relations from the first object of a pair are used, so that the order is unique. A vertical pair is
    preferred, because vertical pairs are rarer; then the most confident pair.

    Returns:
        [N, 3 objects, 3 roles: first, second, rest], and [N, 2], a relation of `_AHEAD`. Without relations, all objects
        are the rest.
    """
    ahead_pairs = ops.stack([related[..., RELATIONS.index(relation)] for relation in _AHEAD], axis=-1)
    rarer = ops.cast(ahead_pairs > 0.5, "float32") * np.arange(len(_AHEAD), dtype=np.float32)
    flat = ops.reshape(ahead_pairs + rarer, (-1, MOST_OBJECTS * MOST_OBJECTS * len(_AHEAD)))
    is_chosen = ops.one_hot(ops.argmax(flat, axis=-1), flat.shape[-1]) * ops.cast(flat > 0, "float32")
    chosen = ops.reshape(is_chosen, (-1, MOST_OBJECTS, MOST_OBJECTS, len(_AHEAD)))
    ahead, behind = ops.sum(chosen, axis=(2, 3)), ops.sum(chosen, axis=(1, 3))
    return ops.stack([ahead, behind, slots[..., 0] - ahead - behind], axis=-1), ops.sum(chosen, axis=(1, 2))


def _pairs(slots: Any, roles: Any) -> list[Any]:
    """Returns the combinations color-shape, color-size and size-shape of the pair: 76 values."""
    _, shape, color, size, _ = ops.split(slots, _ENDS[:-1].tolist(), axis=-1)
    is_paired = ops.sum(roles[..., :2], axis=-1, keepdims=True)
    pairs = ((color, shape), (color, size), (size, shape))
    return [keras.layers.Dot(axes=1)([one * is_paired, other]) for one, other in pairs]


def cell_loss(truth: Any, predicted: Any) -> Any:
    """Returns cross entropies of the attributes and squared distances of the centers of cells with an object."""
    is_there, *named, center = ops.split(truth, _ENDS[:-1].tolist(), axis=-1)
    parts = ops.split(predicted, _ENDS[:-1].tolist(), axis=-1)
    presence = keras.losses.binary_crossentropy(is_there, parts[0], from_logits=True)
    named_loss = sum(
        keras.losses.categorical_crossentropy(one, logits, from_logits=True)
        for one, logits in zip(named, parts[1:4], strict=True)
    )
    has_attributes = ops.sum(named[0], axis=-1)
    distance = ops.sum((center - parts[4]) ** 2, axis=-1)
    return ops.sum(presence + has_attributes * (named_loss + _WHERE_WEIGHT * distance)) / ops.sum(is_there)


def encode_cells(objects: Objects, grid: Grid = GRID) -> Floats:
    """Returns the targets [rows, columns, 19]: one cell has the object; also its neighbors have attributes, center."""
    rows, columns = grid.rows, grid.columns
    cells = np.zeros((rows, columns, _ATTRIBUTES), np.float32)
    nearest = np.full((rows, columns), np.inf)
    for drawn in objects:
        x, y = _where(drawn)
        row, column = int(y * rows), int(x * columns)
        away = np.maximum(
            np.abs(np.arange(rows) + 0.5 - y * rows)[:, None], np.abs(np.arange(columns) + 0.5 - x * columns)
        )
        away[row, column] = 0
        is_predicted = (away < _REACH) & (away < nearest)
        nearest[is_predicted] = away[is_predicted]
        thing = drawn.scene_object
        cells[is_predicted, 1:] = 0
        for end, at in zip(
            _ENDS[:3],
            (SHAPES.index(thing.shape), COLORS.index(thing.color), SIZES.index(thing.size)),
            strict=True,
        ):
            cells[is_predicted, end + at] = 1
        cells[is_predicted, _ENDS[3] :] = x, y
        cells[row, column, 0] = 1
    return cells


def _where(drawn: PlacedObject) -> tuple[float, float]:
    return drawn.center[0] / SCENE_WIDTH, drawn.center[1] / SCENE_HEIGHT


def list_facts(objects: Objects) -> Facts:
    """Returns the objects and their relations."""
    relations = ((one, find_relation(one, other), other) for one, other in permutations(objects, 2))
    return (
        frozenset(drawn.scene_object for drawn in objects),
        frozenset((one.scene_object, relation, other.scene_object) for one, relation, other in relations if relation),
    )


def decode_facts(locations: Floats) -> Facts:
    """Returns the objects and relations with a probability above 0.5 in `locations` [rows, columns, 34]."""
    attributes, rank, beside = np.split(
        locations.reshape(-1, locations.shape[-1]), [_ATTRIBUTES, _ATTRIBUTES + MOST_OBJECTS], axis=1
    )
    things = [_decode_object(slot) if slot[0] > 0.5 else None for slot in rank.T @ attributes]
    related = (rank.T @ beside).reshape(MOST_OBJECTS, MOST_OBJECTS, len(RELATIONS))
    relations = ((things[one], RELATIONS[how], things[other]) for one, other, how in np.argwhere(related > 0.5))
    return (
        frozenset(thing for thing in things if thing),
        frozenset((one, relation, other) for one, relation, other in relations if one and other),
    )


def _decode_object(slot: Floats) -> SceneObject:
    shape, color, size = (int(part.argmax()) for part in np.split(slot, _ENDS)[1:4])
    return SceneObject(SIZES[size], COLORS[color], SHAPES[shape])


def draw_scenes(
    seed: int, count: int, rules: SceneDatasetConfig, grid: Grid = GRID
) -> tuple[NDArray[np.uint8], list[tuple[PlacedObject, ...]]]:
    """Returns pixels [count, height, width, 3] of scenes for the extractor only, and their objects."""

    def one(number: int) -> tuple[NDArray[np.uint8], tuple[PlacedObject, ...]]:
        scene = make_scene(seed, number, rules)
        picture = Image.open(BytesIO(draw_scene(scene, seed)))
        return np.asarray(picture.resize((grid.width, grid.height), Image.Resampling.BILINEAR)), scene.objects

    with ThreadPoolExecutor() as pool:
        pixels, objects = zip(*pool.map(one, range(1, count + 1)), strict=True)
    return np.stack(pixels), list(objects)


def mirror(objects: Objects) -> tuple[PlacedObject, ...]:
    """Returns the objects of the horizontally flipped scene."""
    return tuple(
        PlacedObject(one.scene_object, (SCENE_WIDTH - one.box[0] - one.box[2], *one.box[1:]), -one.rotation)
        for one in objects
    )


def train_network(
    path: Path, seed: int, count: int, epochs: int, rules: SceneDatasetConfig, grid: Grid = GRID
) -> dict[str, Any]:
    """Trains the extractor on scenes of its own, with horizontal flips, and saves it as `.keras`.

    Vertical flips would make a triangle look like a heart.

    Args:
        path: Output file.
        seed: Seed of the scenes, which no other dataset has.
        count: Number of training scenes; a tenth as many held-out scenes are added.
        epochs: Number of epochs.
        rules: Config of the scenes.
        grid: Size of the input, and cells.

    Returns:
        `scenes`, `epochs`, and the fractions of held-out scenes with all `objects` right, and with all `relations`
        right, too. The weights in the file are rounded to 11 significant bits.
    """
    keras.utils.set_random_seed(seed)
    pixels, objects = draw_scenes(seed, count + count // 10, rules, grid)
    train, held_out = pixels[:count], pixels[count:]
    cells = _train_cells(train, objects[:count], epochs, grid)
    network = build_network(cells, _train_relations(cells, train, objects[:count], grid))
    _round_weights(network)
    network.save(path)
    _compress(path)
    predicted = network.predict(held_out, batch_size=_BATCH, verbose=0)[LOCATIONS_LAYER]
    return {"scenes": count, "epochs": epochs, **compute_accuracy(objects[count:], predicted)}


def write_embedded_network(path: Path, seed: int, count: int, epochs: int) -> dict[str, Any]:
    """Trains the network on scenes of one to three objects; writes it and its recipe, which it returns."""
    accuracy = train_network(path, seed, count, epochs, DEFAULT_CONFIG, EMBEDDED_GRID)
    recipe = {
        "command": "python benchmarks/scene_network.py",
        "seed": seed,
        **accuracy,
        "keras": keras.__version__,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(recipe, indent=2) + "\n")
    return recipe


def _round_weights(network: keras.Model) -> None:
    """Rounds the weights to 11 significant bits, as many as float16 has, so that the file is compressed well."""
    for weight in network.weights:
        bits = np.asarray(weight, np.float32).view(np.uint32)
        weight.assign(((bits + 0x1000) & 0xFFFFE000).view(np.float32))


def _compress(path: Path) -> None:
    """Compresses a `.keras` file and removes its date, so that equal weights are equal bytes."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(contents["metadata.json"])
    contents["metadata.json"] = json.dumps({"keras_version": metadata["keras_version"]}).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, compresslevel=9)


def compute_accuracy(scenes_objects: Sequence[Objects], predicted: Floats) -> dict[str, float]:
    """Returns the fractions of scenes with all objects right, and with all objects and relations right."""
    facts = [
        (list_facts(objects), decode_facts(locations))
        for objects, locations in zip(scenes_objects, predicted, strict=True)
    ]
    return {
        "objects": float(np.mean([truth[0] == prediction[0] for truth, prediction in facts])),
        "relations": float(np.mean([truth == prediction for truth, prediction in facts])),
    }


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The scenes in a new order per epoch, each flipped with probability 0.5."""

    def __init__(self, pixels: NDArray[np.uint8], objects: Sequence[Objects], grid: Grid) -> None:
        super().__init__()
        self._pixels = pixels
        self._truths = [
            np.stack([encode_cells(each, grid) for each in view]) for view in (objects, map(mirror, objects))
        ]
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


def _train_cells(pixels: NDArray[np.uint8], objects: Sequence[Objects], epochs: int, grid: Grid) -> keras.Model:
    cells, batches = build_cells(grid), _Batches(pixels, objects, grid)
    cells.compile(keras.optimizers.Adam(_rate(len(batches) * epochs)), loss=cell_loss)
    cells.fit(batches, epochs=epochs, verbose=0, shuffle=False)
    return cells


def _train_relations(
    cells: keras.Model, pixels: NDArray[np.uint8], objects: Sequence[Objects], grid: Grid
) -> keras.Model:
    """Trains on the predicted centers, so that uncertain relations are predicted as uncertain."""
    predicted = cells.predict(pixels, batch_size=_BATCH, verbose=0)
    steps, classes = zip(*_steps(predicted, objects, grid), strict=True)
    relations = build_relations()
    batch = 4 * _BATCH
    rate = _rate(-(-len(steps) // batch) * _RELATION_EPOCHS)
    relations.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    relations.fit(np.stack(steps), np.array(classes), batch_size=batch, epochs=_RELATION_EPOCHS, verbose=0)
    return relations


def _steps(predicted: Floats, scenes_objects: Sequence[Objects], grid: Grid) -> Iterator[tuple[Floats, int]]:
    """Yields the vector from each predicted center to each other, in heights, and the index of the relation."""
    for cells, objects in zip(predicted, scenes_objects, strict=True):
        for one, other in permutations(objects, 2):
            here, there = (cells[int(y * grid.rows), int(x * grid.columns), -2:] for x, y in map(_where, (one, other)))
            relation = find_relation(one, other)
            yield (there - here) * np.array(_ASPECT, np.float32), (*RELATIONS, None).index(relation)


def _rate(steps: int) -> Any:
    return keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=_LEARNING_RATE, warmup_steps=steps // 20)


def main() -> None:
    """Trains the network that ships with capt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=NETWORK_FILE, help="output file (.keras)")
    print(json.dumps(write_embedded_network(parser.parse_args().output, _SEED, _SCENES, _EPOCHS)))


if __name__ == "__main__":
    main()
