import inspect
import json
from pathlib import Path

import pytest

import capt
from schemas.errors import UsageError

SMALL = {
    "units": 16,
    "embedding_dim": 12,
    "attention_dim": 10,
    "projection_dim": 14,
    "output_dim": 18,
    "num_sample_captions": 0,
}


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return capt.train_captioner(store=store.path, run_dir=run, epochs=3, hyperparameters=SMALL, verbose=0)


def test_the_result_is_the_dictionary_that_json_prints(trained):
    assert json.loads(json.dumps(trained)) == trained
    assert trained["epochs"] == 3


def test_the_history_has_the_metrics_of_each_epoch(trained):
    lines = Path(trained["run_dir"], "metrics.jsonl").read_text().splitlines()
    assert trained.history == [json.loads(line) for line in lines]
    assert trained.history[trained["best_epoch"] - 1]["val_loss"] == trained["val_loss"]


def test_the_history_is_plotted_and_shown_in_a_notebook(trained):
    figure = trained.plot(from_zero=True)
    losses, accuracies = figure.axes
    assert losses.lines[0].get_ydata().tolist() == [epoch["loss"] for epoch in trained.history]
    assert accuracies.lines[1].get_ydata().tolist() == [epoch["val_token_accuracy"] for epoch in trained.history]
    assert losses.get_ylim()[0] == 0
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_finished_run_has_its_history_as_well(trained, store):
    again = capt.train_captioner(store=store.path, run_dir=trained["run_dir"], epochs=3, hyperparameters=SMALL)
    assert again["resumed_at"] == again["steps"]
    assert again.history == trained.history


def test_training_from_python_logs_each_epoch(store, tmp_path, caplog):
    options = {"store": store.path, "epochs": 1, "hyperparameters": SMALL}
    capt.train_captioner(**options, run_dir=tmp_path / "shown")
    assert any(line.startswith("epoch 1 of 1: loss ") for line in caplog.messages)
    caplog.clear()
    capt.train_captioner(**options, run_dir=tmp_path / "silent", verbose=0)
    assert not any(line.startswith("epoch ") for line in caplog.messages)


def test_an_invalid_verbosity_is_refused_before_training(store, tmp_path):
    with pytest.raises(UsageError, match="verbose: expected 0, 1 or 2, got 'all'"):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", verbose="all")
    assert not (tmp_path / "run").exists()


def test_the_signature_of_training_has_verbose():
    assert inspect.signature(capt.train_captcha).parameters["verbose"].default == 1
    for function in (capt.evaluate, capt.config):
        assert "verbose" not in inspect.signature(function).parameters
