import json
import math
import shutil

import numpy as np
import pytest

import capt
from features.extractors.extraction import EncodedImage
from schemas.errors import CorruptFileError, RecordError, UsageError
from trainer.evaluation.attention_faithfulness import WordEffect, summarize_effects
from trainer.evaluation.evaluate import print_evaluation
from trainer.runs.directory import FROZEN_EXTRACTOR
from trainer.runs.run import load_run

SIZES = {"units": 48, "embedding_dim": 32, "attention_dim": 32, "projection_dim": 32, "output_dim": 48}


@pytest.fixture(scope="module")
def root(squares, tmp_path_factory):
    """A folder with a store of pictures that lie on the disk, and a run with attention."""
    root, shown = tmp_path_factory.mktemp("attention"), squares.pictures(64)
    squares.write_pictures(root / "images", shown)
    store = squares.create_store(root / "store")
    squares.add_features(store, shown)
    squares.add_captions(store, shown)
    squares.add_dataset(store, shown, folder=root / "images")
    train(store, root / "run", "soft_attention", epochs=8)
    return root


@pytest.fixture
def trained(root):
    return root / "run"


def train(store, run, model, epochs):
    options = {**SIZES, "learning_rate": 0.01} if model == "soft_attention" else {}
    options |= {"batch_size": 32, "num_sample_captions": 0}
    capt.train_captioner(store=store.path, run_dir=run, model=model, epochs=epochs, hyperparameters=options, verbose=0)


def evaluate(run, **options):
    return capt.evaluate(runs=run, split="val", **options)


def test_each_word_of_the_captions_is_measured_once(trained, capsys):
    evaluated = evaluate(trained, attention=4)
    measured = evaluated["attention"]
    assert (measured["images"], measured["unreadable"]) == (4, 0)
    words = measured["words"]
    classes = ("function", "colours", "background", "verbs", "nouns", "other")
    assert sum(words[name]["words"] for name in classes) == words["all"]["words"] > 8
    low, high = words["all"]["interval"]
    assert low <= words["all"]["difference"] <= high
    assert words["all"]["difference"] == pytest.approx(words["all"]["attended_drop"] - words["all"]["random_drop"])
    print_evaluation(evaluated)
    assert "most attended region" in capsys.readouterr().out
    assert "most attended region" in (trained / "evaluation" / "val" / "predictions.html").read_text()
    assert json.loads((trained / "evaluation" / "val" / "scores.json").read_text())["attention"]["grid"] >= 2


def test_the_same_seed_blanks_the_same_regions(trained):
    first, second, other = (
        evaluate(trained, attention=3, num_examples=0, seed=seed)["attention"]["words"] for seed in (1, 1, 2)
    )
    assert first == second
    assert first["all"]["random_drop"] != other["all"]["random_drop"]
    assert first["all"]["attended_drop"] == pytest.approx(other["all"]["attended_drop"], abs=1e-5)


def test_log_probabilities_of_words_sum_to_the_score_of_the_caption(trained, shown):
    run = load_run(trained)
    images = [EncodedImage(b"", lambda picture=picture: picture.data) for picture in shown[:3]]
    captions = list(run.caption_encoded(images))
    scores = list(run.score_words(zip(images, [caption.words for caption in captions], strict=True)))
    for caption, words in zip(captions, scores, strict=True):
        assert len(words) == len(caption.words)
        # The score also includes the end token, and excludes tokens that are never generated.
        assert caption.score <= words.sum() + 0.01


def test_a_failed_image_costs_no_other(trained, shown):
    run = load_run(trained)
    data = [shown[0].data, b"no image", shown[1].data]
    images = [(EncodedImage(b"", lambda one=one: one), ("a", "square")) for one in data]
    first, failed, last = run.score_words(images)
    assert isinstance(failed, RecordError)
    assert first.shape == last.shape == (2,)


def test_an_image_that_is_gone_is_counted(root, trained):
    path = max((root / "images").iterdir())
    data = path.read_bytes()
    path.unlink()
    try:
        measured = evaluate(trained, attention=100, num_examples=0)["attention"]
    finally:
        path.write_bytes(data)
    assert (measured["images"], measured["unreadable"]) == (15, 1)


def test_models_without_attention_are_refused_before_the_evaluation(squares, tmp_path):
    store = squares.make_store(tmp_path / "store", squares.pictures(32), pooled=True)
    train(store, tmp_path / "run", "nic", epochs=1)
    with pytest.raises(UsageError, match="--attention: the model nic has no attention"):
        evaluate(tmp_path / "run", attention=2)


def test_a_run_that_cannot_extract_features_is_refused_before_the_evaluation(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    (run / FROZEN_EXTRACTOR).unlink()
    with pytest.raises(CorruptFileError, match="the extractor is missing"):
        evaluate(run, attention=2)
    assert not (run / "evaluation").exists()


def test_recognizers_are_refused(words_run):
    with pytest.raises(UsageError, match="--attention"):
        evaluate(words_run[0], attention=2)


def test_effects_are_summarized_by_class_and_by_correctness():
    effects = [
        WordEffect(0, "a", False, 0.0, 0.0),
        WordEffect(0, "red", False, 2.0, 0.5),
        WordEffect(0, "dog", True, 1.0, 1.5),
        WordEffect(1, "grass", False, 0.5, 0.0),
    ]
    summary = summarize_effects(effects)
    assert summary["all"]["words"] == 4
    assert summary["colours"] == {
        "words": 1,
        "attended_drop": 2.0,
        "random_drop": 0.5,
        "difference": 1.5,
        "interval": (1.5, 1.5),
        "attended_greater": 1.0,
    }
    assert summary["background"]["difference"] == 0.5
    assert summary["verbs"] == {"words": 0}
    assert summary["wrong content words"]["difference"] == -0.5
    assert summary["correct content words"]["words"] == 2
    assert math.isclose(summary["all"]["difference"], np.mean([0, 1.5, -0.5, 0.5]))
