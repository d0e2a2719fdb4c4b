"""Models optimized for inference agree with the originals, without foldable normalizations."""

import keras
import numpy as np
import pytest

from features.extractors.inference_model import optimize_for_inference

NORMALIZATION = keras.layers.BatchNormalization


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
