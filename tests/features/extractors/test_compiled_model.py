"""Compiled models agree with frozen graphs on every backend of Keras, within rounding."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from features.extractors.compiled_model import compile_extractor
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.random_weights import generate_noise_images
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

SIDE = 32
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.02}  # of an image's features, relative, in norm

SCRIPT = """
import sys
sys.modules["tensorflow"] = None  # as if it were not installed
from pathlib import Path
import keras, numpy as np
from features.extractors.compiled_model import compile_extractor
from schemas.options.extractor import ExtractorOptions
from features.extractors.factory import open_extractor
from schemas.table_config import FeatureTableConfig

extractor = open_extractor(ExtractorOptions(extractor="custom:model.keras", preprocess="tf"))
pixels = np.load("pixels.npy")
rows = {}
for precision in ("float32", "bfloat16"):
    table_config = FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": precision})
    rows[precision] = compile_extractor(extractor.build_function(table_config), precision).predict(pixels)
np.savez("rows.npz", backend=keras.backend.backend(), **rows)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Directory with a model, `model.keras`, and images for it, `pixels.npy`."""
    path = tmp_path_factory.mktemp("compiled")
    keras.utils.set_random_seed(3)
    image = keras.Input((SIDE, SIDE, 3))
    maps = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(image)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization(beta_initializer="ones")(maps))
    maps = keras.layers.SeparableConv2D(12, 3, padding="same", activation="relu")(maps)
    keras.Model(image, maps).save(path / "model.keras")
    np.save(path / "pixels.npy", generate_noise_images(5, SIDE, SIDE, 1))
    return path


@pytest.fixture(scope="module")
def function(directory):
    extractor = open_extractor(ExtractorOptions(extractor=f"custom:{directory}/model.keras", preprocess="tf"))
    return extractor.build_function(FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"}))


@pytest.fixture(scope="module")
def frozen(directory, function):
    """Features of the images by the frozen graph."""
    return FrozenGraph(freeze(function, SIDE, SIDE), "float32").predict(np.load(directory / "pixels.npy"))


def max_relative_error(rows, frozen):
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(rows, frozen, strict=True))


@pytest.mark.parametrize("precision", TOLERANCE)
def test_features_agree_with_the_frozen_graph(precision, directory, function, frozen):
    rows = compile_extractor(function, precision).predict(np.load(directory / "pixels.npy"))
    assert rows.dtype == np.float32
    assert rows.shape == (5, *function.shape)
    assert max_relative_error(rows, frozen) < TOLERANCE[precision]


def test_features_can_leave_the_device_in_float16(directory, function):
    pixels = np.load(directory / "pixels.npy")
    rows = compile_extractor(replace(function, dtype="float16"), "float32").predict(pixels)
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows, compile_extractor(function, "float32").predict(pixels).astype(np.float16))


def test_a_smaller_batch_is_padded_to_a_compiled_size(directory, function):
    pixels = np.load(directory / "pixels.npy")
    network = compile_extractor(function, "float32")
    computed, compute = [], network.compute
    network.compute = lambda pixels: computed.append(len(pixels)) or compute(pixels)
    together = network.predict(pixels)
    assert len(network.predict(pixels[:2])) == 2
    np.testing.assert_array_equal(network.predict(pixels[3:]), together[3:])
    assert computed == [5, 5, 5]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_need_no_tensorflow_and_agree(backend, directory, frozen):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=directory, env=environment, check=True)
    rows = np.load(directory / "rows.npz")
    assert rows["backend"] == backend
    for precision, tolerance in TOLERANCE.items():
        assert max_relative_error(rows[precision], frozen) < tolerance
