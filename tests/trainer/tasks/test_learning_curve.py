"""`capt train captcha --learning-curve` trains on nested fractions of the train split."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import capt
import tests.trainer.conftest as squares
from schemas.errors import StoreError, UsageError
from tests.trainer.words import SMALL, add_words, captcha, make_words
from trainer.data.captcha_data import join_labels
from trainer.data.table_selection import select_labelled_tables
from trainer.models.model_specs import RECOGNIZER_INPUT
from trainer.runs.directory import read_training_images
from trainer.runs.metadata import read_metadata
from trainer.tasks.captcha import print_trained
from trainer.tasks.learning_curve import select_fraction

TRAIN, VAL = 2400, 400
SETTINGS = {**SMALL, "num_validation_images": 100}


def test_fractions_are_nested_and_keep_their_images_when_others_are_added(words_store):
    images = join_labels(select_labelled_tables(words_store, RECOGNIZER_INPUT)).train
    half, quarter = (select_fraction(images, Fraction(1, parts)) for parts in (2, 4))
    assert set(quarter.names) < set(half.names) < set(images.names)
    assert 60 < len(half) < 100
    fewer = images.select(np.arange(len(images)) % 3 > 0)
    assert set(select_fraction(fewer, Fraction(1, 2)).names) == set(half.names) & set(fewer.names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_curve": True}, "--learning-curve: .*160 labelled images.*200"),
        ({"learning_curve": True, "warm_start_from": "run"}, "--learning-curve: .*--warm-start-from"),
        ({"target_exact_match": 0.9}, "--target-exact-match: .*no effect"),
        ({"learning_curve": True, "target_exact_match": 99}, "--target-exact-match"),
    ],
)
def test_what_allows_no_learning_curve_is_refused_before_a_training(words_store, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        capt.train_captcha(store=words_store.path, run_dir=tmp_path / "run", hyperparameters=SMALL, **options)
    assert not (tmp_path / "run").exists()


def test_a_fraction_that_cannot_be_trained_on_is_refused_before_a_training(tmp_path):
    """A quarter of the train images has neither the characters of val nor images of the dataset `other`."""
    drawn = [captcha(number, "train" if number < 240 else "val") for number in range(260)]
    quarter = {one.key for one in drawn if int.from_bytes(one.key[:8]) < 1 << 62}
    shown = [replace(one, word="an" if one.split == "train" and one.key in quarter else "too") for one in drawn]
    store = make_words(tmp_path / "store", squares, shown)
    options = {"store": store.path, "run_dir": tmp_path / "run", "hyperparameters": SMALL, "learning_curve": True}
    with pytest.raises(UsageError, match=r"--learning-curve: 1/4 of the train split.*val"):
        capt.train_captcha(**options)
    add_words(store, [one for one in shown if one.key not in quarter], ("train", "val"), dataset="other")
    weights = {"dataset": ["captcha", "other"], "dataset_weights": "1,1"}
    with pytest.raises(UsageError, match=r"--learning-curve: 1/4 of the train split.*only captcha"):
        capt.train_captcha(**options, **weights)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The options and the result of a learning curve of 300, 600, 1,200 and 2,400 images."""
    root = tmp_path_factory.mktemp("curve")
    shown = [captcha(number, "train" if number < TRAIN else "val") for number in range(TRAIN + VAL)]
    store = make_words(root / "store", squares, shown)
    options = {"store": store.path, "run_dir": root / "run", "epochs": 3, "hyperparameters": SETTINGS}
    return options, capt.train_captcha(**options, learning_curve=True, target_exact_match=0.999)


@pytest.mark.slow
def test_the_sizes_are_runs_of_their_own_with_equal_steps(trained, capsys):
    _, result = trained
    curve = result["learning_curve"]
    sizes, run = curve["sizes"], Path(result["run_dir"])
    assert [one["fraction"] for one in sizes] == ["1/8", "1/4", "1/2", "1"]
    assert sizes[-1]["labels"] == TRAIN
    assert all(abs(one["labels"] / TRAIN - Fraction(one["fraction"])) < 0.03 for one in sizes)
    assert {one["evaluated"] for one in sizes} == {VAL}
    assert all(one["exact_match"] == 1 - one["errors"] / VAL for one in sizes)
    runs = [Path(one["run_dir"]) for one in sizes]
    assert runs == [
        run / "learning_curve" / "1-of-8",
        run / "learning_curve/1-of-4",
        run / "learning_curve/1-of-2",
        run,
    ]
    keys = [{key.tobytes() for key in read_training_images(one)} for one in runs]
    assert all(few < many for few, many in pairwise(keys))
    steps = [(one / "metrics.jsonl").read_text().count("\n") for one in runs]
    assert steps == [3, 3, 3, 3]
    assert [read_metadata(one).training.steps_per_epoch for one in runs] == [TRAIN // 16] * 3 + [None]
    stored = json.loads((run / "learning_curve" / "learning_curve.json").read_text())
    assert stored == {name: value for name, value in curve.items() if name != "figure_path"}
    assert Path(curve["figure_path"]).stat().st_size > 1000
    # The sizes are evaluated like any run.
    assert capt.evaluate(runs=runs[1], num_examples=0)["greedy"]["correct"] == VAL - sizes[1]["errors"]
    print_trained(result)
    assert curve["statement"] in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_the_same_command_trains_nothing_anew_and_the_target_may_change(trained):
    options, before = trained
    result = capt.train_captcha(**options, learning_curve=True, target_exact_match=0.5)
    assert result["resumed_at"] == result["steps"] == before["steps"]
    assert result["learning_curve"]["sizes"] == before["learning_curve"]["sizes"]
    assert (result["learning_curve"]["status"], result["learning_curve"]["more_labels"]) == ("reached", None)
    assert capt.train_captcha(**options)["resumed_at"] == before["steps"]


@pytest.mark.slow
def test_a_fraction_of_other_images_or_settings_is_not_reused(trained, tmp_path):
    options, before = trained
    run_dir = Path(shutil.copytree(before["run_dir"], tmp_path / "run"))
    changed = {**options, "run_dir": run_dir, "hyperparameters": {**SETTINGS, "dropout": 0.2}}
    with pytest.raises(StoreError, match="dropout"):
        capt.train_captcha(**changed, learning_curve=True)
    shutil.rmtree(run_dir / "learning_curve" / "1-of-4")
    shutil.copytree(run_dir / "learning_curve" / "1-of-8", run_dir / "learning_curve" / "1-of-4")
    with pytest.raises(StoreError, match="1-of-4: the directory contains another run"):
        capt.train_captcha(**{**options, "run_dir": run_dir}, learning_curve=True)
    shown = [captcha(number, "train" if number < TRAIN else "val") for number in range(TRAIN + VAL)]
    # The last validation label is another one.
    other = make_words(tmp_path / "store", squares, [*shown[:-1], replace(shown[-1], word="an")])
    with pytest.raises(StoreError, match="digest of the validation split"):
        capt.train_captcha(**{**options, "store": other.path}, learning_curve=True)
