"""A quantized network is stored as one file, and the bits of its rows depend on the image only."""

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.quantized_model import MAX_LOSS, QuantizedModel, load_quantized_model, quantize
from features.extractors.runtimes import load_extractor, read_frozen_graph
from features.extractors.weights import generate_noise_images
from features.runtime.numerics import detect_openvino_runtime
from schemas.errors import CorruptFileError, UsageError
from schemas.table_config import FeatureTableConfig

SIDE = 32


@pytest.fixture(scope="module")
def pixels() -> Any:
    return generate_noise_images(20, SIDE, SIDE, 1).astype(np.uint8)


@pytest.fixture(scope="module")
def graph() -> bytes:
    keras.utils.set_random_seed(3)
    image = keras.Input((SIDE, SIDE, 3))
    maps = keras.layers.Conv2D(16, 3, strides=2, use_bias=False)(image)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization(beta_initializer="ones")(maps))
    model = keras.Model(image, keras.layers.SeparableConv2D(24, 3, padding="same", activation="relu")(maps))
    return freeze(lambda given: model(keras.ops.cast(given, "float32") / 127.5 - 1, training=False), SIDE, SIDE)


@pytest.fixture(scope="module")
def quantized(graph: bytes, pixels: Any) -> bytes:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pytest.importorskip("nncf", reason="NNCF is not installed")
    network = quantize(graph, pixels)
    assert network.cosines.shape == (len(pixels),)
    assert network.cosines.mean() >= 1 - MAX_LOSS
    return network.data


def test_features_are_close_to_those_of_the_frozen_graph(graph: bytes, quantized: bytes, pixels: Any) -> None:
    exact, model = FrozenGraph(graph, "float32").predict(pixels), QuantizedModel(quantized)
    features = model.predict(pixels)
    assert (features.dtype, features.shape, model.shape) == (np.float32, exact.shape, exact.shape[1:])
    assert model.numerics == detect_openvino_runtime().numerics
    flat, reference = features.reshape(len(pixels), -1), exact.reshape(len(pixels), -1)
    cosines = (flat * reference).sum(1) / np.linalg.norm(flat, axis=1) / np.linalg.norm(reference, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(features, exact)


def test_quantizing_again_gives_the_same_bytes(graph: bytes, quantized: bytes, pixels: Any) -> None:
    assert quantize(graph, pixels).data == quantized


def test_bits_depend_on_neither_batch_nor_position(quantized: bytes, pixels: Any) -> None:
    model = QuantizedModel(quantized)
    expected = model.predict(pixels)
    for size in (1, 7, 8):
        batches = [model.predict(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        np.testing.assert_array_equal(np.concatenate(batches), expected)
    np.testing.assert_array_equal(model.predict(pixels[::-1])[::-1], expected)


def test_a_run_loads_the_file_and_no_tensorflow_graph_replaces_it(
    quantized: bytes, pixels: Any, tmp_path: Path
) -> None:
    table_config = FeatureTableConfig(
        extractor="custom", weights="sha256:", layer="output", height=SIDE, width=SIDE, precision="int8"
    )
    path = tmp_path / "network.openvino"
    path.write_bytes(quantized)
    model = load_extractor(path, table_config)
    np.testing.assert_array_equal(model.predict(pixels), QuantizedModel(quantized).predict(pixels))
    with pytest.raises(UsageError) as caught:
        read_frozen_graph(path, table_config)
    assert caught.value.location == str(path)


@pytest.mark.parametrize("content", [None, b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_a_missing_or_corrupt_file_is_reported(tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = tmp_path / "network.openvino"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        load_quantized_model(path)
    assert caught.value.location == str(path)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        load_quantized_model(tmp_path / "network.openvino")
    assert "capt[openvino]" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2"}, "cpu/avx2/openvino/int8"),
        ({"avx2", "avx_vnni"}, "cpu/avx2+vnni/openvino/int8"),
        ({"avx2", "avx512f"}, "cpu/avx512f/openvino/int8"),
        ({"avx2", "avx512f", "avx512_vnni"}, "cpu/avx512f+vnni/openvino/int8"),
    ],
)
def test_the_numerics_class_says_whether_the_processor_has_vnni(flags: set[str], expected: str) -> None:
    assert detect_openvino_runtime(frozenset(flags)).numerics == expected
