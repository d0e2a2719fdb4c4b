"""AlexNet has the published layers, reads weights of a file, and can be frozen."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from features.extractors.alexnet import ALEXNET
from features.extractors.alexnet_layers import GroupedConvolution, LocalResponseNormalization
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import freeze, load_frozen_graph
from features.extractors.weights import generate_noise_images, identify_weights, load_weights
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

CONV = ALEXNET.resolve_build_options("conv5", 67, 67)


def random_arrays(model, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "/".join(variable.path.split("/")[-2:]): rng.normal(0, 0.05, variable.shape).astype(np.float32)
        for variable in model.weights
    }


def test_the_parameters_and_shapes_are_the_published_ones():
    model = ALEXNET.build(ALEXNET.resolve_build_options())
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    assert shapes["conv1"] == (55, 55, 96)
    assert shapes["conv2"] == (27, 27, 256)
    assert shapes["conv5"] == (13, 13, 256)
    assert shapes["pool5"] == (6, 6, 256)
    assert shapes["fc7"] == (4096,)
    classifier = 4097 * 1000
    assert model.count_params() + classifier == 60_965_224


def test_the_convolutions_have_the_groups_of_caffe():
    model = ALEXNET.build(CONV)
    kernels = {layer.name: tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")}
    assert kernels == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
    }


def test_the_weights_of_caffe_are_converted_as_the_page_says():
    """Caffe flattens [channel, height, width], and stores [filters, channels, height, width] and [outputs, inputs]."""
    model = ALEXNET.build(ALEXNET.resolve_build_options())
    rng = np.random.default_rng(0)
    pool5 = rng.normal(size=(2, 6, 6, 256)).astype(np.float32)
    caffe = rng.normal(0, 0.01, (4096, 9216)).astype(np.float32)
    fc6 = model.get_layer("fc6")
    fc6.set_weights([caffe.reshape(4096, 256, 6, 6).transpose(2, 3, 1, 0).reshape(9216, 4096), np.zeros(4096)])
    expected = np.maximum(pool5.transpose(0, 3, 1, 2).reshape(2, -1) @ caffe.T, 0)
    np.testing.assert_allclose(fc6(model.get_layer("flatten")(pool5)), expected, atol=1e-4)
    inputs = rng.normal(size=(1, 5, 5, 256)).astype(np.float32)
    conv3, kernel = model.get_layer("conv3"), rng.normal(0, 0.01, (384, 256, 3, 3)).astype(np.float32)
    conv3.set_weights([kernel.transpose(2, 3, 1, 0), np.zeros(384)])
    center = np.einsum("hwc,fchw->f", inputs[0, 1:4, 1:4], kernel)
    np.testing.assert_allclose(conv3(inputs)[0, 2, 2], np.maximum(center, 0), atol=1e-4)


def test_a_grouped_convolution_equals_that_of_keras():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 7, 6, 8)).astype(np.float32)
    ours, theirs = GroupedConvolution(12, 3, 2, "relu"), keras.layers.Conv2D(12, 3, padding="same", groups=2)
    ours.build(inputs.shape)
    theirs.build(inputs.shape)
    weights = [rng.normal(size=variable.shape) for variable in ours.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    np.testing.assert_allclose(ours(inputs), keras.ops.relu(theirs(inputs)), atol=1e-5)


def test_the_response_normalization_equals_that_of_tensorflow():
    inputs = np.random.default_rng(0).normal(0, 100, (2, 3, 3, 9)).astype(np.float32)
    expected = tf.nn.lrn(inputs, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)
    np.testing.assert_allclose(LocalResponseNormalization()(inputs), expected, rtol=1e-5)


def test_the_input_is_blue_green_red_minus_the_mean_of_caffe():
    pixels = np.full((1, 1, 1, 3), [10, 20, 30], np.float32)
    result = np.asarray(ALEXNET.load_preprocessing()(pixels)).ravel()
    np.testing.assert_allclose(result, [30 - 104.007, 20 - 116.669, 10 - 122.679], atol=1e-3)


@pytest.mark.parametrize("suffix", [".npz", ".weights.h5"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str):
    source, path = ALEXNET.build(CONV), tmp_path / f"alexnet{suffix}"
    arrays = random_arrays(source)
    for variable in source.weights:
        variable.assign(arrays["/".join(variable.path.split("/")[-2:])])
    if suffix == ".npz":
        np.savez(path, **arrays, **{"fc8/kernel": np.zeros((2, 2), np.float32)})
    else:
        source.save_weights(path)
    model = load_weights(ALEXNET.build(CONV), str(path), ALEXNET, CONV)
    for got, expected in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_file_that_does_not_fit_is_refused_with_the_array(tmp_path: Path):
    model, path = ALEXNET.build(CONV), tmp_path / "w.npz"
    arrays = random_arrays(model)
    np.savez(path, **{name: array for name, array in arrays.items() if name != "conv4/bias"})
    with pytest.raises(CaptError, match="do not fit alexnet: the file has no array conv4/bias"):
        load_weights(model, str(path), ALEXNET, CONV)
    np.savez(path, **{**arrays, "conv1/bias": np.zeros(7, np.float32)})
    with pytest.raises(CaptError, match=r"conv1/bias: expected the shape \[96\], got \[7\]"):
        load_weights(model, str(path), ALEXNET, CONV)
    np.save(tmp_path / "pickled.npy", {"conv1": 1}, allow_pickle=True)
    path.write_bytes((tmp_path / "pickled.npy").read_bytes())
    with pytest.raises(CaptError, match="do not fit alexnet"):
        load_weights(model, str(path), ALEXNET, CONV)


@pytest.mark.parametrize("damage", ["empty", "cut", "corrupt", "one array"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str):
    model, path = ALEXNET.build(CONV), tmp_path / "w.npz"
    np.savez_compressed(path, **{name: np.zeros_like(array) for name, array in random_arrays(model).items()})
    data = path.read_bytes()
    start = data.index(b"conv1/kernel.npy") + 60
    if damage == "one array":
        np.save(tmp_path / "one.npy", np.zeros(3))
        data, start = (tmp_path / "one.npy").read_bytes(), 0
    path.write_bytes({"empty": b"", "cut": data[:-9], "corrupt": corrupt(data, start)}.get(damage, data))
    with pytest.raises(CaptError, match=r"do not fit alexnet: not a complete .npz file: "):
        load_weights(model, str(path), ALEXNET, CONV)


def corrupt(data: bytes, start: int) -> bytes:
    return data[:start] + b"\xff" * 20 + data[start + 20 :]


def test_there_are_no_published_weights():
    with pytest.raises(UsageError, match=r"--weights: there are no published weights of alexnet\. Use --weights FILE"):
        identify_weights("imagenet", ALEXNET, CONV)


def test_the_frozen_graph_gives_the_features_of_the_model(tmp_path: Path):
    options = ExtractorOptions(extractor="alexnet", weights="random:7", layer="conv5", height=67, width=67)
    extractor = open_extractor(options)
    config = FeatureTableConfig(**vars(extractor.resolve_config()) | {"precision": "float32"})
    function = extractor.build_function(config)
    assert function.shape == (9, 256)
    path = tmp_path / "network.pb"
    path.write_bytes(freeze(function, 67, 67, "uint8"))
    assert path.read_bytes() == freeze(extractor.build_function(config), 67, 67, "uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 67, 67, 3)).astype(np.uint8)
    frozen = load_frozen_graph(path, "float32")
    expected = np.asarray(function(pixels))
    np.testing.assert_allclose(frozen.predict(pixels), expected, rtol=1e-3, atol=1e-3)
    assert 0.1 < expected.std() < 10


@pytest.mark.slow
def test_fc7_is_frozen_and_its_bits_depend_on_the_image_alone(tmp_path: Path):
    extractor = open_extractor(ExtractorOptions(extractor="alexnet", weights="random:7"))
    config = FeatureTableConfig(**vars(extractor.resolve_config()) | {"precision": "float32"})
    assert (config.layer, config.height, config.width) == ("fc7", 227, 227)
    path = tmp_path / "network.pb"
    path.write_bytes(freeze(extractor.build_function(config), 227, 227, "uint8"))
    frozen = load_frozen_graph(path, "float32")
    assert frozen.shape == (4096,)
    images = generate_noise_images(16, 227, 227, 11)
    together = frozen.predict(images)
    assert 0.1 < together.std() < 10
    assert (together >= 0).all()
    np.testing.assert_array_equal(frozen.predict(images[8:]), together[8:])
    padded = np.concatenate([images[2::-1], np.zeros((5, 227, 227, 3), np.uint8)])
    np.testing.assert_array_equal(frozen.predict(padded)[:3], together[2::-1])
