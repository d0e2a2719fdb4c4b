"""Networks for inference give what they are copies of, without the normalizations that follow a convolution."""

import keras
import numpy as np
import pytest

from features.extractors.inference_model import optimize_for_inference

NORMALIZATION = keras.layers.BatchNormalization


def network(*layers):
    """A network whose weights and statistics are drawn."""
    model = keras.Sequential([keras.Input((9, 8, 3)), *layers])
    model = keras.Model(model.inputs[0], model.outputs[0])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    return model


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def values(model):
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
    model = network(convolution, NORMALIZATION(**form), keras.layers.ReLU())
    copy = optimize_for_inference(model, "float32")
    assert kinds(copy) == [type(convolution).__name__, "ReLU"]
    np.testing.assert_allclose(values(copy), values(model), rtol=1e-5, atol=1e-5)
    assert kinds(model) == [type(convolution).__name__, "BatchNormalization", "ReLU"]


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
def test_other_normalizations_stay(layers):
    model = network(*layers)
    copy = optimize_for_inference(model, "float32")
    assert kinds(copy) == kinds(model)
    np.testing.assert_array_equal(values(copy), values(model))


def test_a_convolution_that_others_read_too_keeps_its_output():
    pixels = keras.Input((9, 8, 3))
    maps = keras.layers.Conv2D(4, 3)(pixels)
    model = keras.Model(pixels, keras.layers.Add()([maps, NORMALIZATION(epsilon=0.5)(maps)]))
    copy = optimize_for_inference(model, "float32")
    assert kinds(copy) == kinds(model)
    np.testing.assert_array_equal(values(copy), values(model))


def test_an_average_is_taken_behind_a_convolution_that_leaves_fewer_channels():
    average = keras.layers.AveragePooling2D(3, strides=1, padding="same")
    model = network(average, keras.layers.Conv2D(2, 1, use_bias=False), NORMALIZATION(), keras.layers.ReLU())
    copy = optimize_for_inference(model, "float32")
    assert kinds(copy) == ["Conv2D", "AveragePooling2D", "ReLU"]
    np.testing.assert_allclose(values(copy), values(model), rtol=1e-5, atol=1e-5)


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
    ids=["as-many", "3x3", "relu", "strided", "fewer-places", "maximum"],
)
def test_other_poolings_stay_where_they_are(layers):
    model = network(*layers)
    copy = optimize_for_inference(model, "float32")
    assert kinds(copy) == kinds(model)
    np.testing.assert_array_equal(values(copy), values(model))


def test_a_convolution_that_is_called_twice_reads_its_averages():
    pixels = keras.Input((9, 8, 3))
    maps = keras.layers.Conv2D(4, 3)(pixels)
    twice = keras.layers.Conv2D(2, 1)
    average = keras.layers.AveragePooling2D(3, strides=1, padding="same")
    model = keras.Model(pixels, keras.layers.Add()([twice(average(maps)), twice(maps)]))
    np.testing.assert_allclose(values(optimize_for_inference(model, "float32")), values(model), rtol=1e-5, atol=1e-5)


def test_a_convolution_that_is_called_twice_keeps_the_normalization_of_one_output():
    pixels = keras.Input((9, 8, 3))
    twice = keras.layers.Conv2D(3, 3, padding="same")
    maps = twice(pixels)
    model = keras.Model(
        pixels, keras.layers.Add()([NORMALIZATION(epsilon=0.5)(maps), twice(keras.layers.ReLU()(pixels))])
    )
    np.testing.assert_array_equal(values(optimize_for_inference(model, "float32")), values(model))


def test_a_layer_that_is_called_twice_is_one_layer_in_the_copy():
    pixels = keras.Input((9, 8, 3))
    twice = keras.layers.Conv2D(3, 3, padding="same")
    model = keras.Model(pixels, twice(keras.layers.ReLU()(twice(pixels))))
    copy = optimize_for_inference(model, "float32")
    assert kinds(copy) == kinds(model)
    np.testing.assert_array_equal(values(copy), values(model))


def test_in_bfloat16_layers_compute_in_it_and_keep_float32_weights():
    model = network(keras.layers.Conv2D(4, 3), NORMALIZATION(), keras.layers.ReLU())
    copy = optimize_for_inference(model, "bfloat16")
    assert {layer.compute_dtype for layer in copy.layers[1:]} == {"bfloat16"}
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    np.testing.assert_allclose(values(copy).astype(np.float32), values(model), rtol=0.05, atol=0.05)
    assert keras.config.dtype_policy().name == "float32"
