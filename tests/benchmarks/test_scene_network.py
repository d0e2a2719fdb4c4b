"""The network of the scenes benchmark derives objects, ranks, relations and roles from its cells."""

import hashlib
import importlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from features.synthetic.scenes.generator import SceneDatasetConfig, make_scene
from features.synthetic.scenes.scene import COLORS, RELATIONS, SHAPES, SIZES, PlacedObject, SceneObject, find_relation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHOWN = (
    PlacedObject(SceneObject("large", "blue", "heart"), (200, 130, 90, 90), 0),
    PlacedObject(SceneObject("small", "red", "star"), (20, 150, 40, 40), 0),
    PlacedObject(SceneObject("small", "black", "cross"), (30, 20, 40, 40), 0),
)
RED, BLACK, BLUE = range(3)  # from left to right


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("scene_network")


@pytest.fixture
def read(module):
    """From cells, as logits, to `locations` and `scene`, with relations along the longer axis."""
    cells = keras.Input((module.GRID.rows, module.GRID.columns, module.encode_cells(SHOWN).shape[-1]))
    step = keras.Input((2,))
    relation = keras.layers.Dense(len(RELATIONS) + 1, activation="softmax")
    relation_model = keras.Model(step, relation(step))
    relation.set_weights([100 * np.array([[1, -1, 0, 0, 0], [0, 0, 1, -1, 0]]), np.array([0, 0, 0, 0, -100])])
    network = module.build_network(keras.Model(cells, keras.layers.Identity()(cells)), relation_model)
    return lambda cells: {name: values[0] for name, values in network.predict(cells[None], verbose=0).items()}


def logits(cells):
    """The cells of a confident network."""
    sure = 40 * cells - 20
    sure[..., -2:] = cells[..., -2:]
    return sure


def test_a_cell_without_an_object_learns_only_its_absence(module):
    truth = module.encode_cells(SHOWN)[None]
    predicted = keras.Variable(np.random.default_rng(0).normal(size=truth.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = module.cell_loss(truth, predicted.value)
    slope = tape.gradient(loss, predicted.value).numpy()
    empty = truth[..., 1:].sum(-1) == 0
    assert not slope[empty][:, 1:].any()
    assert slope[..., 0].all()
    assert slope[~empty].all()


@pytest.mark.parametrize("number", range(1, 9))
def test_all_objects_and_their_relations_are_decoded_from_the_cells(module, read, number):
    objects = make_scene(3, number, SceneDatasetConfig(object_counts=(2, 3))).objects
    things, relations = module.decode_facts(read(logits(module.encode_cells(objects)))["locations"])
    wanted_things, wanted = module.list_facts(objects)
    assert things == wanted_things
    assert relations >= wanted  # if none of the four is true, this model predicts the nearest


def test_an_object_on_a_border_is_predicted_once_if_neither_cell_is_confident(module, read):
    border = PlacedObject(
        SceneObject("large", "blue", "heart"), (195, 120, 90, 90), 0
    )  # its center is on a border of columns
    cells = logits(module.encode_cells([border]))
    row, column = np.argwhere(cells[..., 0] > 0)[0]
    cells[row, column - 1 : column + 1, 0] = 0.1, 0.2
    predicted = read(cells)
    assert predicted["locations"][..., 0].sum() == 1
    assert module.decode_facts(predicted["locations"])[0] == {border.scene_object}


def test_a_location_has_the_rank_of_its_object_and_its_relations(module, read):
    locations = read(logits(module.encode_cells(SHOWN)))["locations"]
    star = locations[4, 1]
    np.testing.assert_array_equal(star[19:22], np.eye(3)[RED])
    relations = star[22:].reshape(3, len(RELATIONS))
    assert not relations[RED].any()
    assert RELATIONS[relations[BLACK].argmax()] == find_relation(SHOWN[1], SHOWN[2]) == "below"
    assert RELATIONS[relations[BLUE].argmax()] == find_relation(SHOWN[1], SHOWN[0]) == "left of"
    empty = np.delete(locations.reshape(48, -1), [4 * 8 + 1, 1 * 8 + 1, 4 * 8 + 6], axis=0)
    assert not empty.any()


def role(thing):
    """The values of an object in `scene`: presence, shape, color and size."""
    parts = ((SHAPES, thing.shape), (COLORS, thing.color), (SIZES, thing.size))
    return np.concatenate([[1], *(np.eye(len(all_))[all_.index(one)] for all_, one in parts)])


def test_the_scene_has_the_first_object_of_a_pair_then_the_second_then_the_third(module, read):
    heart, star, cross = SHOWN
    assert find_relation(cross, star) == "above"
    assert find_relation(star, heart) == "left of"  # is the pair if no object is above another
    scene = read(logits(module.encode_cells(SHOWN)))["scene"]
    np.testing.assert_allclose(
        scene[:51].reshape(3, 17), [role(drawn.scene_object) for drawn in (cross, star, heart)], atol=1e-3
    )
    np.testing.assert_array_equal(scene[51:53], [0, 1])


@pytest.mark.parametrize("number", range(1, 9))
def test_the_relation_of_the_pair_is_correct(module, read, number):
    objects = make_scene(3, number, SceneDatasetConfig(object_counts=(2, 3))).objects
    scene = read(logits(module.encode_cells(objects)))["scene"]
    ahead, behind = (
        next(drawn for drawn in objects if np.allclose(role(drawn.scene_object), values, atol=1e-3))
        for values in scene[:34].reshape(2, 17)
    )
    relation = ("left of", "above")[scene[51:53].argmax()]
    assert find_relation(ahead, behind) in (relation, None)  # this model predicts the nearest if none is true


def test_combinations_of_attributes_are_those_of_the_pair(module, read):
    _, star, cross = SHOWN
    scene = read(logits(module.encode_cells(SHOWN)))["scene"]
    shape, color, size = slice(1, 7), slice(7, 15), slice(15, 17)
    wanted = [
        sum(np.outer(thing[one], thing[other]) for thing in (role(star.scene_object), role(cross.scene_object))).ravel()
        for one, other in ((color, shape), (color, size), (size, shape))
    ]
    np.testing.assert_allclose(scene[53:], np.concatenate(wanted), atol=1e-3)


def test_a_missing_third_object_is_all_zeros(module, read):
    scene = read(logits(module.encode_cells(SHOWN[:2])))["scene"]
    assert scene[:34].any()
    assert not scene[34:51].any()


def test_without_relations_every_object_is_the_third(module, read):
    scene = read(logits(module.encode_cells(SHOWN[:1])))["scene"]
    assert not scene[:34].any()
    np.testing.assert_allclose(scene[34:51], role(SHOWN[0].scene_object), atol=1e-3)
    assert not scene[51:].any()


def test_the_saved_network_computes_the_same_without_custom_code(module, tmp_path):
    network = module.build_network(module.build_cells(), module.build_relations())
    network.save(tmp_path / "network.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, module.GRID.height, module.GRID.width, 3)).astype(np.float32)
    loaded = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    for name, shape in ((module.LOCATIONS_LAYER, (2, 6, 8, 34)), (module.SCENE_LAYER, (2, 129))):
        predicted = loaded.predict(pixels, verbose=0)[name]
        assert predicted.shape == shape
        np.testing.assert_allclose(predicted, network.predict(pixels, verbose=0)[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_network_that_ships_is_written_rounded_with_its_recipe(module, tmp_path):
    path = tmp_path / "network.keras"
    recipe = module.write_embedded_network(path, seed=5, count=40, epochs=1)
    assert json.loads(path.with_suffix(".json").read_text()) == recipe
    assert recipe["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (recipe["seed"], recipe["scenes"], recipe["epochs"]) == (5, 40, 1)
    network = keras.models.load_model(path, safe_mode=True)
    assert network.input_shape == (None, 128, 128, 3)
    assert not any((np.asarray(weight, np.float32).view(np.uint32) & 0x1FFF).any() for weight in network.weights)
