"""The peers of the extraction benchmark agree with capt on images of the input size."""

import importlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_photographs_are_different_jpegs_and_the_same_in_each_call(benchmark):
    photographs = benchmark("photographs").photographs
    some = list(islice(photographs(64, 48), 40))
    assert len(set(some)) == 40
    assert all(data.startswith(b"\xff\xd8\xff") for data in some)
    assert list(islice(photographs(64, 48, first=17), 3)) == some[17:20]


@pytest.mark.parametrize(
    ("name", "side", "products"), [("MobileNetV3Small", 224, 54.9e6), ("InceptionV3", 299, 5.71e9)]
)
def test_operations_agree_with_the_literature(benchmark, name, side, products):
    import keras

    network = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(side, side, 3))
    assert benchmark("flops").count_flops(network) == pytest.approx(2 * products, rel=0.01)


@pytest.mark.slow
def test_capt_and_the_peers_agree_on_images_of_the_input_size(benchmark, tmp_path):
    extraction, photographs = benchmark("extraction"), benchmark("photographs").photographs
    folder = tmp_path / "images"
    folder.mkdir()
    for number, data in enumerate(islice(photographs(299, 299), 6)):
        (folder / f"{number}.jpg").write_bytes(data)
    given, flops = extraction.make(tmp_path, "float32", [folder], 0, 2)
    assert flops == pytest.approx(2 * 5.71e9, rel=0.01)
    assert extraction.core(given) > 0
    assert extraction.loop(given) > 0
    assert extraction.bare_network(given)() > 0
    extraction.prepare_all(given)
    extraction.beam_all(given)
    near = extraction.compare_features(given)
    assert all(worst > 0.999 for _, worst in near.values()), near
    beam, notebook = extraction.read_beam(tmp_path / "records"), extraction.read_notebook(tmp_path / "npy")
    assert beam.keys() == notebook.keys() == {str(number) for number in range(6)}
    for image, features in notebook.items():
        np.testing.assert_allclose(beam[image], features, rtol=1e-3, atol=1e-3)
