"""Any layer can be the output layer, and its name is the same in every process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.extractors.application import find_application
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.output_layers import build_in_thread, build_model_function, truncate_model
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7", "height": 64, "width": 96}


def table_config_for(asked: ExtractorOptions) -> FeatureTableConfig:
    return FeatureTableConfig(
        **{**vars(open_extractor(asked).resolve_config()), "precision": "float32"}, pooling=asked.pooling
    )


def freeze_extractor(**options: Any) -> bytes:
    asked = ExtractorOptions(**options)
    table_config = table_config_for(asked)
    return freeze(open_extractor(asked).build_function(table_config), table_config.height, table_config.width)


def model(*layers: Any, size: Any = (32, 32, 3)) -> Any:
    return build_in_thread(lambda: keras.Sequential([keras.Input(size), *(layer() for layer in layers)]))


@pytest.mark.parametrize(
    ("layer", "pooling", "shape"),
    [
        ("output", "none", (6, 576)),
        ("output", "avg", (576,)),
        ("expanded_conv_squeeze_excite_avg_pool", "none", (1, 16)),
        ("activation_1", "none", (96, 96)),
    ],
)
def test_a_spatial_layer_gives_locations_or_their_mean(layer: str, pooling: str, shape: tuple[int, ...]) -> None:
    assert FrozenGraph(freeze_extractor(**SMALL, layer=layer, pooling=pooling), "float32").shape == shape


def test_a_layer_of_the_classifier_gives_pooled_rows() -> None:
    network = find_application("mobilenet_v3_small")
    kept = truncate_model(network.build(network.resolve_build_options("predictions")), "predictions", network.name)
    graph = freeze(build_model_function(kept, network.load_preprocessing(), "none", 224, 224), 224, 224)
    rows = FrozenGraph(graph, "float32").predict(np.zeros((8, 224, 224, 3), np.uint8))
    assert rows.shape == (8, 1000)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_an_unnamed_layer_has_the_same_name_in_every_build() -> None:
    network = find_application("mobilenet_v3_small")
    options = network.resolve_build_options(None, 32, 32)
    keras.layers.Activation("relu")
    names = [[layer.name for layer in network.build(options).layers] for _ in range(2)]
    assert names[0] == names[1]
    assert "activation_5" in names[0]


@pytest.mark.slow
def test_an_unnamed_layer_has_the_same_name_in_every_process() -> None:
    keras.layers.Activation("relu")
    graph = freeze_extractor(**SMALL, layer="activation_5")
    program = (
        "import sys; from tests.features.extractors.test_output_layers import freeze_extractor, SMALL\n"
        "sys.stdout.buffer.write(freeze_extractor(**SMALL, layer='activation_5'))"
    )
    root = Path(__file__).parents[3]
    other = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=True).stdout
    assert other == graph


def test_building_leaves_the_callers_names_and_policy_alone() -> None:
    keras.utils.clear_session()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        keras.layers.Conv2D(3, 3)
        network = find_application("mobilenet_v3_small")
        built = network.build(network.resolve_build_options(None, 32, 32))
        assert built.dtype_policy.name == "float32"
        assert keras.layers.Conv2D(3, 3).name == "conv2d_1"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(("layer", "near"), [("activaton_5", "activation_5"), ("predictoins", "predictions")])
def test_an_unknown_layer_lists_the_most_similar_ones(layer: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"no layer '{layer}'.*{near}") as raised:
        freeze_extractor(**SMALL, layer=layer)
    assert "\n" not in str(raised.value)


def test_a_layer_whose_output_is_neither_spatial_nor_flat_is_rejected() -> None:
    network = model(lambda: keras.layers.Reshape((2, 2, 4, 192)))
    kept = truncate_model(network, "output", "mine")
    with pytest.raises(UsageError, match="neither spatial nor flat"):
        build_model_function(kept, lambda pixels: pixels, "none", 32, 32)


def test_a_layer_that_does_not_depend_on_the_input_is_rejected() -> None:
    def first_called_elsewhere() -> Any:
        inputs, shared = keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 1, name="shared")
        shared(keras.Input((32, 32, 3)))
        return keras.Model(inputs, shared(inputs))

    with pytest.raises(UsageError, match="shared"):
        truncate_model(build_in_thread(first_called_elsewhere), "shared", "mine")


def test_a_layer_with_several_outputs_is_rejected() -> None:
    def recurrent() -> Any:
        inputs = keras.Input((32, 32, 3))
        rows = keras.layers.Reshape((32, 96))(inputs)
        return keras.Model(inputs, keras.layers.GRU(4, return_state=True, name="both")(rows))

    for layer in ("both", "output"):
        with pytest.raises(UsageError, match=f"{layer} has several outputs"):
            truncate_model(build_in_thread(recurrent), layer, "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 31}, "--height: .*at least 32 pixels"),
        ({"preprocess": "tf"}, "--preprocess: .*its own preprocessing"),
        ({"storage_dtype": "uint8"}, "--storage-dtype: .*uint8 is only for pixels"),
        ({"weights": "nowhere.h5"}, "nowhere.h5: the weights file does not exist"),
    ],
)
def test_unsupported_options_are_errors_of_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptError, match=message) as raised:
        table_config_for(ExtractorOptions(**{**SMALL, **options}))
    assert "\n" not in str(raised.value)
