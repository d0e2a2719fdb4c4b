import json
import shutil

import numpy as np
import pytest

import capt
from tests.trainer.words import EPOCHS, SMALL, STEPS, captcha, make_words
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.metadata import METADATA
from trainer.runs.run import load_run
from trainer.tasks.calibration import max_images


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


def change_calibration(run, path, **values):
    """A copy of a run whose calibration has other values."""
    shutil.copytree(run.path, path)
    record = json.loads((path / METADATA).read_text())
    record["calibration"] |= values
    (path / METADATA).write_text(json.dumps(record))
    return load_run(path)


def test_the_identity_depends_on_the_temperature_in_use_only(run, plain, tmp_path):
    assert change_calibration(run, tmp_path / "errors", ece=0.5, character_ece=0.5).identity == run.identity
    assert change_calibration(run, tmp_path / "temperature", temperature=1.5).identity != run.identity
    assert change_calibration(run, tmp_path / "weights", checkpoint="00000001").identity == plain.identity


def test_other_weights_are_not_calibrated(run, tmp_path):
    other = change_calibration(run, tmp_path / "run", checkpoint="00000001")
    assert other.temperature == 1
    assert run.is_calibrated
    assert not other.is_calibrated
    assert "other weights" in other.confidence_note


def test_a_repeated_command_keeps_the_calibration_of_the_same_weights_and_images(run, words_run, words_store, tmp_path):
    request = {"store": words_store.path, "epochs": EPOCHS, "steps_per_epoch": STEPS, "hyperparameters": SMALL}
    # Another machine would compute it.
    kept = change_calibration(run, tmp_path / "run", temperature=1.2345)
    assert capt.train_captcha(**request, run_dir=kept.path)["calibration"]["temperature"] == 1.2345
    assert load_run(kept.path).identity == kept.identity
    for name, old in (("images", {"images": 39}), ("weights", {"checkpoint": "00000001"})):
        other = change_calibration(run, tmp_path / name, **old)
        again = capt.train_captcha(**request, run_dir=other.path)
        assert again["calibration"] == pytest.approx(words_run[1]["calibration"], abs=1e-3)
        assert load_run(other.path).identity == run.identity


def test_few_images_are_enough_if_there_are_many_characters():
    assert max_images(40 * 27) == 31068
    assert max_images(1 << 24) == 20


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
