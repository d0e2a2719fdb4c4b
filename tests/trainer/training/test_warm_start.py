"""A warm start takes what another run learned, word by word."""

import shutil

import numpy as np
import pytest
from keras import ops

import capt
from schemas.errors import StoreError, UsageError
from trainer.runs.run import load_run

TINY = {
    "embedding_dim": 12,
    "units": 16,
    "attention_dim": 10,
    "projection_dim": 14,
    "output_dim": 18,
    "batch_size": 16,
    "learning_rate": 1e-9,
    "num_sample_captions": 0,
}


@pytest.fixture(scope="module")
def cold(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "cold"
    capt.train_captioner(store=store.path, run_dir=run, epochs=2, hyperparameters={**TINY, "learning_rate": 0.01})
    return load_run(run)


def weights(run):
    return [ops.convert_to_numpy(weight) for weight in run.model.weights]


def test_a_run_starts_with_the_weights_of_another(store, cold, tmp_path):
    capt.train_captioner(
        store=store.path, run_dir=tmp_path / "warm", epochs=1, warm_start_from=cold.path, hyperparameters=TINY
    )
    for before, after in zip(weights(cold), weights(load_run(tmp_path / "warm")), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert load_run(tmp_path / "warm").metadata.warm_start == cold.identity


def test_shared_tokens_keep_their_weights_in_another_vocabulary(squares, shown, cold, tmp_path):
    words = [*squares.WORDS[:4], "new", *reversed(squares.WORDS[4:])]
    other = squares.create_store(tmp_path / "store")
    squares.add_features(other, shown)
    squares.add_captions(other, shown, words=words)
    squares.add_dataset(other, shown)
    capt.train_captioner(
        store=other.path, run_dir=tmp_path / "warm", epochs=1, warm_start_from=cold.path, hyperparameters=TINY
    )
    warm = load_run(tmp_path / "warm")
    moved = 0
    for before, after in zip(weights(cold), weights(warm), strict=True):
        if before.shape == after.shape:
            np.testing.assert_allclose(after, before, atol=1e-6)
            continue
        axis = next(a for a, (b, c) in enumerate(zip(before.shape, after.shape, strict=True)) if b != c)
        old, new = np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0)
        for word in squares.WORDS:
            np.testing.assert_allclose(new[words.index(word)], old[squares.WORDS.index(word)], atol=1e-6)
        moved += 1
    assert moved >= 2


def test_a_missing_vocabulary_is_an_error_before_the_run_directory_is_written(store, cold, tmp_path):
    shutil.copytree(cold.path, tmp_path / "other")
    (tmp_path / "other" / "vocabulary.txt").unlink()
    with pytest.raises(StoreError):
        capt.train_captioner(
            store=store.path, run_dir=tmp_path / "warm", warm_start_from=tmp_path / "other", hyperparameters=TINY
        )
    assert not (tmp_path / "warm").exists()


def test_a_run_with_another_model_architecture_or_task_is_refused(store, cold, tmp_path):
    with pytest.raises(UsageError, match="a soft_attention, and the new run is a transformer"):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "a", model="transformer", warm_start_from=cold.path)
    with pytest.raises(UsageError, match="other model hyperparameters"):
        capt.train_captioner(
            store=store.path,
            run_dir=tmp_path / "b",
            epochs=1,
            warm_start_from=cold.path,
            hyperparameters={**TINY, "units": 20},
        )
    with pytest.raises(UsageError, match="is a soft_attention, and the new run is a recognizer"):
        capt.train_captcha(store=store.path, run_dir=tmp_path / "c", warm_start_from=cold.path)
