"""Both trainers of the training benchmark train on the same captions for as many steps."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from trainer.data.caption_data import Captions

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.parametrize("words", [None, 7])
def test_generated_captions_have_the_layout_of_flickr8k(benchmark, tmp_path, words):
    text = benchmark("training").write_captions(tmp_path / "text", 9, words)
    lines = [line.split("\t") for line in text.read_text().splitlines()]
    assert [name for name, _ in lines] == [f"{image:06d}.jpg#{number}" for image in range(9) for number in range(5)]
    assert {len(caption.split()) for _, caption in lines if words} <= {words}
    assert (text.parent / "Flickr_8k.trainImages.txt").read_text().split() == [f"{i:06d}.jpg" for i in range(9)]


def test_the_notebook_pads_to_the_longest(benchmark):
    captions = Captions(
        tokens=np.array([2, 7, 3, 2, 8, 9, 8, 3], np.int32),
        starts=np.array([0, 3, 8]),
        image=np.array([0, 1], np.int32),
        keys=np.zeros((2, 32), np.uint8),
        rows=np.arange(2),
    )
    assert benchmark("training").padded_to_longest(captions).tolist() == [[2, 7, 3, 0, 0], [2, 8, 9, 8, 3]]


def test_the_train_step_of_the_notebook_reduces_the_loss(benchmark):
    notebook = benchmark("notebook_captioner")
    rng = np.random.default_rng(0)
    step = notebook.train_step(notebook.Encoder(8), notebook.Decoder(30, 8, 16), start=2)
    images = rng.normal(size=(4, 9, 12)).astype(np.float32)
    target = np.concatenate([np.full((4, 1), 2), rng.integers(4, 30, (4, 3))], axis=1).astype(np.int32)
    losses = [float(step(images, target)) for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_ours_and_the_notebook_take_steps_of_the_same_captions(benchmark, tmp_path):
    training = benchmark("training")
    text = training.write_captions(tmp_path / "text", 64, words=5)
    store = training.make_store(tmp_path / "store", text, 64)
    ours = training.Ours(store, tmp_path / "ours", "all")
    arrays = training.save_arrays(tmp_path / "arrays", ours.features)
    peer = training.Notebook(ours.captions, arrays)
    assert ours.positions == peer.positions == 6
    assert len(ours.captions) == 320
    assert [Path(path).stem for path in arrays] == [key.tobytes().hex() for key in ours.captions.keys]
    assert min(ours.seconds(2), peer.seconds(2)) > 0
    assert 0 <= ours.waited(2) < 1
