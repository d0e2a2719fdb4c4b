"""Compiled models agree with frozen graphs on every backend of Keras, and optimized models with the originals."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from features.extractors.compiled_model import CompiledModel, compile_extractor, optimize_for_inference
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.weights import generate_noise_images
from features.runtime.numerics import Device
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

SIDE = 32
NORMALIZATION = keras.layers.BatchNormalization
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


class SmallDevice(CompiledModel):
    """A model on a device whose memory holds four images."""

    def put(self, pixels):
        if len(pixels) > 4:
            raise MemoryError
        return pixels

    def compute(self, pixels):
        return pixels.mean(axis=(1, 2))

    def wait(self, features):
        pass

    def fetch(self, features):
        return features


def test_a_padded_batch_that_does_not_fit_into_memory_is_computed_without_padding(function, directory):
    model, pixels = SmallDevice(function, Device("gpu", "small")), np.load(directory / "pixels.npy")
    model.batch_sizes = frozenset((8, 16))
    assert np.array_equal(model.predict(pixels[:1]), pixels[:1].mean(axis=(1, 2)))
    assert model.batch_sizes == {1}
    with pytest.raises(MemoryError):
        model.predict(pixels[:5])


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
    # Without AVX-512, the bits of a row depend on its position in batches of other sizes than multiples of 12.
    pixels = np.resize(np.load(directory / "pixels.npy"), (12, SIDE, SIDE, 3))
    network = compile_extractor(function, "float32")
    computed, compute = [], network.compute
    network.compute = lambda pixels: computed.append(len(pixels)) or compute(pixels)
    together = network.predict(pixels)
    assert len(network.predict(pixels[:2])) == 2
    np.testing.assert_array_equal(network.predict(pixels[3:]), together[3:])
    np.testing.assert_array_equal(network.predict(pixels[10:]), together[10:])
    assert computed == [12, 12, 12, 12]


@pytest.mark.slow
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


def build_model(*layers):
    """Builds a model with random weights and statistics."""
    model = keras.Sequential([keras.Input((9, 8, 3)), *layers])
    model = keras.Model(model.inputs[0], model.outputs[0])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    return model


def layer_types(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def predict(model):
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 9, 8, 3)).astype(np.float32)
    return np.asarray(model(pixels, training=False))


@pytest.mark.parametrize(
    "convolution",
    [
        keras.layers.Conv2D(5, 3, use_bias=False),
        keras.layers.Conv2D(5, 3, strides=2, padding="same"),
        keras.layers.DepthwiseConv2D(3, use_bias=False),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
    ],
    ids=lambda layer: layer.name,
)
@pytest.mark.parametrize("form", [{}, {"scale": False}, {"center": False, "epsilon": 0.5}], ids=str)
def test_a_normalization_is_folded_into_the_convolution_before_it(convolution, form):
    convolution = type(convolution).from_config(convolution.get_config())
    model = build_model(convolution, NORMALIZATION(**form), keras.layers.ReLU())
    copy = optimize_for_inference(model, "float32")
    assert layer_types(copy) == [type(convolution).__name__, "ReLU"]
    np.testing.assert_allclose(predict(copy), predict(model), rtol=1e-5, atol=1e-5)
    assert layer_types(model) == [type(convolution).__name__, "BatchNormalization", "ReLU"]


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Conv2D(4, 3, activation="relu"), NORMALIZATION()],
        [keras.layers.Conv2D(4, 3), keras.layers.ReLU(), NORMALIZATION()],
        [keras.layers.Conv2D(4, 3), NORMALIZATION(axis=1)],
        [NORMALIZATION(), keras.layers.Conv2D(4, 3)],
        [keras.layers.SeparableConv2D(4, 3), NORMALIZATION()],
    ],
    ids=lambda layers: "-".join(layer.name for layer in layers),
)
def test_other_normalizations_are_kept(layers):
    model = build_model(*layers)
    copy = optimize_for_inference(model, "float32")
    assert layer_types(copy) == layer_types(model)
    np.testing.assert_array_equal(predict(copy), predict(model))


def test_a_convolution_with_two_consumers_is_not_folded():
    pixels = keras.Input((9, 8, 3))
    maps = keras.layers.Conv2D(4, 3)(pixels)
    model = keras.Model(pixels, keras.layers.Add()([maps, NORMALIZATION(epsilon=0.5)(maps)]))
    copy = optimize_for_inference(model, "float32")
    assert layer_types(copy) == layer_types(model)
    np.testing.assert_array_equal(predict(copy), predict(model))


def test_average_pooling_moves_behind_a_convolution_to_fewer_channels():
    average = keras.layers.AveragePooling2D(3, strides=1, padding="same")
    model = build_model(average, keras.layers.Conv2D(2, 1, use_bias=False), NORMALIZATION(), keras.layers.ReLU())
    copy = optimize_for_inference(model, "float32")
    assert layer_types(copy) == ["Conv2D", "AveragePooling2D", "ReLU"]
    np.testing.assert_allclose(predict(copy), predict(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.AveragePooling2D(3, strides=1), keras.layers.Conv2D(3, 1)],
        [keras.layers.AveragePooling2D(3, strides=1), keras.layers.Conv2D(2, 3)],
        [keras.layers.AveragePooling2D(3, strides=1), keras.layers.Conv2D(2, 1, activation="relu")],
        [keras.layers.AveragePooling2D(3, strides=1), keras.layers.Conv2D(2, 1, strides=2)],
        [keras.layers.AveragePooling2D(3), keras.layers.Conv2D(2, 1)],
        [keras.layers.MaxPooling2D(3, strides=1), keras.layers.Conv2D(2, 1)],
    ],
    ids=["as-many", "3x3", "relu", "strided", "fewer-locations", "maximum"],
)
def test_other_poolings_are_not_moved(layers):
    model = build_model(*layers)
    copy = optimize_for_inference(model, "float32")
    assert layer_types(copy) == layer_types(model)
    np.testing.assert_array_equal(predict(copy), predict(model))


def test_pooling_stays_before_a_convolution_that_is_called_twice():
    pixels = keras.Input((9, 8, 3))
    maps = keras.layers.Conv2D(4, 3)(pixels)
    twice = keras.layers.Conv2D(2, 1)
    average = keras.layers.AveragePooling2D(3, strides=1, padding="same")
    model = keras.Model(pixels, keras.layers.Add()([twice(average(maps)), twice(maps)]))
    np.testing.assert_allclose(predict(optimize_for_inference(model, "float32")), predict(model), rtol=1e-5, atol=1e-5)


def test_normalization_after_a_convolution_that_is_called_twice_is_kept():
    pixels = keras.Input((9, 8, 3))
    twice = keras.layers.Conv2D(3, 3, padding="same")
    maps = twice(pixels)
    model = keras.Model(
        pixels, keras.layers.Add()([NORMALIZATION(epsilon=0.5)(maps), twice(keras.layers.ReLU()(pixels))])
    )
    np.testing.assert_array_equal(predict(optimize_for_inference(model, "float32")), predict(model))


def test_a_layer_that_is_called_twice_is_one_layer_in_the_copy():
    pixels = keras.Input((9, 8, 3))
    twice = keras.layers.Conv2D(3, 3, padding="same")
    model = keras.Model(pixels, twice(keras.layers.ReLU()(twice(pixels))))
    copy = optimize_for_inference(model, "float32")
    assert layer_types(copy) == layer_types(model)
    np.testing.assert_array_equal(predict(copy), predict(model))


def test_bfloat16_layers_keep_float32_weights():
    model = build_model(keras.layers.Conv2D(4, 3), NORMALIZATION(), keras.layers.ReLU())
    copy = optimize_for_inference(model, "bfloat16")
    assert {layer.compute_dtype for layer in copy.layers[1:]} == {"bfloat16"}
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    np.testing.assert_allclose(predict(copy).astype(np.float32), predict(model), rtol=0.05, atol=0.05)
    assert keras.config.dtype_policy().name == "float32"
