import json
import shutil

import numpy as np
import pytest

import capt
from tests.trainer.words import EPOCHS, SMALL, STEPS, captcha, make_words
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.metadata import METADATA, read_metadata
from trainer.runs.run import load_run


@pytest.fixture(scope="module")
def run(words_run):
    return load_run(words_run[0])


@pytest.fixture(scope="module")
def plain(run, tmp_path_factory):
    """The same run without its calibration."""
    path = tmp_path_factory.mktemp("plain") / "run"
    shutil.copytree(run.path, path)
    record = json.loads((path / METADATA).read_text())
    del record["calibration"]
    (path / METADATA).write_text(json.dumps(record))
    return load_run(path)


def test_training_fits_a_temperature_and_reports_the_errors_before_and_after(words_run, run):
    reported, recorded = words_run[1]["calibration"], run.metadata.calibration
    assert reported == recorded.model_dump(exclude={"checkpoint"})
    assert recorded.checkpoint == Checkpoints(run.path / "checkpoints").find()
    assert recorded.images == 40
    assert recorded.temperature != 1
    assert recorded.ece < recorded.ece_uncalibrated
    assert 0 <= recorded.character_ece <= 1


def test_logits_are_divided_by_the_temperature_and_greedy_labels_stay(run, plain, words_store, captchas):
    pixels = words_store.feature_tables()[0].get_many([one.key for one in captchas[:40]])
    assert plain.temperature == 1
    np.testing.assert_allclose(run.logits(pixels) * run.temperature, plain.logits(pixels), rtol=1e-4, atol=1e-4)
    ours, theirs = run.evaluate_pixels(pixels), plain.recognize_pixels(pixels)
    assert [one.greedy.text for one in ours] == [one.greedy.text for one in theirs]
    assert [one.uncalibrated.score for one in ours] == pytest.approx([one.greedy.score for one in theirs], abs=1e-3)
    assert any(abs(a.greedy.confidence - b.greedy.confidence) > 0.01 for a, b in zip(ours, theirs, strict=True))
    assert run.identity != plain.identity


def test_other_weights_are_not_calibrated(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / METADATA).read_text())
    record["calibration"]["checkpoint"] = "00000001"
    (tmp_path / "run" / METADATA).write_text(json.dumps(record))
    assert load_run(tmp_path / "run").temperature == 1


def test_a_repeated_command_fits_the_same_temperature(words_run, words_store, tmp_path):
    shutil.copytree(words_run[0], tmp_path / "run")
    again = capt.train_captcha(
        store=words_store.path, run_dir=tmp_path / "run", epochs=EPOCHS, steps_per_epoch=STEPS, hyperparameters=SMALL
    )
    assert again["calibration"] == pytest.approx(words_run[1]["calibration"], abs=1e-3)
    assert read_metadata(tmp_path / "run").calibration.images == 40


def test_a_run_without_validation_images_has_the_temperature_1_and_says_so(squares, tmp_path, caplog):
    store = make_words(tmp_path / "store", squares, [captcha(number, "train") for number in range(20)])
    options = {"epochs": 1, "steps_per_epoch": 1, "hyperparameters": SMALL}
    with caplog.at_level("WARNING", logger="capt.training"):
        result = capt.train_captcha(store=store.path, run_dir=tmp_path / "run", **options)
    assert result["calibration"]["images"] == 0
    assert result["calibration"]["temperature"] == 1
    assert result["calibration"]["ece"] is None
    assert any("not calibrated" in message for message in caplog.messages)
    assert load_run(tmp_path / "run").temperature == 1
