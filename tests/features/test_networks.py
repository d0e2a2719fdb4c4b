"""Frozen networks compute what Keras computes, whatever the batch, and are the same bytes at every build."""

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.extraction import Extracted, Extractor, Source
from features.extractors import EXTRACTORS, extractor_spec, feature_function
from features.images import decode
from features.networks import FrozenNetwork, freeze, load_network
from features.quantize import encode
from features.scenes import draw, make_scene
from features.weights import load_weights, noise_images
from schemas.errors import DamagedError
from schemas.recipes import FeatureRecipe, Precision


def built(name: str) -> tuple[object, bytes]:
    spec = extractor_spec(name)
    model = spec.build()
    load_weights(model, "random:7", spec)
    return model, freeze(feature_function(model, spec, spec.layer, "none"), spec.side, spec.side)


@pytest.fixture(scope="module")
def inception() -> tuple[object, bytes]:
    return built("inception_v3")


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Drawn scenes, as large as InceptionV3 wants them."""
    return np.stack([decode(draw(make_scene(3, number), 3), 299, 299) for number in range(24)])


def relative_errors(got: NDArray[np.floating], expected: NDArray[np.float32]) -> list[float]:
    return [
        float(np.linalg.norm(a.astype(np.float32) - b) / np.linalg.norm(b)) for a, b in zip(got, expected, strict=True)
    ]


def test_inception_features_are_those_of_a_direct_keras_call(
    inception: tuple[object, bytes], pixels: NDArray[np.uint8]
) -> None:
    import keras

    model, graph = inception
    scaled = keras.applications.inception_v3.preprocess_input(pixels[:8].astype(np.float32))
    direct = np.asarray(model(scaled, training=False)).reshape(8, 64, 2048)  # type: ignore[operator]
    frozen = FrozenNetwork(graph, "float32").predict(pixels[:8])
    assert max(relative_errors(frozen, direct)) < 1e-4
    stored = np.stack([encode(row, "float16")["value"] for row in frozen])
    assert max(relative_errors(stored, direct)) < 2e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_images_bits_do_not_depend_on_its_batch(
    inception: tuple[object, bytes], pixels: NDArray[np.uint8], precision: str
) -> None:
    network = FrozenNetwork(inception[1], precision)  # type: ignore[arg-type]
    together = network.predict(pixels)
    assert np.array_equal(network.predict(pixels[:8]), together[:8])
    assert np.array_equal(network.predict(pixels[::-1])[::-1], together)
    padded = np.concatenate([pixels[5:6], np.zeros((7, 299, 299, 3), np.uint8)])
    assert np.array_equal(network.predict(padded)[0], together[5])


def test_random_features_neither_vanish_nor_explode(inception: tuple[object, bytes], pixels: NDArray[np.uint8]) -> None:
    features = FrozenNetwork(inception[1], "float32").predict(pixels[:8])
    assert 0.1 < features.std() < 10


def test_random_features_of_photographs_neither_vanish_nor_explode(
    inception: tuple[object, bytes], real_data: Path
) -> None:
    paths = sorted((real_data / "coco-mini" / "train2017").iterdir())[:16]
    photographs = np.stack([decode(path.read_bytes(), 299, 299) for path in paths])
    features = FrozenNetwork(inception[1], "float32").predict(photographs)
    assert 0.1 < features.std() < 10


def test_a_network_built_again_is_frozen_to_the_same_bytes() -> None:
    assert built("mobilenet_v3_small")[1] == built("mobilenet_v3_small")[1]


def test_another_seed_makes_another_network() -> None:
    spec = extractor_spec("mobilenet_v3_small")
    kernels = []
    for seed in (1, 2):
        model = spec.build()
        load_weights(model, f"random:{seed}", spec)
        kernels.append(np.asarray(model.weights[0]))
    assert not np.allclose(kernels[0], kernels[1])


def test_noise_images_are_seeded_and_smooth_like_photographs() -> None:
    images = noise_images(2, 64, 5)
    assert np.array_equal(images, noise_images(2, 64, 5))
    assert not np.array_equal(images[0], images[1])
    grey = images.mean(axis=-1)
    assert np.abs(np.diff(grey, axis=1)).mean() < grey.std()


def test_a_damaged_or_missing_network_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="missing"):
        load_network(tmp_path / "none.pb", "float32")
    (tmp_path / "bad.pb").write_bytes(b"\xff\xff no graph")
    with pytest.raises(DamagedError, match="damaged"):
        load_network(tmp_path / "bad.pb", "float32")


# === A row's bits depend on its image alone, whatever the extraction core does with it ===

KINDS = [(name, precision) for name in EXTRACTORS for precision in ("float32", "bfloat16")]
every_kind = pytest.mark.parametrize(("name", "precision"), KINDS)


@pytest.fixture(scope="module")
def graphs(inception: tuple[object, bytes]) -> dict[str, bytes]:
    """The frozen graph of each extractor."""
    return {name: inception[1] if name == "inception_v3" else built(name)[1] for name in EXTRACTORS}


@cache
def encoded(number: int) -> bytes:
    return draw(make_scene(5, number), 5)


class NarrowNetwork:
    """A network on a device whose memory holds eight images."""

    def __init__(self, network: FrozenNetwork) -> None:
        self._network = network
        self.refused = 0

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) > 8:
            self.refused += 1
            raise MemoryError
        return self._network.predict(pixels)


def rows(
    name: str, precision: str, network: FrozenNetwork | NarrowNetwork, numbers: Iterable[int], batch: int
) -> dict[int, bytes]:
    """The stored bytes of scenes, by their numbers."""
    side = EXTRACTORS[name].side
    recipe = FeatureRecipe(
        extractor=name, weights="random:7@1", layer="x", height=side, width=side, precision=precision, dtype="float16"
    )
    sources = [Source(bytes([number]), lambda number=number: encoded(number)) for number in numbers]  # type: ignore[misc]
    results = Extractor(recipe, network, batch_size=batch).run(sources)
    return {one.key[0]: one.values["value"].tobytes() for one in results if isinstance(one, Extracted)}


@every_kind
def test_rows_are_the_same_in_one_go_in_deltas_and_in_halved_batches(
    graphs: dict[str, bytes], name: str, precision: Precision
) -> None:
    network = FrozenNetwork(graphs[name], precision)
    together = rows(name, precision, network, range(13), 16)
    assert len(together) == len(set(together.values())) == 13
    deltas = [rows(name, precision, network, some, 8) for some in ([7], [12, 3, 1], [0, 2, 4, 5, 6, 8, 9, 10, 11])]
    assert {key: row for delta in deltas for key, row in delta.items()} == together
    narrow = NarrowNetwork(network)
    assert rows(name, precision, narrow, range(13), 16) == together
    assert narrow.refused == 1


def test_rows_are_the_same_on_one_thread(graphs: dict[str, bytes], tmp_path: Path) -> None:
    program = f"""
import os, sys
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from pathlib import Path
import numpy as np
from features.networks import load_network
for name, precision in {KINDS!r}:
    pixels = np.load(f"{{name}}.npy")
    np.save(f"{{name}}-{{precision}}.npy", load_network(Path(f"{{name}}.pb"), precision).predict(pixels))
"""
    for name, graph in graphs.items():
        side = EXTRACTORS[name].side
        (tmp_path / f"{name}.pb").write_bytes(graph)
        np.save(tmp_path / f"{name}.npy", np.stack([decode(encoded(number), side, side) for number in range(8)]))
    single = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | single | {"PYTHONPATH": root}, check=True
    )
    for name, precision in KINDS:
        here = FrozenNetwork(graphs[name], precision).predict(np.load(tmp_path / f"{name}.npy"))  # type: ignore[arg-type]
        assert np.array_equal(np.load(tmp_path / f"{name}-{precision}.npy"), here)
