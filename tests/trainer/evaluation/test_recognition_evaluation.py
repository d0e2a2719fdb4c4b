import json

import numpy as np
import pytest
from PIL import Image

import capt
from schemas.errors import CaptError, UsageError
from tests.trainer.words import WORDS, add_words, make_words, put_images, truth_lines
from trainer.evaluation.evaluate import print_evaluation
from trainer.metrics.calibration import expected_calibration_error
from trainer.runs.run import load_run


@pytest.fixture(scope="module")
def run(words_run, words_store):
    return load_run(words_run[0])


@pytest.fixture(scope="module")
def truth(captchas, tmp_path_factory):
    path = tmp_path_factory.mktemp("truth") / "truth.txt"
    path.write_text(truth_lines(captchas))
    return path


@pytest.fixture(scope="module")
def scored(run, truth):
    return capt.evaluate(runs=run.path, labels=truth)


def test_words_of_the_unlabelled_split_are_scored_by_a_file_of_truth(scored, run, captchas):
    held_out = [one for one in captchas if one.split == "test"]
    right = sum(run.recognize(one.data).text == one.word for one in held_out)
    listed = sum(run.recognize(one.data, "lexicon").text == one.word for one in held_out)
    assert (scored["task"], scored["split"], scored["images"]) == ("captcha", "test", 40)
    assert (scored["greedy"]["correct"], scored["lexicon"]["correct"]) == (right, listed)
    assert scored["exact_match"] == right / 40
    assert scored["exact_match_lexicon"] == listed / 40
    low, high = scored["greedy"]["interval"]
    assert low <= scored["exact_match"] <= high
    assert scored["outside_lexicon"] == 0
    assert scored["exact_match_lexicon"] >= scored["exact_match"] > 0.4
    assert sum(row["greedy"]["total"] for row in scored["by_length"].values()) == 40
    json.dumps(scored)


def test_the_calibration_error_and_the_coverage_are_those_of_the_predictions(scored, run, captchas):
    held_out = [one for one in captchas if one.split == "test"]
    read = list(run.recognize_many([one.data for one in held_out]))
    confidence = np.array([one.confidence for one in read])
    right = np.array([made.text == one.word for made, one in zip(read, held_out, strict=True)])
    assert scored["temperature"] == run.temperature
    assert scored["ece"] == pytest.approx(expected_calibration_error(confidence, right), abs=1e-3)
    assert scored["ece"] == scored["greedy"]["ece"]
    assert {"ece_uncalibrated", "character_ece", "character_ece_uncalibrated"} < set(scored)
    last = scored["coverage_curve"][-1]
    assert (last["coverage"], last["exact_match"]) == (1, scored["exact_match"])
    for exact_match, point in scored["coverage_by_exact_match"].items():
        if point:
            kept = confidence >= point["min_confidence"] - 1e-5
            assert kept.mean() == pytest.approx(point["coverage"])
            assert right[kept].mean() >= float(exact_match)


def test_what_is_left_behind_can_be_read(scored, run, captchas):
    place = run.path / "evaluation" / "test"
    assert {path.name for path in place.iterdir()} == {
        "images.tsv",
        "scores.json",
        "confusion.png",
        "coverage.png",
        "recognition_errors.html",
    }
    header, *rows = [line.split("\t") for line in (place / "images.tsv").read_text().splitlines()]
    assert header == ["image", "prediction", "references", "beam", "lexicon", "score", "exact_match"]
    said = {one.image_id: one.word for one in captchas}
    assert all(json.loads(row[2]) == [said[row[0]]] for row in rows)
    assert json.loads((place / "scores.json").read_text())["exact_match"] == scored["exact_match"]
    for name in ("confusion.png", "coverage.png"):
        assert Image.open(place / name).size[0] > 300
    page = (place / "recognition_errors.html").read_text()
    assert "exact match by coverage" in page
    assert "coverage by required exact match" in page


def test_without_a_file_the_validation_split_is_scored_and_reported(run, capsys):
    result = capt.evaluate(runs=run.path, num_examples=0)
    assert result["split"] == "val"
    assert result["page_path"] is None
    print_evaluation(result)
    shown = capsys.readouterr().out
    assert "the split test has no references. Evaluated on val instead" in shown
    assert "lexicon allows the labels of the train split only" in shown
    assert "beam search" in shown


@pytest.mark.slow
def test_runs_are_shown_side_by_side_and_free_and_lexicon_both_show(run, words_store, truth, tmp_path):
    capt.train_captcha(
        store=words_store.path,
        run_dir=tmp_path / "other",
        epochs=1,
        hyperparameters={**run.metadata.architecture, "batch_size": 32},
    )
    result = capt.evaluate(runs=[run.path, tmp_path / "other"], labels=truth)
    assert len(result["runs"]) == 2
    assert result["runs"][0]["data_digest"] == result["runs"][1]["data_digest"]
    assert "exact_match" not in result


def test_the_page_shows_the_misread_with_their_images(squares, captchas, tmp_path, truth, run, words_run):
    folder = put_images(tmp_path / "images", captchas)
    store = make_words(tmp_path / "store", squares, captchas)
    import shutil

    shutil.rmtree(store.dataset_root("captcha"))
    add_words(store, captchas, ("train", "val"), folder)
    result = capt.evaluate(runs=run.path, store=store.path, labels=truth, num_examples=3)
    page = (run.path / "evaluation" / "test" / "recognition_errors.html").read_text()
    assert page.count("<article") == min(3, 40 - result["greedy"]["correct"])
    assert "data:image/" in page
    assert "the image is not available" not in page
    capt.evaluate(runs=run.path, store=store.path, labels=truth, examples="best:2,random:4", seed=1)
    page = (run.path / "evaluation" / "test" / "recognition_errors.html").read_text()
    assert page.index("Correct predictions") < page.index("Random predictions")
    assert page.count("<article") == 6
    assert page.count('<blockquote dir="auto">') == 6 * 4


def test_a_word_predicted_wrong_is_counted(run, captchas, tmp_path):
    path = tmp_path / "truth.txt"
    path.write_text(truth_lines([one for one in captchas if one.split == "val"]).replace(" an\n", " zoo\n"))
    result = capt.evaluate(runs=run.path, split="val", labels=path, num_examples=0)
    assert result["differing_labels"] > 0
    assert any("differs from the store" in note for note in result["notes"])
    assert result["outside_lexicon"] == result["differing_labels"]
    assert "zoo" not in WORDS


def test_words_of_what_is_no_image_of_the_split_are_counted(run, captchas, tmp_path):
    path = tmp_path / "truth.txt"
    lines = truth_lines([one for one in captchas if one.split in ("train", "val")])
    path.write_text(f"{lines}a99990 an\na99991 an\n")
    result = capt.evaluate(runs=run.path, split="val", labels=path, num_examples=0)
    others = sum(one.split == "train" for one in captchas) + 2
    assert (result["unused_labels"], result["differing_labels"]) == (others, 0)
    assert len(result["notes"]) == len(capt.evaluate(runs=run.path, split="val", num_examples=0)["notes"]) + 1


def test_options_of_captions_are_refused(run):
    with pytest.raises(UsageError, match="--num-beams: recognizers do not use this option"):
        capt.evaluate(runs=run.path, num_beams=3)
    for flag, options in (("slice", {"slice": "animals"}), ("beside", {"beside": "coco"})):
        with pytest.raises(UsageError, match=f"--{flag}: recognizers do not use this option"):
            capt.evaluate(runs=run.path, **options)
    with pytest.raises(CaptError, match="no image of the split unused has a label"):
        capt.evaluate(runs=run.path, split="unused")


def test_runs_of_different_tasks_are_not_compared(run, store, tmp_path):

    sizes = {"units": 8, "embedding_dim": 8, "attention_dim": 8, "projection_dim": 8, "output_dim": 8}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "squares", epochs=1, hyperparameters=sizes)
    with pytest.raises(UsageError, match="different tasks"):
        capt.evaluate(runs=[run.path, tmp_path / "squares"])
    with pytest.raises(UsageError, match="--labels: captioners do not use"):
        capt.evaluate(runs=tmp_path / "squares", labels="truth.txt")
