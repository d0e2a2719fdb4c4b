"""Weights are identified without a model, and random weights depend only on the seed."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.extractors.application import BuildOptions, find_application
from features.extractors.output_layers import build_in_thread
from features.extractors.weights import (
    generate_noise_images,
    identify_weights,
    is_imagenet_available,
    load_weights,
    randomize,
)
from schemas.errors import CaptError, UsageError

MOBILENET = find_application("mobilenet")
SMALL = MOBILENET.resolve_build_options(None, 32, 32)


def test_weights_are_identified_by_digest_seed_or_hash(tmp_path: Path) -> None:
    file = tmp_path / "w.weights.h5"
    file.write_bytes(b"weights")
    network = find_application("vgg16")
    options = network.resolve_build_options()
    assert identify_weights("imagenet", network, options) == "imagenet:6d6bbae143d832006294945121d1f1fc"
    assert identify_weights("random:7", network, options) == "random:7@1"
    assert identify_weights(str(file), network, options) == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    for weights, message in (("random:x", "has no seed"), ("nowhere", "does not exist")):
        with pytest.raises(UsageError, match=message):
            identify_weights(weights, network, options)


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
def test_published_weights_in_the_cache_of_keras_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = MOBILENET.build(SMALL)
    (tmp_path / "models").mkdir()
    published.save(tmp_path / "models" / MOBILENET.find_published_weights(SMALL).file)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    assert is_imagenet_available(MOBILENET, SMALL)
    model = load_weights(MOBILENET.build(SMALL), "imagenet", MOBILENET, SMALL)
    for got, expected in zip(model.get_weights(), published.get_weights(), strict=True):
        assert np.array_equal(got, expected)


def test_weights_come_from_a_file_if_it_fits_the_model(tmp_path: Path) -> None:
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


def test_dropout_is_disabled_during_calibration() -> None:
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


def test_without_normalization_each_layer_is_scaled_to_unit_variance() -> None:
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
