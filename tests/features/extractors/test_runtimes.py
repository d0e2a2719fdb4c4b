"""The runtime of an extractor follows from the backend and the device, and each runtime loads its own file format."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.extractors import devices, runtimes
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.keras_file import encode_model
from features.extractors.output_layers import ModelFunction
from features.extractors.runtimes import (
    RuntimeChoice,
    choose_batch_size,
    choose_runtime,
    load_extractor,
    read_frozen_graph,
)
from features.extractors.weights import generate_noise_images
from features.runtime import keras_backend
from features.runtime.keras_backend import get_backend, select_backend, use_backend
from features.runtime.numerics import Device, detect_cpu
from schemas.default_backend import find_default_backend
from schemas.defaults import ACCELERATOR_BATCH_SIZE, BATCH_SIZE
from schemas.errors import CorruptFileError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

SIDE = 32
GPU = Device("gpu", "some chip")


def pretend(monkeypatch: pytest.MonkeyPatch, *found: Device) -> None:
    """Has this machine have accelerators, as TensorFlow sees them."""
    monkeypatch.setattr(runtimes, "may_have_accelerator", lambda: bool(found))
    monkeypatch.setattr(devices, "_list_tensorflow", lambda: [*found, detect_cpu()])


@pytest.mark.parametrize(
    ("found", "device", "is_local", "expected"),
    [
        ([], "auto", True, ("cpu", "pb", BATCH_SIZE)),
        ([], "cpu", True, ("cpu", "pb", BATCH_SIZE)),
        ([GPU], "auto", True, ("gpu", "keras", ACCELERATOR_BATCH_SIZE)),
        ([GPU], "gpu", True, ("gpu", "keras", ACCELERATOR_BATCH_SIZE)),
        ([GPU], "cpu", True, ("cpu", "pb", BATCH_SIZE)),
        ([Device("tpu", "v5")], "auto", True, ("auto", "keras", ACCELERATOR_BATCH_SIZE)),
        ([], "auto", False, ("cpu", "pb", BATCH_SIZE)),
        ([], "gpu", False, ("gpu", "keras", ACCELERATOR_BATCH_SIZE)),
    ],
)
def test_the_device_determines_format_and_batch_size(
    monkeypatch: pytest.MonkeyPatch, found: list[Device], device: Any, is_local: bool, expected: tuple[str, str, int]
) -> None:
    pretend(monkeypatch, *found)
    choice = choose_runtime(None, device, "inception_v3", is_local=is_local)
    assert choice.backend == "tensorflow"
    assert (choice.device, choice.extractor_format, choose_batch_size(choice.device)) == expected


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_never_run_frozen_graphs(backend: Any) -> None:
    assert {RuntimeChoice(backend, device).extractor_format for device in ("auto", "cpu", "gpu")} == {"keras"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "numerics", "expected"),
    [
        (RuntimeChoice("tensorflow", "cpu"), "cpu/avx2/tensorflow-onednn/float32", True),
        (RuntimeChoice("tensorflow", "cpu"), "cpu/asimd/tensorflow-eigen/float32", True),
        (RuntimeChoice("tensorflow", "cpu"), "cpu/avx2/jax/float32", False),
        (RuntimeChoice("tensorflow", "cpu"), "gpu/some chip/tensorflow/float32", False),
        (RuntimeChoice("tensorflow", "gpu"), "cpu/avx2/tensorflow-onednn/float32", False),
        (RuntimeChoice("tensorflow", "gpu"), "gpu/some chip/tensorflow/float32", True),
        (RuntimeChoice("jax", "auto"), "gpu/some chip/jax/float32", True),
        (RuntimeChoice("jax", "auto"), "cpu/avx2/jax/float32", True),
        (RuntimeChoice("jax", "gpu"), "cpu/avx2/jax/float32", False),
        (RuntimeChoice("jax", "auto"), "cpu/avx2/torch/float32", False),
        (RuntimeChoice("jax", "auto"), "pixels", True),
    ],
)
def test_a_class_names_the_runtimes_that_may_compute_it(choice: RuntimeChoice, numerics: str, expected: bool) -> None:
    assert choice.may_compute(numerics) == expected


def test_a_missing_gpu_is_one_line_that_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(UsageError) as caught:
        choose_runtime(None, "gpu", "inception_v3", is_local=True)
    assert caught.value.location == "--device"
    assert "--device cpu" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pixels_are_not_computed_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, GPU)
    assert choose_runtime(None, "auto", "pixels", is_local=True) == RuntimeChoice("tensorflow", "cpu")
    with pytest.raises(UsageError) as caught:
        choose_runtime(None, "gpu", "pixels", is_local=True)
    assert caught.value.location == "--device"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"tensorflow", "jax", "torch"}, "tensorflow"),
        ({"jax", "torch"}, "jax"),
        ({"torch"}, "torch"),
        (set(), "tensorflow"),
    ],
)
def test_the_default_backend_is_the_first_installed_one(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], expected: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    assert find_default_backend() == expected
    monkeypatch.delenv("KERAS_BACKEND")
    assert get_backend() == expected
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert get_backend() == "torch"


def test_a_process_has_one_backend() -> None:
    assert "keras" in sys.modules
    select_backend("tensorflow")
    assert get_backend() == "tensorflow"
    with pytest.raises(UsageError) as caught:
        select_backend("jax")
    assert caught.value.location == "--backend"
    assert "KERAS_BACKEND=jax" in str(caught.value)


def test_a_variable_with_another_backend_than_that_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(keras_backend, "is_installed", lambda backend: True)
    with pytest.raises(UsageError) as caught, use_backend(None):
        pass
    assert caught.value.location == "KERAS_BACKEND"
    assert os.environ["KERAS_BACKEND"] == "jax"


@pytest.mark.parametrize("variable", [None, "nothing", "jax"])
def test_an_option_overrides_the_variable_for_one_command(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is None:
        monkeypatch.delenv("KERAS_BACKEND")
    else:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    with use_backend("tensorflow"):
        assert get_backend() == "tensorflow"
    assert os.environ.get("KERAS_BACKEND") == variable


def test_a_process_keeps_the_backend_that_its_first_command_started() -> None:
    program = (
        "import os; from features.runtime.keras_backend import use_backend\n"
        "with use_backend('jax'): from features.runtime.keras_settings import keras\n"
        "with use_backend(None): assert keras.backend.backend() == os.environ['KERAS_BACKEND'] == 'jax'\n"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "KERAS_BACKEND": "tensorflow"}, check=True)


def test_a_step_with_another_backend_than_its_process_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        choose_runtime("jax", "cpu", "inception_v3", is_local=True)
    assert caught.value.location == "--backend"
    assert "KERAS_BACKEND=jax" in str(caught.value)
    assert get_backend() == "tensorflow"


def test_a_backend_that_is_not_installed_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        select_backend("torch")
    assert caught.value.location == "--backend"


@pytest.fixture(scope="module")
def built() -> tuple[FeatureTableConfig, ModelFunction]:
    """A small extractor and its table config."""
    options = ExtractorOptions(extractor="mobilenet_v3_small", weights="random:7", height=SIDE, width=SIDE)
    extractor = open_extractor(options)
    table_config = FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"})
    function = extractor.build_function(table_config)
    assert isinstance(function, ModelFunction)
    return table_config, function


@pytest.fixture(scope="module")
def pixels() -> Any:
    return generate_noise_images(5, SIDE, SIDE, 1)


def test_a_keras_file_has_the_same_bytes_however_often_it_is_built(
    built: tuple[FeatureTableConfig, ModelFunction],
) -> None:
    data = encode_model(built[1].model)
    keras.Model(*[keras.Input((2,))] * 2)  # Keras counts models
    assert encode_model(keras.models.clone_model(built[1].model)) != data  # other weights
    assert encode_model(built[1].model) == data


def test_a_keras_file_computes_the_features_of_the_frozen_graph(
    built: tuple[FeatureTableConfig, ModelFunction], pixels: Any, tmp_path: Path
) -> None:
    table_config, function = built
    path = tmp_path / "network.keras"
    path.write_bytes(encode_model(function.model))
    expected = FrozenGraph(freeze(function, SIDE, SIDE), "float32").predict(pixels)
    loaded = load_extractor(path, table_config, batch_size=8)
    features = loaded.predict(pixels)
    assert features.dtype == np.float16  # that of the table
    assert loaded.shape == expected.shape[1:]
    assert loaded.numerics == f"cpu/{detect_cpu().chip}/tensorflow/float32"
    np.testing.assert_allclose(features, expected, rtol=1e-2, atol=1e-2)
    graph = FrozenGraph(read_frozen_graph(path, table_config), "float32").predict(pixels)
    np.testing.assert_array_equal(graph, expected)


def test_every_batch_is_padded_to_the_batch_size(
    built: tuple[FeatureTableConfig, ModelFunction], pixels: Any, tmp_path: Path
) -> None:
    path = tmp_path / "network.keras"
    path.write_bytes(encode_model(built[1].model))
    extractor: Any = load_extractor(path, built[0], batch_size=8)
    computed, compute = [], extractor.compute
    extractor.compute = lambda pixels: computed.append(len(pixels)) or compute(pixels)
    assert len(extractor.predict(pixels)) == 5
    assert len(extractor.predict(pixels[:2])) == 2
    assert computed == [8, 8]


def test_a_batch_size_that_does_not_fit_is_not_used_again(
    built: tuple[FeatureTableConfig, ModelFunction], pixels: Any, tmp_path: Path
) -> None:
    path = tmp_path / "network.keras"
    path.write_bytes(encode_model(built[1].model))
    extractor: Any = load_extractor(path, built[0], batch_size=8)
    compute = extractor.compute

    def fail_above_four(pixels: Any) -> Any:
        if len(pixels) > 4:
            raise MemoryError
        return compute(pixels)

    extractor.compute = fail_above_four
    with pytest.raises(MemoryError):
        extractor.predict(pixels)
    assert len(extractor.predict(pixels[:4])) == 4


@pytest.mark.parametrize("content", [None, b"", b"PK\x05\x06" + bytes(18), b"no zip"])
def test_a_missing_or_corrupt_keras_file_is_reported(
    built: tuple[FeatureTableConfig, ModelFunction], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "network.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        load_extractor(path, built[0])
    assert caught.value.location == str(path)


def test_a_frozen_graph_without_tensorflow_is_one_line(
    built: tuple[FeatureTableConfig, ModelFunction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "network.pb"
    path.write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        load_extractor(path, built[0])
    assert caught.value.location == str(path)
