"""Weights have an identity that needs no model, and random ones are the same wherever they are drawn."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.extractors.application import BuildOptions, find_application
from features.extractors.output_layers import build_in_thread
from features.extractors.random_weights import generate_noise_images, randomize
from features.extractors.weights import identify_weights, is_imagenet_available, load_weights
from schemas.errors import CaptError, UsageError

MOBILENET = find_application("mobilenet")
SMALL = MOBILENET.resolve_build_options(None, 32, 32)


def test_an_identity_says_what_the_weights_are(tmp_path: Path) -> None:
    file = tmp_path / "w.weights.h5"
    file.write_bytes(b"weights")
    network = find_application("vgg16")
    form = network.resolve_build_options()
    assert identify_weights("imagenet", network, form) == "imagenet:6d6bbae143d832006294945121d1f1fc"
    assert identify_weights("random:7", network, form) == "random:7@1"
    assert identify_weights(str(file), network, form) == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    for weights, message in (("random:x", "has no seed"), ("nowhere", "no such weights file")):
        with pytest.raises(UsageError, match=message):
            identify_weights(weights, network, form)


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
def test_published_weights_that_keras_has_in_its_cache_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = MOBILENET.build(SMALL)
    (tmp_path / "models").mkdir()
    published.save(tmp_path / "models" / MOBILENET.find_published_weights(SMALL).file)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    assert is_imagenet_available(MOBILENET, SMALL)
    model = load_weights(MOBILENET.build(SMALL), "imagenet", MOBILENET, SMALL)
    for got, expected in zip(model.get_weights(), published.get_weights(), strict=True):
        assert np.array_equal(got, expected)


def test_weights_of_a_file_are_used_and_those_of_another_network_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.weights.h5"
    source = MOBILENET.build(SMALL)
    source.save_weights(file)
    model = load_weights(MOBILENET.build(SMALL), str(file), MOBILENET, SMALL)
    assert np.array_equal(model.get_weights()[0], source.get_weights()[0])
    stranger = build_in_thread(lambda: keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 3)]))
    with pytest.raises(CaptError, match="do not fit mobilenet"):
        load_weights(stranger, str(file), MOBILENET, SMALL)


def sequential(*layers: Any) -> Any:
    return build_in_thread(lambda: keras.Sequential([keras.Input((32, 40, 3)), *(layer() for layer in layers)]))


def test_dropout_does_not_touch_what_a_network_is_calibrated_to() -> None:
    weights = []
    for _ in range(2):
        model = sequential(
            lambda: keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization,
            lambda: keras.layers.Dropout(0.5),
            lambda: keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization,
        )
        randomize(model, 3, MOBILENET, BuildOptions(False, 32, 40))
        assert model.layers[2].rate == 0.5
        weights.append(model.get_weights())
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


def test_each_layer_of_a_network_without_normalisation_is_brought_to_unit_variance() -> None:
    model = sequential(
        lambda: keras.layers.Conv2D(8, 3, activation="relu"),
        lambda: keras.layers.DepthwiseConv2D(3, activation="relu"),
        keras.layers.Flatten,
        lambda: keras.layers.Dense(16),
    )
    randomize(model, 3, MOBILENET, BuildOptions(False, 32, 40))
    images = MOBILENET.load_preprocessing()(generate_noise_images(16, 32, 40, 3).astype(np.float32))
    for layer in (model.layers[0], model.layers[3]):
        kept = keras.Model(model.inputs[0], layer.output)
        outputs = np.asarray(kept(images)).reshape(-1, layer.output.shape[-1])
        if layer is model.layers[3]:
            assert np.allclose(outputs.std(axis=0), 1, atol=1e-3)
            assert np.allclose(outputs.mean(axis=0), 2, atol=1e-3)
        assert 0.5 < outputs.std() < 2
    assert model.layers[0].activation is keras.activations.relu
