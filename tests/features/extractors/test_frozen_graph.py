"""Frozen graphs agree with Keras, do not depend on the batch, and have the same bytes at every build."""

import gc
import importlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.extractors import frozen_graph
from features.extractors.application import find_application
from features.extractors.extraction import PADDING, EncodedImage, ExtractedRow, ExtractionCore
from features.extractors.frozen_graph import FrozenGraph, freeze, load_frozen_graph
from features.extractors.output_layers import build_model_function, truncate_model
from features.extractors.weights import generate_noise_images, load_weights
from features.images.decode import decode
from features.images.resize import Resizer
from features.runtime.numerics import read_cpu_flags, resolve_onednn_precision
from features.store.storage_dtypes import encode
from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.renderer import draw_scene
from schemas.choices import Precision
from schemas.errors import CorruptFileError
from schemas.table_config import FeatureTableConfig
from tests.commands import CommandServer

# `NAME`, `NAME:LAYER` for another output layer, or `NAME@SIDE` for another input size.
FAST = ("mobilenet_v3_small",)
SLOW = (
    "inception_v3@107",
    "inception_v3",
    "vgg16",
    "vgg19@107",
    "inception_resnet_v2@107",
    "efficientnet_b0",
    "nasnet_mobile@107",
    "convnext_tiny",
)
LARGE = ("vgg16:fc2",)
HEAVY = ("inception_v3", "vgg16", *LARGE)
NETWORKS = [
    *FAST,
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW),
    *(pytest.param(kind, marks=pytest.mark.large) for kind in LARGE),
]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


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


@cache
def encoded(number: int) -> bytes:
    return draw_scene(make_scene(5, number), 5)


@cache
def side_of(kind: str) -> int:
    return int(kind.partition("@")[2] or 0) or find_application(name_of(kind)).side


def scenes(kind: str, numbers: Iterable[int]) -> NDArray[Any]:
    """Renders scenes at the input size."""
    return np.stack([decode(encoded(number), Resizer(side_of(kind), side_of(kind))) for number in numbers])


def computes_in(precision: Precision) -> Precision:
    """Returns the precision that this processor computes in."""
    return resolve_onednn_precision(precision, read_cpu_flags())


class Network:
    """A network with weights random:7. Its graphs, and their features of scenes, are computed once."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model, self.graph = build(kind)
        self.scenes = scenes(kind, range(16 if kind in HEAVY else 24))
        self._frozen: dict[Precision, FrozenGraph] = {}
        self._features: dict[Precision, NDArray[np.float32]] = {}

    def frozen(self, precision: Precision) -> FrozenGraph:
        if precision not in self._frozen:
            self._frozen[precision] = FrozenGraph(self.graph, precision)
        return self._frozen[precision]

    def features(self, precision: Precision) -> NDArray[np.float32]:
        """Returns the features of the scenes, computed in one batch."""
        if precision not in self._features:
            self._features[precision] = self.frozen(precision).predict(self.scenes)
        return self._features[precision]


# pytest runs all tests of one network, then those of the next.
@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    gc.collect()  # Models contain cycles. The network before would still be in memory.
    return Network(request.param)


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest, network: Network) -> Precision:
    """Each precision. Large networks skip one that the processor computes in another precision."""
    if network.kind not in FAST and computes_in(request.param) != request.param:
        pytest.skip(f"this processor computes {request.param} in {computes_in(request.param)}")
    return request.param


def relative_errors(got: NDArray[np.floating], expected: NDArray[np.float32]) -> list[float]:
    return [
        float(np.linalg.norm(a.astype(np.float32) - b) / np.linalg.norm(b)) for a, b in zip(got, expected, strict=True)
    ]


def test_stored_features_are_those_of_a_direct_keras_call(network: Network) -> None:
    import keras

    name, side = network.kind, side_of(network.kind)
    application = find_application(name_of(name))
    direct = getattr(keras.applications, application.function)(
        weights=None, include_top=":" in name, input_shape=(side, side, 3)
    )
    direct.set_weights(network.model.get_weights())
    layer = layer_of(name) or application.layer
    if layer != "output":
        direct = keras.Model(direct.input, direct.get_layer(layer).output)
    preprocess = importlib.import_module(f"keras.applications.{application.module}").preprocess_input
    expected = np.asarray(direct(preprocess(network.scenes[:3].astype(np.float32)), training=False))
    frozen = network.features("float32")[:3]
    expected = expected.reshape(frozen.shape)
    assert max(relative_errors(frozen, expected)) < 1e-4
    stored = np.stack([encode(row, "float16")["value"] for row in frozen])
    assert max(relative_errors(stored, expected)) < 2e-3


def counts_of_images(kind: str) -> Iterable[int]:
    """Every count, or the first and the last that is padded to each size."""
    if kind in FAST:
        return range(1, 24)
    return (1, 13) if kind in HEAVY else (1, 8, 9, 16, 17, 23)


def test_an_images_bits_do_not_depend_on_its_batch(network: Network, precision: Precision) -> None:
    graph, pixels, together = network.frozen(precision), network.scenes, network.features(precision)
    assert np.array_equal(graph.predict(pixels[::-1])[::-1], together)
    for count in counts_of_images(network.kind):
        padding = np.zeros((-count % PADDING, *pixels.shape[1:]), np.uint8)
        padded = graph.predict(np.concatenate([pixels[-count:], padding]))
        assert np.array_equal(padded[:count], together[-count:]), count


def test_random_features_neither_vanish_nor_explode(network: Network) -> None:
    side = side_of(network.kind)
    noise = network.frozen("float32").predict(generate_noise_images(4, side, side, 1))
    for features in (noise, network.features("float32")[:4]):
        assert 0.1 < features.std() < 10


def test_random_features_of_photographs_neither_vanish_nor_explode(network: Network, real_data: Path) -> None:
    paths = sorted((real_data / "coco-mini" / "train2017").iterdir())[: 12 if network.kind in HEAVY else 16]
    resizer = Resizer(side_of(network.kind), side_of(network.kind))
    photographs = np.stack([decode(path.read_bytes(), resizer) for path in paths])
    assert 0.1 < network.frozen("float32").predict(photographs).std() < 10


def test_two_builds_of_a_model_freeze_to_the_same_bytes() -> None:
    assert build("mobilenet_v3_small@32")[1] == build("mobilenet_v3_small@32")[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["efficientnet_b0@32", "convnext_tiny@32"])
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
    kind: str, precision: Precision, network: FrozenGraph | SmallMemoryModel, numbers: Iterable[int], batch: int
) -> dict[int, bytes]:
    """Returns the stored bytes of scenes, by number."""
    side = side_of(kind)
    table_config = FeatureTableConfig(
        extractor=name_of(kind),
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


@pytest.mark.slow
def test_rows_are_the_same_at_once_in_deltas_and_in_halved_batches(network: Network, precision: Precision) -> None:
    kind, graph = network.kind, network.frozen(precision)
    together = rows(kind, precision, graph, range(13), 16)
    assert len(together) == len(set(together.values())) == 13
    deltas = [rows(kind, precision, graph, some, 8) for some in ([7], [12, 3, 1], [0, 2, 4, 5, 6, 8, 9, 10, 11])]
    assert {key: row for delta in deltas for key, row in delta.items()} == together
    narrow = SmallMemoryModel(graph)
    assert rows(kind, precision, narrow, range(13), 16) == together
    assert narrow.refused == 1


@pytest.mark.parametrize("network", FAST, indirect=True, scope="module")
def test_each_of_several_concurrent_forward_passes_computes_the_same_rows(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_graph, "count_parallel_calls", lambda execution: 2)
    graph, pixels = FrozenGraph(network.graph, "float32"), network.scenes[:8]
    with ThreadPoolExecutor(2) as pool:
        for features in pool.map(graph.predict, [pixels] * 4):
            assert np.array_equal(features, network.features("float32")[:8])


@pytest.mark.slow
def test_rows_are_the_same_on_one_thread(
    network: Network, precision: Precision, commands: CommandServer, tmp_path: Path
) -> None:
    (tmp_path / "graph.pb").write_bytes(network.graph)
    np.save(tmp_path / "scenes.npy", network.scenes[:8])
    program = f"""
import os
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from pathlib import Path
import numpy as np
from features.extractors.frozen_graph import load_frozen_graph
np.save("features.npy", load_frozen_graph(Path("graph.pb"), {precision!r}).predict(np.load("scenes.npy")))
"""
    single = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    assert commands.start(None, program=program, cwd=tmp_path, environment=single, seconds=900).wait() == 0
    assert np.array_equal(np.load(tmp_path / "features.npy"), network.features(precision)[:8])
