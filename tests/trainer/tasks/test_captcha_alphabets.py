"""Recognizers of every character set, label length and image size."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import capt
from features.text.charset import Charset
from schemas.errors import CaptError, UsageError
from tests.trainer.labels import ALPHABETS, labelled_image, labelled_images, width_of
from tests.trainer.words import SMALL, make_words
from trainer.data.captcha_data import LabelledImages
from trainer.data.label_limits import LabelLimits
from trainer.data.training_data import TrainingData
from trainer.runs.metadata import METADATA, read_metadata
from trainer.runs.run import load_run
from trainer.tasks.captcha import CaptchaTask, check_held_out_labels

ALL = tuple(label for labels in ALPHABETS.values() for label in labels)
SHORT = ("007", "ab", "bb7")
TINY = {**{name: value for name, value in SMALL.items() if name != "max_label_length"}, "filters": (4, 8), "units": 8}


def store_of(root, squares, labels, count, **options):
    images = labelled_images(labels, count, **options)
    return make_words(root, squares, images, size=(16, width_of(labels))), images


def train(store, run_dir, **options):
    return capt.train_captcha(store=store.path, run_dir=run_dir, **{"epochs": 1, "steps_per_epoch": 1, **options})


@pytest.fixture(scope="module")
def every(squares, tmp_path_factory):
    """A run after one step on labels of all alphabets, its images, and the result of training.

    Of four images of val, one has an unknown character and one is longer than the train labels.
    """
    root, size = tmp_path_factory.mktemp("alphabets"), (16, width_of(ALL))
    images = labelled_images(ALL, len(ALL))
    images += [
        labelled_image(len(ALL) + number, label, size, "val")
        for number, label in enumerate(("ab", "0Ω", "7" + 10 * "ab", "باب"))
    ]
    store = make_words(root / "store", squares, images, size=size)
    result = train(store, root / "run", hyperparameters=TINY)
    return load_run(root / "run"), images, result


@pytest.fixture(scope="module")
def short(squares, tmp_path_factory):
    """A store of the labels SHORT, and a run after one step on it."""
    root = tmp_path_factory.mktemp("short")
    store, _ = store_of(root / "store", squares, SHORT, 16)
    train(store, root / "run", hyperparameters=TINY)
    return store, load_run(root / "run")


def test_labels_are_unknown_if_the_recognizer_cannot_output_their_characters(short):
    _, run = short
    assert CaptchaTask().oov_rate(run, ["ba", "70a", "cab", "7777777"]) == 0.25


def test_the_charset_and_the_length_are_those_of_the_train_labels(every):
    run, _, _ = every
    recorded = json.loads((run.path / METADATA).read_text())["architecture"]
    assert recorded["charset"] == "".join(sorted(set("".join(ALL))))
    assert recorded["max_label_length"] == 20
    assert run.metadata.target_counts["characters"] == len(recorded["charset"])
    assert run.labels == tuple(sorted(set(ALL)))


@pytest.mark.slow
def test_the_saved_model_returns_labels_and_confidences_of_every_alphabet(every, tmp_path):
    uncalibrated, images, _ = every
    run = calibrate(uncalibrated, tmp_path / "run", temperature=2.5)
    capt.export(run=run.path, out=tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    made = served(images=tf.constant([*(one.data for one in images), b"no image"]))
    texts = [text.decode() for text in made["labels"].numpy()]
    expected = list(run.recognize_many([one.data for one in images]))
    assert texts == [*(one.text for one in expected), ""]
    assert np.isnan(made["confidence"].numpy()[-1])
    for one, score, row in zip(
        expected, made["confidence"].numpy(), made["character_confidence"].numpy(), strict=False
    ):
        assert score == pytest.approx(one.confidence, abs=1e-5)
        np.testing.assert_allclose(row[: len(one.text)], one.character_confidence, atol=1e-4)
        assert not row[len(one.text) :].any()


def calibrate(run, path, temperature):
    """A copy of a run with another temperature."""
    shutil.copytree(run.path, path)
    record = json.loads((path / METADATA).read_text())
    record["calibration"]["temperature"] = temperature
    (path / METADATA).write_text(json.dumps(record))
    return load_run(path)


def test_four_validation_images_are_too_few_to_calibrate(every):
    run, _, result = every
    none = dict.fromkeys(("ece", "ece_uncalibrated", "character_ece", "character_ece_uncalibrated"))
    assert result["calibration"] == {"images": 4, "temperature": 1, **none}
    assert run.temperature == 1
    assert "only 4 validation images" in run.confidence_note


def test_every_label_of_the_lexicon_can_be_read(every):
    run, images, _ = every
    result = capt.recognize(run=run.path, images=[str(write(run, images[0]))], decoding_strategy="lexicon")
    (row,) = result["results"]
    assert row["text"] in ALL
    assert len(row["character_confidence"]) == len(row["text"])
    assert row["confidence"] == pytest.approx(np.exp(row["score"]))
    json.dumps(result)


def write(run, image):
    path = run.path / "image.png"
    path.write_bytes(image.data)
    return path


def test_held_out_labels_that_cannot_be_read_count_as_wrong_and_are_told(every):
    run, _, result = every
    assert result["images"]["val"] == 4
    assert result["unrecognizable_labels"] == {"train": 0, "val": 2, "test": 0}
    assert result["val_exact_match"] <= 0.5
    scores = capt.evaluate(str(run.path), split="val")
    assert scores["images"] == 4
    assert scores["unknown_characters"] == {"Ω": 1}
    assert "&#x27;Ω&#x27;" in (run.path / "evaluation" / "val" / "recognition_errors.html").read_text()


def test_the_reasons_are_told_in_one_line(caplog):
    limits = LabelLimits(Charset.from_labels(["ab"]), max_length=2)
    splits = {
        split: labelled(labels) for split, labels in (("train", ["ab"]), ("val", ["a", "é", "aba"]), ("test", []))
    }
    check_held_out_labels(limits, TrainingData(splits), None)
    assert caplog.messages == [
        "val: 2 of 3 labels cannot be recognized and count as wrong: 1 have characters that the train labels lack "
        "('é'), 1 are longer than 2 characters."
    ]


def labelled(labels):
    count = len(labels)
    names = tuple(("captcha", f"a{number}") for number in range(count))
    return LabelledImages(names, tuple(labels), np.zeros((count, 32), np.uint8), np.zeros(count, np.int64))


def test_a_validation_split_without_a_readable_label_is_refused(squares, tmp_path):
    images = labelled_images(SHORT, 9, held_out=2)
    changed = [*images[:-2], *(replace(one, word="xyz") for one in images[-2:])]
    store = make_words(tmp_path / "store", squares, changed, size=(16, width_of(SHORT)))
    with pytest.raises(CaptError, match=r"no label of the val split can be recognized: 2 have .*'x' 'y' 'z'"):
        train(store, tmp_path / "run", hyperparameters=TINY)
    assert not (tmp_path / "run").exists()


def test_images_too_narrow_for_ctc_are_refused_before_training(squares, tmp_path):
    images = [labelled_image(number, "7777777", (16, 40), "train") for number in range(4)]
    store = make_words(tmp_path / "store", squares, images, size=(16, 40))
    with pytest.raises(UsageError, match=r"'7777777' needs 13 time steps.*40 pixels wide have 10.*--width 52 or more"):
        train(store, tmp_path / "run", hyperparameters=TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_charset_may_have_more_characters_than_the_train_labels(short, tmp_path):
    store, _ = short
    train(store, tmp_path / "run", hyperparameters={**TINY, "charset": "cba7890", "max_label_length": 6})
    config = read_metadata(tmp_path / "run").config
    assert (config.charset, config.max_label_length) == ("0789abc", 6)


@pytest.mark.slow
def test_a_warm_start_keeps_the_weights_of_shared_characters_and_positions(short, squares, tmp_path):
    _, cold = short
    longer = ("70a", "Ab7b", "b")
    store, _ = store_of(tmp_path / "store", squares, longer, 6)
    slow = {**TINY, "learning_rate": 1e-9, "ema_momentum": 0.0}
    train(store, tmp_path / "run", hyperparameters=slow, warm_start_from=cold.path)
    warm = load_run(tmp_path / "run")
    old, new = ("", *cold.metadata.config.charset), ("", *warm.metadata.config.charset)
    assert (old, new) == (("", *"07ab"), ("", *"07Aab"))
    before, after = ({weight.path: np.array(weight) for weight in run.model.weights} for run in (cold, warm))
    for layer in ("cells", "attention", "ctc"):
        for name in ("kernel", "bias"):
            theirs, ours = (find(weights, f"{layer}/{name}") for weights in (before, after))
            theirs, ours = (one.reshape(*one.shape[:-1], -1, len(ids)) for one, ids in ((theirs, old), (ours, new)))
            for character in old:
                np.testing.assert_allclose(
                    ours[..., new.index(character)], theirs[..., old.index(character)], atol=1e-6
                )
    theirs, ours = (find(weights, "positions/score/kernel") for weights in (before, after))
    assert (theirs.shape[1], ours.shape[1]) == (3, 4)
    np.testing.assert_allclose(ours[:, :3], theirs, atol=1e-6)


def find(weights, name):
    (found,) = [value for path, value in weights.items() if path.endswith(name)]
    return found


def test_a_fallback_label_has_characters_of_the_run(every, tmp_path):
    run, _, _ = every
    with pytest.raises(UsageError, match=r"--fallback-label qv: the recognizer's labels never have 'q' 'v'"):
        capt.predict_captcha(
            run=run.path, images=[str(tmp_path)], ids="0:1", output=tmp_path / "labels.txt", fallback_label="qv"
        )


@pytest.mark.slow
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_labels_of_every_alphabet_length_and_size_are_learned(squares, tmp_path, alphabet):
    labels = ALPHABETS[alphabet]
    store, images = store_of(tmp_path / "store", squares, labels, 240, held_out=60)
    options = {**TINY, "filters": (8, 24), "units": 24, "augment_channel_permutation": False}
    result = train(store, tmp_path / "run", epochs=12, steps_per_epoch=50, hyperparameters=options)
    assert result["val_exact_match"] >= 0.95
    (confidence,) = [one.confidence for one in load_run(tmp_path / "run").recognize_many([images[-1].data])]
    assert confidence > 0.5
