"""The scenes benchmark's network says what its cells tell: each object once, its rank, whom it stands to, its role."""

import importlib
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
    """From cells, as logits, to `places` and `scene`, with relations along the longer axis."""
    cells = keras.Input((module.ROWS, module.COLUMNS, module.cells_of(SHOWN).shape[-1]))
    step = keras.Input((2,))
    relation = keras.layers.Dense(len(RELATIONS) + 1, activation="softmax")
    relations = keras.Model(step, relation(step))
    relation.set_weights([100 * np.array([[1, -1, 0, 0, 0], [0, 0, 1, -1, 0]]), np.array([0, 0, 0, 0, -100])])
    network = module.build_network(keras.Model(cells, keras.layers.Identity()(cells)), relations)
    return lambda told: {name: said[0] for name, said in network.predict(told[None], verbose=0).items()}


def logits(cells):
    """The cells of a network that is sure of them."""
    sure = 40 * cells - 20
    sure[..., -2:] = cells[..., -2:]
    return sure


def test_a_cell_that_tells_of_no_object_learns_only_that_there_is_none(module):
    truth = module.cells_of(SHOWN)[None]
    said = keras.Variable(np.random.default_rng(0).normal(size=truth.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = module.cell_loss(truth, said.value)
    slope = tape.gradient(loss, said.value).numpy()
    empty = truth[..., 1:].sum(-1) == 0
    assert not slope[empty][:, 1:].any()
    assert slope[..., 0].all()
    assert slope[~empty].all()


@pytest.mark.parametrize("number", range(1, 9))
def test_all_objects_and_their_relations_are_read_off_the_cells(module, read, number):
    objects = make_scene(3, number, SceneDatasetConfig(object_counts=(2, 3))).objects
    things, log_state = module.facts_in(read(logits(module.cells_of(objects)))["places"])
    wanted_things, wanted = module.facts_of(objects)
    assert things == wanted_things
    assert log_state >= wanted  # where none of the four is true, this reader tells the nearest


def test_an_object_on_a_border_is_told_once_though_neither_cell_is_sure(module, read):
    border = PlacedObject(
        SceneObject("large", "blue", "heart"), (195, 120, 90, 90), 0
    )  # its centre is on a border of columns
    told = logits(module.cells_of([border]))
    row, column = np.argwhere(told[..., 0] > 0)[0]
    told[row, column - 1 : column + 1, 0] = 0.1, 0.2
    said = read(told)
    assert said["places"][..., 0].sum() == 1
    assert module.facts_in(said["places"])[0] == {border.scene_object}


def test_a_place_knows_its_rank_and_how_it_stands_to_the_object_of_each(module, read):
    places = read(logits(module.cells_of(SHOWN)))["places"]
    star = places[4, 1]
    np.testing.assert_array_equal(star[19:22], np.eye(3)[RED])
    log_state = star[22:].reshape(3, len(RELATIONS))
    assert not log_state[RED].any()
    assert RELATIONS[log_state[BLACK].argmax()] == find_relation(SHOWN[1], SHOWN[2]) == "below"
    assert RELATIONS[log_state[BLUE].argmax()] == find_relation(SHOWN[1], SHOWN[0]) == "left of"
    empty = np.delete(places.reshape(48, -1), [4 * 8 + 1, 1 * 8 + 1, 4 * 8 + 6], axis=0)
    assert not empty.any()


def role(thing):
    """What `scene` tells of an object: that it is there, its shape, colour and size."""
    parts = ((SHAPES, thing.shape), (COLORS, thing.color), (SIZES, thing.size))
    return np.concatenate([[1], *(np.eye(len(all_))[all_.index(one)] for all_, one in parts)])


def test_the_scene_tells_a_pair_from_the_object_that_is_ahead_and_then_the_third(module, read):
    heart, star, cross = SHOWN
    assert find_relation(cross, star) == "above"
    assert find_relation(star, heart) == "left of"  # does for a pair where none is above another
    scene = read(logits(module.cells_of(SHOWN)))["scene"]
    np.testing.assert_allclose(
        scene[:51].reshape(3, 17), [role(drawn.scene_object) for drawn in (cross, star, heart)], atol=1e-3
    )
    np.testing.assert_array_equal(scene[51:53], [0, 1])


@pytest.mark.parametrize("number", range(1, 9))
def test_the_pair_stands_in_the_relation_that_is_told(module, read, number):
    objects = make_scene(3, number, SceneDatasetConfig(object_counts=(2, 3))).objects
    scene = read(logits(module.cells_of(objects)))["scene"]
    ahead, behind = (
        next(drawn for drawn in objects if np.allclose(role(drawn.scene_object), told, atol=1e-3))
        for told in scene[:34].reshape(2, 17)
    )
    told = ("left of", "above")[scene[51:53].argmax()]
    assert find_relation(ahead, behind) in (told, None)  # this reader tells the nearest where none is true


def test_what_goes_with_what_is_told_of_the_pair_alone(module, read):
    _, star, cross = SHOWN
    scene = read(logits(module.cells_of(SHOWN)))["scene"]
    shape, color, size = slice(1, 7), slice(7, 15), slice(15, 17)
    wanted = [
        sum(np.outer(thing[one], thing[other]) for thing in (role(star.scene_object), role(cross.scene_object))).ravel()
        for one, other in ((color, shape), (color, size), (size, shape))
    ]
    np.testing.assert_allclose(scene[53:], np.concatenate(wanted), atol=1e-3)


def test_a_missing_third_object_is_all_zeros(module, read):
    scene = read(logits(module.cells_of(SHOWN[:2])))["scene"]
    assert scene[:34].any()
    assert not scene[34:51].any()


def test_where_nothing_is_related_every_object_is_left_over(module, read):
    scene = read(logits(module.cells_of(SHOWN[:1])))["scene"]
    assert not scene[:34].any()
    np.testing.assert_allclose(scene[34:51], role(SHOWN[0].scene_object), atol=1e-3)
    assert not scene[51:].any()


def test_the_saved_network_says_the_same_without_any_code_of_its_own(module, tmp_path):
    network = module.build_network(module.build_cells(), module.build_relations())
    network.save(tmp_path / "network.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, module.HEIGHT, module.WIDTH, 3)).astype(np.float32)
    loaded = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    for name, shape in ((module.PLACES_LAYER, (2, 6, 8, 34)), (module.SCENE_LAYER, (2, 129))):
        said = loaded.predict(pixels, verbose=0)[name]
        assert said.shape == shape
        np.testing.assert_allclose(said, network.predict(pixels, verbose=0)[name], rtol=1e-5, atol=1e-6)
