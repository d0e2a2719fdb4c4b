import numpy as np
import pytest

import capt
from schemas.errors import UsageError
from tests.docs.pages import CODE
from tests.trainer.killing import fork, kill_after, start
from tests.trainer.run_files import learned, lines_of, weights_of
from trainer.data.caption_data import join_captions
from trainer.data.table_selection import select_tables
from trainer.data.train_references import read_train_references
from trainer.models.model_specs import MODELS, model_spec
from trainer.runs.metadata import read_metadata
from trainer.runs.run import load_run

SIZES = {"units": 48, "embedding_dim": 24, "attention_dim": 24, "projection_dim": 24, "output_dim": 32, "dropout": 0.2}
FIRST = {**SIZES, "batch_size": 16, "learning_rate": 0.005, "num_sample_captions": 0}
SECOND = {**FIRST, "objective": "cider_d", "learning_rate": 0.002, "samples_per_image": 4}
EPOCHS = 4


@pytest.fixture(scope="module")
def first_stage(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    capt.train_captioner(store=store.path, run_dir=run, seed=4, epochs=4, hyperparameters=FIRST)
    return run


@pytest.fixture(scope="module")
def second_stage(store, first_stage, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "second"
    options = {"seed": 4, "epochs": EPOCHS, "warm_start_from": first_stage, "hyperparameters": SECOND}
    return run, capt.train_captioner(store=store.path, run_dir=run, **options)


def test_the_reward_rises_and_the_best_epoch_has_the_highest_cider_d(second_stage):
    run, result = second_stage
    rows = lines_of(run)
    assert rows[-1]["reward"] > 1.2 * rows[0]["reward"] > 0
    scores = [row["val_cider_d"] for row in rows]
    assert result["best_epoch"] == 1 + scores.index(max(scores))
    assert {"loss", "reward", "val_loss", "val_token_accuracy", "val_cider_d"} < rows[0].keys()
    assert "baseline" not in rows[0]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_an_epoch_is_a_pass_over_the_train_images(second_stage, shown):
    _, result = second_stage
    images = sum(picture.split == "train" for picture in shown)
    assert result["steps"] == EPOCHS * -(-images // SECOND["batch_size"])


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_result_of_an_uninterrupted_run(
    commands, store, first_stage, second_stage, tmp_path
):
    unbroken, _ = second_stage
    run = tmp_path / "killed"
    options = {"seed": 4, "epochs": EPOCHS, "save_steps": 1, "hyperparameters": SECOND}
    options["warm_start_from"] = str(first_stage)
    stood = kill_after(fork(commands, store, run, **options), run, 1, 1)
    kill_after(fork(commands, store, run, **options), run, stood.epoch, stood.step + 1)
    assert capt.train_captioner(store=store.path, run_dir=run, **options)["resumed_at"]
    assert learned(lines_of(run)) == learned(lines_of(unbroken))
    expected, got = weights_of(unbroken), weights_of(run)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_the_greedy_baseline_is_a_metric_and_dropout_may_differ_from_the_first_stage(
    store, first_stage, tmp_path, caplog
):
    caplog.set_level("INFO", "capt.training")
    settings = {**SECOND, "reward_baseline": "greedy", "samples_per_image": 1, "dropout": 0.0, "ema_momentum": 0.9}
    options = {"epochs": 1, "warm_start_from": first_stage, "hyperparameters": settings}
    result = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", **options)
    assert 0 < result["baseline"] < 10
    (before,) = [line for line in caplog.messages if line.startswith("val_cider_d before the second stage: ")]
    assert 0 < float(before.split()[-1]) < 10
    assert load_run(tmp_path / "run").metadata.training.reward_baseline == "greedy"


@pytest.mark.slow
def test_without_a_warm_start_a_warning_names_the_consequence(shown, squares, tmp_path, caplog):
    store = squares.make_store(tmp_path / "s", [picture for picture in shown if picture.split == "train"])
    options = {"steps_per_epoch": 2, "epochs": 3, "hyperparameters": SECOND}
    result = capt.train_captioner(store=store.path, run_dir=tmp_path / "run", **options)
    # Without validation, the reward selects the best epoch.
    assert result["reward"] == max(row["reward"] for row in lines_of(tmp_path / "run"))
    assert (
        "objective: cider_d without --warm-start-from: captions of random weights have a reward near 0" in caplog.text
    )


def test_train_references_are_the_captions_of_each_image(store, shown):
    tables = select_tables(store, model_spec("soft_attention"))
    train = join_captions(tables).train
    references = read_train_references(tables, train)
    texts, expected = list(references), {p.key: p.captions for p in shown if p.split == "train"}
    assert len(texts) == references.first[-1]
    for image, key in enumerate(train.keys):
        found = texts[references.first[image] : references.first[image + 1]]
        assert sorted(found) == sorted(expected[key.tobytes()])


@pytest.mark.slow
@pytest.mark.parametrize("model", [*MODELS, "own"])
def test_every_captioner_has_a_second_stage(model, store, shown, squares, tiny_sizes, tmp_path):
    name, settings = model, dict(tiny_sizes.get(model, {"units": 16, "embedding_dim": 8}))
    if model == "own":
        (code,) = [one.text for one in CODE["docs/get_started/own_model.md"] if one.file_name == "own_captioner.py"]
        (tmp_path / "own_captioner.py").write_text(code)
        name = f"{tmp_path}/own_captioner.py:OwnCaptioner"
    if not model_spec(name).spatial:
        store = squares.make_store(tmp_path / "store", shown, pooled=True)
    common = {"store": store.path, "model": name, "epochs": 1, "steps_per_epoch": 2}
    settings |= {"batch_size": 8}
    capt.train_captioner(**common, run_dir=tmp_path / "first", hyperparameters=settings)
    result = capt.train_captioner(
        **common,
        run_dir=tmp_path / "second",
        warm_start_from=tmp_path / "first",
        objective="cider_d",
        hyperparameters=settings,
    )
    assert np.isfinite([result["loss"], result["reward"], result["val_cider_d"]]).all()
    assert read_metadata(tmp_path / "second").training.optimizer == "adam"


@pytest.mark.slow
def test_a_run_on_jax_that_is_killed_resumes_with_the_result_of_an_uninterrupted_one(store, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    # Nearly all of the time goes into compiling, and half of that into optimizing.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    options = {"seed": 4, "epochs": 2, "save_steps": 1, "steps_per_epoch": 3, "hyperparameters": SECOND}
    assert start(store, tmp_path / "unbroken", **options).wait() == 0
    kill_after(start(store, tmp_path / "killed", **options), tmp_path / "killed", 1, 1)
    assert start(store, tmp_path / "killed", **options).wait() == 0
    for got, expected in zip(lines_of(tmp_path / "killed"), lines_of(tmp_path / "unbroken"), strict=True):
        assert got["reward"] == pytest.approx(expected["reward"], rel=1e-5)
        assert got["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"samples_per_image": 1}, r"samples_per_image: 1: the mean .* requires a second sample\. Use at least 2"),
        ({"label_smoothing": 0.1}, r"label_smoothing has no effect with objective: cider_d\. Omit it\."),
        ({"captions_per_image": "one"}, "captions_per_image has no effect with objective: cider_d"),
        ({"objective": "cross_entropy"}, "samples_per_image has no effect with objective: cross_entropy"),
        ({"objective": "bleu"}, "objective: Input should be 'cross_entropy' or 'cider_d', got 'bleu'"),
    ],
)
def test_a_setting_without_effect_is_refused(store, tmp_path, settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        capt.train_captioner(store=store.path, run_dir=tmp_path / "run", hyperparameters={**SECOND, **settings})


def test_the_recognizer_has_no_objective(words_store, tmp_path):
    with pytest.raises(UsageError, match="unknown option 'objective'"):
        capt.train_captcha(store=words_store.path, run_dir=tmp_path / "run", hyperparameters={"objective": "cider_d"})


def test_capt_config_prints_the_defaults_of_the_objective():
    settings = capt.config(model="nic", hyperparameters={"objective": "cider_d"})
    assert (settings["monitor"], settings["optimizer"], settings["lr_schedule"]) == ("val_cider_d", "adam", "constant")
    assert capt.config(**settings) == settings
