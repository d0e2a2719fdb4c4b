import shutil

import pytest

import capt
from features.runtime.keras_settings import ops
from schemas.errors import UsageError
from tests.trainer.killing import fork, kill_after
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.run import load_run

SIZES = {
    "units": 16,
    "embedding_dim": 12,
    "attention_dim": 10,
    "projection_dim": 14,
    "output_dim": 18,
    "num_sample_captions": 0,
}
EPOCHS = 5


def train(store, run, **hyperparameters):
    options = {**SIZES, "batch_size": 16, **hyperparameters}
    return capt.train_captioner(store=store.path, run_dir=run, epochs=EPOCHS, hyperparameters=options)


def weights(run, epoch=None):
    return ops.convert_to_numpy(load_run(run, epoch).model.embedding_layer.embeddings)


def kept(run):
    return {path.name for path in (run / "checkpoints").iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return run, train(store, run, keep_epochs=3, save_steps=2)


def test_the_weights_of_the_last_epochs_are_kept(trained):
    run, summary = trained
    steps = summary["steps"] // EPOCHS
    state = Checkpoints(run / "checkpoints").state()
    assert state.epochs == {summary["best_epoch"]: state.best, **{n: f"{n * steps:08d}" for n in (3, 4, 5)}}
    assert kept(run) == set(state.epochs.values())


def test_an_epoch_is_chosen_by_its_number(trained, store, tmp_path):
    shorter = capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", epochs=3, hyperparameters={**SIZES, "batch_size": 16}
    )
    assert shorter["epochs"] == 3
    assert (weights(trained[0], 3) == weights(tmp_path / "run", 3)).all()
    assert (weights(trained[0], 3) != weights(trained[0], 5)).any()
    assert (weights(trained[0], trained[1]["best_epoch"]) == weights(trained[0])).all()
    assert load_run(trained[0], 4).identity != load_run(trained[0], 5).identity


def test_an_epoch_without_weights_is_an_error_that_lists_those_that_exist(trained):
    with pytest.raises(UsageError, match=r"--epoch: .*run: the run has no weights of epoch 9: .*3, 4, 5 \(best\)"):
        load_run(trained[0], 9)


def test_by_default_only_the_last_and_the_best_epoch_are_kept(store, tmp_path):
    summary = train(store, tmp_path / "run")
    assert set(Checkpoints(tmp_path / "run" / "checkpoints").state().epochs) == {EPOCHS, summary["best_epoch"]}


def test_a_run_without_kept_epochs_in_its_state_still_has_the_last_and_the_best(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    state = checkpoints.state()
    path = tmp_path / "run" / "checkpoints" / "state.json"
    path.write_text(state.model_dump_json(exclude={"kept"}))
    assert set(checkpoints.state().epochs) == {EPOCHS, trained[1]["best_epoch"]}


def test_a_killed_run_keeps_the_epochs_of_an_uninterrupted_run(commands, trained, store, tmp_path):
    options = {"epochs": EPOCHS, "hyperparameters": {**SIZES, "batch_size": 16, "keep_epochs": 3, "save_steps": 2}}
    kill_after(fork(commands, store, tmp_path / "run", **options), tmp_path / "run", 4, 2)
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", **options)
    assert kept(tmp_path / "run") == kept(trained[0])
    assert abs(weights(tmp_path / "run", 3) - weights(trained[0], 3)).max() < 1e-5


def test_every_command_that_uses_a_run_accepts_an_epoch(trained, store, shown, tmp_path):
    (tmp_path / "a.png").write_bytes(shown[0].data)
    common = {"run": trained[0], "epoch": 4}
    expected = load_run(trained[0], 4).caption(tmp_path / "a.png").text
    assert capt.caption(images=[tmp_path / "a.png"], **common)["results"][0]["text"] == expected
    capt.predict_captions(images=[tmp_path / "a.png"], output=tmp_path / "out.jsonl", **common)
    assert f'"{expected}"' in (tmp_path / "out.jsonl").read_text()
    for command in (capt.recognize, capt.predict_captcha, capt.export):
        with pytest.raises(UsageError, match="no weights of epoch 9"):
            command(**OPTIONS[command.__name__](tmp_path), run=trained[0], epoch=9)
    evaluated = capt.evaluate(runs=[trained[0]], split="val", store=store.path, epoch=4)
    assert evaluated["epoch"] == 4
    assert evaluated["scores_path"] == str(trained[0] / "evaluation" / "epoch-4" / "val" / "scores.json")


OPTIONS = {
    "recognize": lambda root: {"images": [root / "a.png"]},
    "predict_captcha": lambda root: {"images": [root], "ids": "0:1", "output": root / "out.txt"},
    "export": lambda root: {"out": root / "exported"},
}
