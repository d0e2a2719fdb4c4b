import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

import capt
from features.io.locks import LockedError
from schemas.errors import CaptError, CorruptFileError, StoreError, UsageError
from tests.trainer.killing import PROGRAM, fork, kill_after, start
from tests.trainer.run_files import learned, lines_of, weights_of
from trainer.figures.figure_files import save_figure
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.directory import lock_run
from trainer.runs.metadata import read_metadata
from trainer.runs.run import load_run
from trainer.tasks.captioning_job import CaptioningJob
from trainer.training import caption_validation, training_loop

SMALL = {
    "units": 48,
    "embedding_dim": 24,
    "attention_dim": 24,
    "projection_dim": 24,
    "output_dim": 32,
    "dropout": 0.2,
    "batch_size": 16,
    "learning_rate": 0.005,
    "num_sample_captions": 0,
}
LEAVING_OUT = {
    "units": 48,
    "embedding_dim": 24,
    "dropout": 0.2,
    "recurrent_weight_dropout": 0.3,
    "batch_size": 16,
    "optimizer": "adam",
    "learning_rate": 0.005,
    "num_sample_captions": 0,
}
EPOCHS = 6


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    return run, capt.train_captioner(store=store.path, run_dir=run, seed=4, epochs=EPOCHS, hyperparameters=SMALL)


def test_training_reduces_the_loss_and_returns_a_summary(trained, shown):
    run, figures = trained
    rows = lines_of(run)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["val_loss"] < 0.5 * rows[0]["val_loss"]
    assert figures["captions"]["train"] == sum(len(p.captions) for p in shown if p.split == "train")
    assert figures["epochs"] == EPOCHS
    assert figures["steps"] == EPOCHS * -(-figures["captions"]["train"] // 16)
    assert figures["resumed_at"] == 0
    assert figures["validation_split"] == "val"
    assert figures["val_loss"] == min(row["val_loss"] for row in rows)
    json.dumps(figures)


def test_the_run_directory_contains_all_files(trained, store):
    run, _ = trained
    record = read_metadata(run)
    assert record.features.fingerprint == store.feature_tables()[0].fingerprint
    assert [origin.fingerprint for origin in record.caption_tables] == [store.caption_tables()[0].fingerprint]
    assert (run / "vocabulary.txt").read_text().split("\n")[:-1] == store.caption_tables()[0].vocabulary()
    assert (run / "network.pb").read_bytes() == store.feature_tables()[0].extractor_path.read_bytes()
    assert (run / "transform" / "transform_fn" / "saved_model.pb").is_file()
    assert (run / "loss.png").stat().st_size > 1000
    points = [
        value.tag
        for path in (run / "logs" / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert points.count("epoch_loss") == EPOCHS
    assert not list(run.rglob(".aside-*"))


def test_the_saved_transform_tokenizes_as_the_store(trained, store):
    from features.text.tokenizer import Tokenizer

    row = store.caption_tables()[0].captions().to_pylist()[0]
    (ids,) = Tokenizer(trained[0] / "transform").tokenize([row["caption"]]).rows()
    assert ids.tolist() == row["tokens"]


def test_only_the_last_and_the_best_checkpoint_are_kept(trained):
    run, figures = trained
    state = Checkpoints(run / "checkpoints").state()
    kept = {path.name for path in (run / "checkpoints").iterdir() if path.is_dir()}
    assert kept == {state.last, state.best}
    assert state.progress.best.epoch == figures["best_epoch"]
    assert int(state.best) == figures["best_epoch"] * figures["steps"] // EPOCHS


def test_captions_use_the_best_epoch(trained):
    run, _ = trained
    best = Checkpoints(run / "checkpoints").state().best
    (embeddings,) = load_run(run).model.embedding_layer.get_weights()
    with h5py.File(run / "checkpoints" / best / "model.weights.h5") as file:
        np.testing.assert_array_equal(file["embedding_layer/vars/0"], embeddings)


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_result_of_an_uninterrupted_run(commands, trained, store, tmp_path):
    unbroken, figures = trained
    run = tmp_path / "killed"
    options = {"seed": 4, "epochs": EPOCHS, "save_steps": 2, "hyperparameters": SMALL}
    stood = kill_after(fork(commands, store, run, **options), run, 1, 2)
    (run / "checkpoints" / ".aside-left").mkdir()
    (run / "metrics.jsonl").write_text("{}\n{}\n{}\n")
    again = kill_after(fork(commands, store, run, **options), run, stood.epoch + 1, 4)
    assert (again.epoch, again.step) > (stood.epoch, stood.step)
    resumed = capt.train_captioner(store=store.path, run_dir=run, **options)
    assert resumed["resumed_at"] >= again.epoch * (figures["steps"] // EPOCHS) + again.step
    assert learned(lines_of(run)) == learned(lines_of(unbroken))
    expected = weights_of(unbroken)
    got = weights_of(run)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not (run / "checkpoints" / ".aside-left").exists()


def test_a_finished_run_is_not_trained_again(trained, store):
    run, figures = trained
    before = lines_of(run)
    again = capt.train_captioner(store=store.path, run_dir=run, seed=4, epochs=EPOCHS, hyperparameters=SMALL)
    assert again["resumed_at"] == again["steps"] == figures["steps"]
    assert again["val_loss"] == figures["val_loss"]
    assert lines_of(run) == before


def test_a_missing_hyperparameter_has_its_default(trained, store, tmp_path):
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    assert record["architecture"].pop("use_context_gate") is False
    (run / "run.json").write_text(json.dumps(record))
    again = capt.train_captioner(store=store.path, run_dir=run, seed=4, epochs=EPOCHS, hyperparameters=SMALL)
    assert again["resumed_at"] == again["steps"]


def test_more_epochs_resume_a_finished_run(trained, store, tmp_path):
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    figures = capt.train_captioner(store=store.path, run_dir=run, seed=4, epochs=EPOCHS + 1, hyperparameters=SMALL)
    assert [row["epoch"] for row in lines_of(run)] == list(range(1, EPOCHS + 2))
    assert figures["resumed_at"] * (EPOCHS + 1) == figures["steps"] * EPOCHS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "training.seed: expected 4, got 5"),
        ({"hyperparameters": {**SMALL, "units": 32}}, "architecture.units: expected 48, got 32"),
        ({"steps_per_epoch": 3}, "training.steps_per_epoch: expected None, got 3"),
    ],
)
def test_a_directory_of_another_run_is_refused(trained, store, change, named):
    settings = {"seed": 4, "epochs": EPOCHS, "hyperparameters": SMALL, **change}
    with pytest.raises(StoreError, match=f"contains another run: {named}"):
        capt.train_captioner(store=store.path, run_dir=trained[0], **settings)


def test_a_directory_of_a_run_on_other_data_is_refused(trained, shown, squares, tmp_path):
    other = squares.make_store(tmp_path / "s", shown[:40])
    with pytest.raises(StoreError, match=r"digest of the train split: expected .*, got "):
        capt.train_captioner(store=other.path, run_dir=trained[0], seed=4, epochs=EPOCHS, hyperparameters=SMALL)


def test_a_directory_with_other_files_is_refused(store, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"not a run and not empty: it contains thesis\.txt"):
        capt.train_captioner(store=store.path, run_dir=tmp_path, epochs=1, hyperparameters=SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_run_that_is_being_trained_is_refused(trained, store):
    with lock_run(trained[0]), pytest.raises(LockedError, match="has been training here since"):
        capt.train_captioner(store=store.path, run_dir=trained[0], seed=4, epochs=EPOCHS, hyperparameters=SMALL)
    assert LockedError.exit_code == 5


def test_short_epochs_are_plotted_once_at_the_end(store, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(training_loop, "_PLOT_SECONDS", 1e9)
    monkeypatch.setattr(training_loop, "save_figure", lambda *given: drawn.append(given) or save_figure(*given))
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=3, steps_per_epoch=1, hyperparameters=SMALL)
    assert len(drawn) == 1
    assert (tmp_path / "run" / "loss.png").is_file()


def test_steps_per_epoch_sets_the_length_of_an_epoch(store, tmp_path):
    choices = {"captions_per_image": "one", "rnn_cell": "rnn"}
    figures = capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", epochs=2, steps_per_epoch=3, **choices, hyperparameters=SMALL
    )
    assert figures["steps"] == 6
    record = read_metadata(tmp_path / "run")
    assert (record.training.captions_per_image, record.architecture["rnn_cell"]) == ("one", "rnn")


def test_without_a_val_split_validation_uses_test(shown, squares, tmp_path, caplog):
    shown = [dataclasses.replace(p, split={"val": "test"}.get(p.split, p.split)) for p in shown]
    store = squares.make_store(tmp_path / "s", shown)
    figures = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=SMALL)
    assert figures["validation_split"] == "test"
    assert "Validating on test" in caplog.text


def test_validation_may_use_test_and_the_run_and_its_evaluation_report_it(shown, squares, tmp_path, caplog):
    train, val = ([p for p in shown if p.split == split] for split in ("train", "val"))
    test = [dataclasses.replace(p, split="test") for p in val[::2]]
    store = squares.make_store(tmp_path / "s", [*train, *val[1::2], *test])
    settings = {**SMALL, "validation_split": "test"}
    run = tmp_path / "run"
    figures = capt.train_captioner(store=store.path, run_dir=run, epochs=1, hyperparameters=settings)
    assert figures["validation_split"] == read_metadata(run).validation_split == "test"
    assert "The best epoch is selected on test, so scores on test are biased upward" in caplog.text
    note = "the best epoch was selected on test. The metrics are biased upward."
    assert any(note in one for one in capt.evaluate(runs=run, num_examples=0)["notes"])
    assert not any(note in one for one in capt.evaluate(runs=run, split="val", num_examples=0)["notes"])


def test_validation_on_an_empty_test_split_is_refused(shown, squares, tmp_path):
    store = squares.make_store(tmp_path / "s", [p for p in shown if p.split != "test"])
    settings = {**SMALL, "validation_split": "test"}
    with pytest.raises(CaptError, match=r"validation_split: the test split has no usable records\. Use .*: val"):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=settings)
    assert not (tmp_path / "run").exists()


def test_training_works_without_validation_captions(shown, squares, tmp_path, caplog):
    store = squares.make_store(tmp_path / "s", [p for p in shown if p.split == "train"])
    figures = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=SMALL)
    assert figures["validation_split"] is None
    assert "val_loss" not in figures
    assert "Neither val nor test has usable records" in caplog.text


def test_an_unknown_option_is_refused_before_anything_is_written(store, tmp_path):
    with pytest.raises(UsageError, match="unknown option 'unit'"):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", hyperparameters={"unit": 3})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "given", "complaint"),
    [
        ("transformer", {"rnn_cell": "gru"}, r"--rnn-cell: transformer has no RNN cell"),
        ("nic", {"rnn_cell": "gated"}, "--rnn-cell: "),
        ("nic", {"captions_per_image": "two"}, "--captions-per-image: "),
    ],
)
def test_an_invalid_choice_is_refused(store, tmp_path, model, given, complaint):
    with pytest.raises(UsageError, match=complaint):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", model=model, **given)


def test_a_corrupt_shard_is_an_error(shown, squares, tmp_path):
    store = squares.make_store(tmp_path / "s", shown)
    (shard,) = (tmp_path / "s" / "features").rglob("*.tfrecord")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"\.tfrecord: corrupt: expected SHA-256 .*, got "):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=SMALL)


def test_an_infinite_loss_stops_the_run_without_a_checkpoint(store, tmp_path):
    with pytest.raises(CaptError, match=r"not a number.*smaller learning_rate"):
        capt.train_captioner(
            store=store.path, run_dir=tmp_path / "run", epochs=3, hyperparameters={**SMALL, "learning_rate": 1e30}
        )
    state = Checkpoints(tmp_path / "run" / "checkpoints").state()
    assert state is None


def test_a_corrupt_state_is_an_error(trained, store, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "state.json").write_text('{"last": 3}')
    with pytest.raises(CorruptFileError, match=r"state\.json: the file is corrupt"):
        Checkpoints(tmp_path / "checkpoints").state()


def test_a_run_without_improvement_stops_early(store, tmp_path):
    options = {**SMALL, "learning_rate": 1e-12, "early_stopping_patience": 1, "dropout": 0.0}
    figures = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=20, hyperparameters=options)
    assert figures["epochs"] - figures["best_epoch"] == 1
    again = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=20, hyperparameters=options)
    assert again["epochs"] == figures["epochs"]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_float32_captions(store, tmp_path, precision):
    run = tmp_path / "run"
    figures = capt.train_captioner(
        store=store.path, run_dir=run, seed=4, epochs=2, hyperparameters={**SMALL, "precision": precision}
    )
    assert lines_of(run)[1]["val_loss"] < lines_of(run)[0]["val_loss"]
    model = load_run(run).model
    assert model.compute_dtype == "float32"
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert figures["epochs"] == 2


@pytest.mark.parametrize(("precision", "warnings"), [("mixed_bfloat16", 1), ("float32", 0)])
def test_emulated_precision_is_logged_before_training(store, tmp_path, monkeypatch, precision, warnings):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    run = tmp_path / "run"
    losses_at_warnings = []

    class Watching(logging.Handler):
        def emit(self, record):
            if record.name == "capt":
                losses_at_warnings.append(len(lines_of(run)) if (run / "metrics.jsonl").exists() else 0)

    watching = Watching(logging.WARNING)
    logging.getLogger("capt").addHandler(watching)
    try:
        capt.train_captioner(
            store=store.path, run_dir=run, seed=4, epochs=1, hyperparameters={**SMALL, "precision": precision}
        )
    finally:
        logging.getLogger("capt").removeHandler(watching)
    assert losses_at_warnings == [0] * warnings


@pytest.mark.slow
def test_a_run_on_a_schedule_with_half_precision_resumes_exactly(store, tmp_path):
    settings = {"lr_schedule": "cosine", "warmup_steps": 3, "precision": "mixed_float16", "global_clipnorm": 1.0}
    options = {**SMALL, **settings, "label_smoothing": 0.1, "captions_per_image": "one", "batch_size": 8}
    capt.train_captioner(
        store=store.path, run_dir=tmp_path / "unbroken", seed=4, epochs=3, save_steps=1, hyperparameters=options
    )
    arguments = {"seed": 4, "epochs": 3, "save_steps": 1, "hyperparameters": options}
    kill_after(start(store, tmp_path / "killed", **arguments), tmp_path / "killed", 1, 2)
    assert capt.train_captioner(store=store.path, run_dir=tmp_path / "killed", **arguments)["resumed_at"]
    for got, expected in zip(lines_of(tmp_path / "killed"), lines_of(tmp_path / "unbroken"), strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert got["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["soft_attention", "nic"])
def test_a_run_on_jax_that_is_killed_resumes_with_the_result_of_an_uninterrupted_one(
    store, shown, squares, tmp_path, monkeypatch, model
):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    # Nearly all of the time goes into compiling, and half of that into optimizing.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    options = {"model": model, "seed": 4, "epochs": 2, "save_steps": 2, "hyperparameters": SMALL}
    if model == "nic":
        store, options["hyperparameters"] = squares.make_store(tmp_path / "store", shown, pooled=True), LEAVING_OUT
    assert start(store, tmp_path / "unbroken", **options).wait() == 0
    kill_after(start(store, tmp_path / "killed", **options), tmp_path / "killed", 1, 2)
    assert start(store, tmp_path / "killed", **options).wait() == 0
    for got, expected in zip(lines_of(tmp_path / "killed"), lines_of(tmp_path / "unbroken"), strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert got["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


def test_more_epochs_of_a_cosine_schedule_are_another_run(store, tmp_path):
    options = {**SMALL, "lr_schedule": "cosine"}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=options)
    with pytest.raises(StoreError, match=r"training\.epochs: expected 1, got 2"):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=2, hyperparameters=options)


def test_the_best_epoch_can_be_selected_by_cider_d(store, tmp_path):
    options = {**SMALL, "monitor": "val_cider_d", "early_stopping_patience": 2}
    figures = capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", seed=4, epochs=4, hyperparameters=options
    )
    liked = [row["val_cider_d"] for row in lines_of(tmp_path / "run")]
    assert figures["best_epoch"] == 1 + liked.index(max(liked))
    assert figures["val_cider_d"] == max(liked) > 0


def test_validation_is_limited_to_a_number_of_images(store, tmp_path, monkeypatch):
    read, scored = [], []
    batches, cider_d = CaptioningJob.validation_batches, caption_validation.cider_d

    def record_batches(job):
        found = batches(job)
        read.append(len({row.tobytes() for inputs, _ in found for row in inputs["features"].numpy()}))
        return found

    def record_images(captions, references):
        scored.append((set(captions), set(references)))
        return cider_d(captions, references)

    monkeypatch.setattr(CaptioningJob, "validation_batches", record_batches)
    monkeypatch.setattr(caption_validation, "cider_d", record_images)
    options = {**SMALL, "monitor": "val_cider_d", "num_validation_images": 4}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=options)
    assert read == [4]
    assert [(len(captions), captions == references) for captions, references in scored] == [(4, True)]


def test_a_run_may_resume_with_another_number_of_validation_images(trained, store, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "num_validation_images" not in record["training"]
    options = {**SMALL, "num_validation_images": 4}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", seed=4, epochs=EPOCHS, hyperparameters=options)


@pytest.mark.parametrize("options", [{}, {"captions_per_image": "one"}, {"steps_per_epoch": 5}])
def test_the_padded_loss_is_the_loss_per_position_of_padded_captions(store, shown, tmp_path, options):
    options = {**SMALL, "padded_loss": True, "num_validation_images": 4, **options}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=2, hyperparameters=options)
    longest = max(len(caption.split()) for one in shown if one.split == "train" for caption in one.captions) + 2
    held_out = sorted((one for one in shown if one.split == "val"), key=lambda one: one.key)[:4]
    lengths = [len(caption.split()) + 1 for one in held_out for caption in one.captions]
    for row in lines_of(tmp_path / "run"):
        assert row["val_padded_loss"] == pytest.approx(row["val_loss"] * np.mean(lengths) / longest)
        assert 0.3 < row["padded_loss"] / row["loss"] < 0.9


def test_the_padded_loss_changes_neither_training_nor_the_best_epoch(trained, store, tmp_path):
    options = {**SMALL, "padded_loss": True}
    padded = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", seed=4, epochs=2, hyperparameters=options)
    assert [row["val_loss"] for row in padded.history] == [row["val_loss"] for row in lines_of(trained[0])[:2]]
    assert load_run(tmp_path / "run").metadata.training.monitor == "val_loss"


def test_fixed_validation_images_are_captioned_after_each_epoch(store, tmp_path, caplog):
    with caplog.at_level("INFO", "capt.training"):
        capt.train_captioner(
            store=store.path, run_dir=tmp_path / "run", epochs=2, hyperparameters={**SMALL, "num_sample_captions": 2}
        )
    samples = [line.rsplit(" (reference: ", 1) for line in caplog.messages if "(reference: “" in line]
    assert len(samples) == 4
    assert [reference for _, reference in samples[:2]] == [reference for _, reference in samples[2:]]


def test_several_devices_are_refused_without_distribution(store, tmp_path):
    with pytest.raises(UsageError, match="KERAS_BACKEND=jax"):
        capt.train_captioner(
            store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters={**SMALL, "devices": "all"}
        )


@pytest.mark.slow
def test_two_devices_have_the_result_of_one(store, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    for devices in ("one", "all"):
        options = {"seed": 4, "epochs": 2, "hyperparameters": {**SMALL, "dropout": 0.0, "devices": devices}}
        command = [sys.executable, "-c", PROGRAM, str(store.path), str(tmp_path / devices), json.dumps(options)]
        subprocess.run(command, env=environment, check=True)
    for one, all_ in zip(lines_of(tmp_path / "one"), lines_of(tmp_path / "all"), strict=True):
        assert all_["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert all_["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)


def test_run_metadata_does_not_contain_the_store_path(trained, store):
    assert str(store.path) not in (trained[0] / "run.json").read_text()
    assert Path(trained[1]["run_dir"]).is_absolute()
