"""Frozen graphs agree with Keras, do not depend on the batch, and have the same bytes at every build."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from features.extractors.application import find_application
from features.extractors.extraction import PADDING, EncodedImage, ExtractedRow, ExtractionCore
from features.extractors.frozen_graph import FrozenGraph, freeze, load_frozen_graph
from features.extractors.output_layers import build_model_function, truncate_model
from features.extractors.weights import generate_noise_images, load_weights
from features.images.decode import decode
from features.images.resize import Resizer
from features.store.storage_dtypes import encode
from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.renderer import draw_scene
from schemas.choices import Precision
from schemas.errors import CorruptFileError
from schemas.table_config import FeatureTableConfig

# `NAME`, `NAME:LAYER` for another output layer, or `NAME@SIDE` for another input size.
FAST = ("mobilenet_v3_small",)
SLOW = (
    "inception_v3@107",
    "inception_v3",
    "vgg16",
    "vgg19",
    "inception_resnet_v2",
    "efficientnet_b0",
    "nasnet_mobile",
    "convnext_tiny",
)
MARKED = [
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
    pytest.param("vgg16:fc2", marks=pytest.mark.large),
]
NETWORKS = [*FAST, *MARKED]
HEAVY = ("inception_v3@107", "inception_v3", "vgg16", "vgg16:fc2", "vgg19", "inception_resnet_v2")
PRECISIONS = get_args(Precision)

every_application = pytest.mark.parametrize("name", NETWORKS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def name_of(kind: str) -> str:
    return re.split("[:@]", kind)[0]


def layer_of(kind: str) -> str:
    return kind.partition(":")[2]


def build(kind: str) -> tuple[Any, bytes]:
    """Builds a model with weights random:7, and freezes it up to the output layer."""
    name, layer = name_of(kind), layer_of(kind)
    network = find_application(name)
    options = network.resolve_build_options(layer, side_of(kind), side_of(kind))
    model = load_weights(network.build(options), "random:7", network, options)
    kept = truncate_model(model, layer or network.layer, name)
    function = build_model_function(kept, network.load_preprocessing(), "none", options.height, options.width)
    return model, freeze(function, options.height, options.width)


@lru_cache(maxsize=2)
def built(kind: str) -> tuple[Any, bytes]:
    return build(kind)


@cache
def encoded(number: int) -> bytes:
    return draw_scene(make_scene(5, number), 5)


@cache
def side_of(kind: str) -> int:
    return int(kind.partition("@")[2] or 0) or find_application(name_of(kind)).side


def scenes(kind: str, numbers: Iterable[int]) -> NDArray[Any]:
    """Renders scenes at the input size."""
    return np.stack([decode(encoded(number), Resizer(side_of(kind), side_of(kind))) for number in numbers])


def relative_errors(got: NDArray[np.floating], expected: NDArray[np.float32]) -> list[float]:
    return [
        float(np.linalg.norm(a.astype(np.float32) - b) / np.linalg.norm(b)) for a, b in zip(got, expected, strict=True)
    ]


@every_application
def test_stored_features_are_those_of_a_direct_keras_call(name: str) -> None:
    import keras

    model, graph = built(name)
    network = find_application(name_of(name))
    direct = getattr(keras.applications, network.function)(
        weights=None, include_top=":" in name, input_shape=(side_of(name), side_of(name), 3)
    )
    direct.set_weights(model.get_weights())
    layer = layer_of(name) or network.layer
    if layer != "output":
        direct = keras.Model(direct.input, direct.get_layer(layer).output)
    pixels = scenes(name, range(3))
    preprocess = importlib.import_module(f"keras.applications.{network.module}").preprocess_input
    expected = np.asarray(direct(preprocess(pixels.astype(np.float32)), training=False))
    frozen = FrozenGraph(graph, "float32").predict(pixels)
    expected = expected.reshape(frozen.shape)
    assert max(relative_errors(frozen, expected)) < 1e-4
    stored = np.stack([encode(row, "float16")["value"] for row in frozen])
    assert max(relative_errors(stored, expected)) < 2e-3


@every_application
@every_precision
def test_an_images_bits_do_not_depend_on_its_batch(name: str, precision: Precision) -> None:
    network, pixels = FrozenGraph(built(name)[1], precision), scenes(name, range(16 if name in HEAVY else 24))
    together = network.predict(pixels)
    assert np.array_equal(network.predict(pixels[::-1])[::-1], together)
    for count in (1, 13) if name in HEAVY else range(1, 24):
        padding = np.zeros((-count % PADDING, *pixels.shape[1:]), np.uint8)
        padded = network.predict(np.concatenate([pixels[-count:], padding]))
        assert np.array_equal(padded[:count], together[-count:]), count


@every_application
def test_random_features_neither_vanish_nor_explode(name: str) -> None:
    network = FrozenGraph(built(name)[1], "float32")
    noise = generate_noise_images(4, side_of(name), side_of(name), 1)
    for pixels in (noise, scenes(name, range(4))):
        assert 0.1 < network.predict(pixels).std() < 10


@pytest.mark.parametrize("kind", [pytest.param("inception_v3@107", marks=pytest.mark.slow), *FAST])
def test_random_features_of_photographs_neither_vanish_nor_explode(kind: str, real_data: Path) -> None:
    paths = sorted((real_data / "coco-mini" / "train2017").iterdir())[:16]
    resizer = Resizer(side_of(kind), side_of(kind))
    photographs = np.stack([decode(path.read_bytes(), resizer) for path in paths])
    assert 0.1 < FrozenGraph(built(kind)[1], "float32").predict(photographs).std() < 10


def test_two_builds_of_a_model_freeze_to_the_same_bytes() -> None:
    assert build("mobilenet_v3_small")[1] == build("mobilenet_v3_small")[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["efficientnet_b0", "convnext_tiny"])
def test_two_builds_with_dropout_or_without_normalization_freeze_to_the_same_bytes(kind: str) -> None:
    assert build(kind)[1] == build(kind)[1]


def test_another_seed_gives_other_weights() -> None:
    network = find_application("mobilenet_v3_small")
    options = network.resolve_build_options(None, 32, 32)
    kernels = []
    for seed in (1, 2):
        model = load_weights(network.build(options), f"random:{seed}", network, options)
        kernels.append(np.asarray(model.weights[0]))
    assert not np.allclose(kernels[0], kernels[1])


def test_noise_images_are_seeded_and_smooth() -> None:
    images = generate_noise_images(2, 48, 64, 5)
    assert images.shape == (2, 48, 64, 3)
    assert np.array_equal(images, generate_noise_images(2, 48, 64, 5))
    assert not np.array_equal(images[0], images[1])
    grey = images.mean(axis=-1)
    assert np.abs(np.diff(grey, axis=1)).mean() < grey.std()


def test_a_corrupt_or_missing_graph_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="missing"):
        load_frozen_graph(tmp_path / "none.pb", "float32")
    (tmp_path / "bad.pb").write_bytes(b"\xff\xff no graph")
    with pytest.raises(CorruptFileError, match="corrupt"):
        load_frozen_graph(tmp_path / "bad.pb", "float32")


# === A row's bits depend only on its image, regardless of batching ===


class SmallMemoryModel:
    """A model on a device whose memory holds eight images."""

    def __init__(self, network: FrozenGraph) -> None:
        self._network = network
        self.refused = 0

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        if len(pixels) > 8:
            self.refused += 1
            raise MemoryError
        return self._network.predict(pixels)


def rows(
    name: str, precision: Precision, network: FrozenGraph | SmallMemoryModel, numbers: Iterable[int], batch: int
) -> dict[int, bytes]:
    """Returns the stored bytes of scenes, by number."""
    side = side_of(name)
    table_config = FeatureTableConfig(
        extractor=name_of(name),
        weights="random:7@1",
        layer="x",
        height=side,
        width=side,
        precision=precision,
        dtype="float16",
    )
    sources = [EncodedImage(bytes([number]), lambda number=number: encoded(number)) for number in numbers]  # type: ignore[misc]
    results = ExtractionCore(table_config, network, batch_size=batch).run(sources)
    return {one.key[0]: one.values["value"].tobytes() for one in results if isinstance(one, ExtractedRow)}


@every_application
@every_precision
@pytest.mark.slow
def test_rows_are_the_same_at_once_in_deltas_and_in_halved_batches(name: str, precision: Precision) -> None:
    network = FrozenGraph(built(name)[1], precision)
    together = rows(name, precision, network, range(13), 16)
    assert len(together) == len(set(together.values())) == 13
    deltas = [rows(name, precision, network, some, 8) for some in ([7], [12, 3, 1], [0, 2, 4, 5, 6, 8, 9, 10, 11])]
    assert {key: row for delta in deltas for key, row in delta.items()} == together
    narrow = SmallMemoryModel(network)
    assert rows(name, precision, narrow, range(13), 16) == together
    assert narrow.refused == 1


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [FAST, *(pytest.param(one.values, marks=one.marks) for one in MARKED)])
def test_rows_are_the_same_on_one_thread(kinds: tuple[str, ...], tmp_path: Path) -> None:
    kinds_and_precisions = [(kind, precision) for kind in kinds for precision in PRECISIONS]
    program = f"""
import os, sys
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from pathlib import Path
import numpy as np
from features.extractors.frozen_graph import load_frozen_graph
for kind, precision in {kinds_and_precisions!r}:
    pixels = np.load(f"{{kind}}.npy")
    np.save(f"{{kind}}-{{precision}}.npy", load_frozen_graph(Path(f"{{kind}}.pb"), precision).predict(pixels))
"""
    for kind in kinds:
        (tmp_path / f"{kind}.pb").write_bytes(built(kind)[1])
        np.save(tmp_path / f"{kind}.npy", scenes(kind, range(8)))
    single = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    root = str(Path(__file__).parents[3])
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | single | {"PYTHONPATH": root}, check=True
    )
    for kind, precision in kinds_and_precisions:
        here = FrozenGraph(built(kind)[1], precision).predict(np.load(tmp_path / f"{kind}.npy"))
        assert np.array_equal(np.load(tmp_path / f"{kind}-{precision}.npy"), here)
