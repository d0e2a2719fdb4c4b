"""A custom extractor is loaded from its file in safe mode and agrees with Keras."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capt
from features.extractors.custom import PREPROCESSINGS
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.output_layers import build_in_thread
from features.images.decode import decode
from features.images.resize import Resizer
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig


def save_model(path: Path, *layers: Callable[[], Any], size: Any = (24, 32, 3), **inputs: Any) -> Path:
    """Saves a sequential model to a `.keras` file."""

    def build() -> Any:
        keras.utils.set_random_seed(7)
        return keras.Sequential([keras.Input(size, **inputs), *(layer() for layer in layers)])

    build_in_thread(build).save(path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two convolutions, a pooling and a head, for images of any size."""
    return save_model(
        tmp_path / "small.keras",
        lambda: keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first"),
        lambda: keras.layers.Conv2D(16, 3, activation="relu", name="second"),
        keras.layers.GlobalAveragePooling2D,
        lambda: keras.layers.Dense(4, name="head"),
        size=(None, None, 3),
    )


def open_file(path: Path, **options: Any) -> Any:
    return open_extractor(ExtractorOptions(extractor=f"custom:{path}", **options))


def test_stored_rows_are_those_of_a_direct_keras_call(tmp_path: Path, small: Path, photos: Callable[..., Path]) -> None:
    images = photos(3)
    summary = capt.prepare_features(
        store=str(tmp_path / "store"), dataset_type="folder", images=[str(images)], extractor=f"custom:{small}",
        height=24, width=32, layer="second", preprocess="unit", storage_dtype="float32", precision="float32",
    )  # fmt: skip
    store = capt.open_store(tmp_path / "store")
    table = store.feature_table(summary["fingerprint"])
    table_config = table.table_config
    assert (table_config.extractor, table_config.preprocess, table_config.layer) == ("custom", "unit", "second")
    assert table_config.weights == f"sha256:{hashlib.sha256(small.read_bytes()).hexdigest()}"
    model = keras.saving.load_model(small)
    kept = keras.Model(model.inputs[0], model.get_layer("second").output)
    catalog = store.dataset("folder").catalog()
    for name, key in zip(catalog["image_id"].to_pylist(), catalog["key"].to_pylist(), strict=True):
        pixels = decode((images / Path(name).name).read_bytes(), Resizer(24, 32))[np.newaxis] / np.float32(255)
        assert np.allclose(table.get(key), np.asarray(kept(pixels)).reshape(-1, 16), rtol=1e-5, atol=1e-6)


def test_the_file_fixes_the_input_size_and_the_layer_is_the_output(tmp_path: Path) -> None:
    path = save_model(tmp_path / "fixed.keras", lambda: keras.layers.Conv2D(4, 3))
    config = open_file(path).resolve_config()
    assert (config.height, config.width, config.layer, config.preprocess) == (24, 32, "output", "none")
    with pytest.raises(UsageError, match="--height: the model requires 24, not 25"):
        open_file(path, height=25).resolve_config()


def test_a_file_that_changes_within_a_command_is_an_error(tmp_path: Path) -> None:
    path = save_model(tmp_path / "a.keras", lambda: keras.layers.Conv2D(4, 3))
    config = vars(open_file(path).resolve_config())
    table_config = FeatureTableConfig(**{**config, "precision": "float32"})
    save_model(path, lambda: keras.layers.Conv2D(4, 3, activation="relu"))
    with pytest.raises(CaptError, match="have changed") as caught:
        open_file(path).build_function(table_config)
    assert caught.value.location == str(path)


def test_an_open_input_size_must_be_given(small: Path) -> None:
    with pytest.raises(UsageError, match=r"does not fix the input size.*--height N --width N"):
        open_file(small, height=24).resolve_config()
    with pytest.raises(UsageError, match="does not support 2×2"):
        open_file(small, height=2, width=2).resolve_config()


@pytest.mark.parametrize("name", filter(None, PREPROCESSINGS))
def test_preprocessing_is_that_of_keras(tmp_path: Path, name: str) -> None:
    path = save_model(tmp_path / "plain.keras", lambda: keras.layers.Activation("linear"))
    extractor = open_file(path, preprocess=name)
    table_config = FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"})
    graph = freeze(extractor.build_function(table_config), 24, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), np.uint8)
    floats = pixels.astype(np.float32)
    expected = {"none": lambda: floats, "unit": lambda: floats / 255}.get(
        name, lambda: keras.applications.imagenet_utils.preprocess_input(floats, data_format="channels_last", mode=name)
    )()
    rows = FrozenGraph(graph, "float32").predict(pixels)
    assert np.allclose(rows, expected.reshape(8, -1, 3), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("groups", "filters"), [(6, 6), (6, 12), (3, 6)])
def test_a_grouped_convolution_is_supported_if_it_is_depthwise(tmp_path: Path, groups: int, filters: int) -> None:
    path = save_model(
        tmp_path / "groups.keras",
        lambda: keras.layers.Conv2D(6, 1),
        lambda: keras.layers.Conv2D(filters, 3, groups=groups, padding="same", activation="relu", name="grouped"),
    )
    extractor = open_file(path, preprocess="unit")
    function = extractor.build_function(
        FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"})
    )
    if groups == 3:
        with pytest.raises(UsageError, match=r"grouped convolution.*cannot be frozen"):
            freeze(function, 24, 32)
        return
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), np.uint8)
    expected = np.asarray(keras.saving.load_model(path)(pixels / np.float32(255)))
    rows = FrozenGraph(freeze(function, 24, 32), "float32").predict(pixels)
    assert np.allclose(rows, expected.reshape(8, -1, filters), rtol=1e-5, atol=1e-5)


def test_a_model_with_a_loop_is_rejected_unless_it_is_unrolled(tmp_path: Path) -> None:
    for unroll in (False, True):
        rows = keras.layers.Reshape((24, 96))
        path = save_model(
            tmp_path / "loop.keras", lambda rows=rows: rows, lambda u=unroll: keras.layers.GRU(4, unroll=u)
        )  # type: ignore[misc]
        extractor = open_file(path)
        function = extractor.build_function(
            FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"})
        )
        if unroll:
            assert FrozenGraph(freeze(function, 24, 32), "float32").shape == (4,)
        else:
            with pytest.raises(UsageError, match=r"--extractor: the model contains a loop.*unroll=True"):
                freeze(function, 24, 32)


@keras.saving.register_keras_serializable("tests")
class Unknown(keras.layers.Layer):
    """A layer that is unknown when the file is loaded."""

    def call(self, inputs: Any) -> Any:
        return inputs


def test_a_file_with_a_custom_class_or_code_is_rejected(tmp_path: Path) -> None:
    code = save_model(tmp_path / "code.keras", lambda: keras.layers.Lambda(lambda x: x + 1))
    stranger = save_model(tmp_path / "stranger.keras", Unknown)
    keras.saving.get_custom_objects().pop("tests>Unknown")
    for path in (code, stranger):
        with pytest.raises(CaptError, match="Keras cannot load the model") as raised:
            open_file(path).resolve_config()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(24, 32, 1), (24, 32, None), (24, 3)])
def test_a_model_with_another_input_is_rejected(tmp_path: Path, size: tuple[int, ...]) -> None:
    path = save_model(tmp_path / "other.keras", lambda: keras.layers.Activation("linear"), size=size)
    with pytest.raises(UsageError, match=r"[Ii]t must be \[N, H, W, 3\]"):
        open_file(path).resolve_config()


def test_a_model_with_a_fixed_batch_size_is_rejected(tmp_path: Path) -> None:
    path = save_model(tmp_path / "batch.keras", lambda: keras.layers.Activation("linear"), batch_size=4)
    with pytest.raises(UsageError, match=r"[Ii]t must be \[N, H, W, 3\]"):
        open_file(path).resolve_config()


def test_a_file_that_is_not_a_keras_file_is_rejected(tmp_path: Path) -> None:
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no zip")
    for path, message in (
        (broken, "Keras cannot load the model"),
        (tmp_path / "none.keras", "does not exist"),
        (tmp_path / "model.h5", "must be a .keras file"),
    ):
        with pytest.raises(CaptError, match=message):
            open_file(path).resolve_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "imagenet"}, "--weights: a custom extractor has its own"),
        ({"storage_dtype": "uint8"}, "--storage-dtype: uint8 is only for pixels"),
        ({"layer": "secnd", "height": 24, "width": 32}, "--layer: .*no layer 'secnd'.*second"),
    ],
)
def test_options_that_do_not_apply_are_rejected(small: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_file(small, **options).resolve_config()
