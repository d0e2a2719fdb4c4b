"""`capt report` describes a run on one page: what its directory and its store contain, and nothing that it computes."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import capt
import tests.trainer.conftest as squares
from features.store import create_store
from schemas.errors import CaptError, CorruptFileError, StoreError, UsageError
from tests.trainer.words import SMALL, make_words, put_images
from tests.trainer.words import captchas as make_captchas
from tests.workflows.show_stores import add_report
from tests.workflows.test_example_pages import Page
from workflows.run_report import print_report

SECTIONS = ["Data", "Training images", "Model", "Settings", "Curves", "Scores", "Errors", "Machine and versions"]
RECOGNIZER_SECTIONS = [*SECTIONS[:6], "coverage by required exact match, %", *SECTIONS[6:]]
NIC = {**squares.TINY_SIZES["nic"], "batch_size": 16, "num_sample_captions": 0, "monitor": "val_cider_d"}


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store of 48 train and 16 validation images that lie on the disk, and an evaluated run."""
    root, shown = tmp_path_factory.mktemp("captioner"), squares.pictures(64)
    (root / "images").mkdir()
    for picture in shown:
        (root / "images" / f"{picture.image_id}.png").write_bytes(picture.data)
    store = create_store(root / "store")
    squares.add_features(store, shown, pooled=True)
    squares.add_captions(store, shown)
    squares.add_dataset(store, shown, folder=root / "images")
    add_report(store, [("1", "ok"), ("2", "failed", "decode", "truncated", "a.png")], "squares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(root / "nothing"))  # without Java, METEOR does not take seconds
        capt.train_captioner(store=store.path, run_dir=root / "run", model="nic", epochs=2, hyperparameters=NIC)
        shutil.copytree(root / "run", root / "fresh")
        capt.evaluate(runs=root / "run", num_examples=0)
    return root


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store of 160 train, 40 validation and 40 test images, and an evaluated run."""
    root, shown = tmp_path_factory.mktemp("recognizer"), make_captchas()
    folder = put_images(root / "images", shown)
    store = make_words(root / "store", squares, shown, ("train", "val", "test"), folder=folder)
    options: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 4, "hyperparameters": SMALL}
    capt.train_captcha(store=store.path, run_dir=root / "run", profile="quick", **options)
    capt.evaluate(runs=root / "run", num_examples=0)
    return root


def read(result: dict[str, Any]) -> Page:
    return Page(Path(result["page_path"]).read_text(encoding="utf-8"))


def sections(result: dict[str, Any]) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", Path(result["page_path"]).read_text(encoding="utf-8"))


def test_the_report_of_a_captioner_has_every_section_with_its_values(captioner: Path) -> None:
    result = capt.report(run=captioner / "run", num_examples=3)
    page = read(result)
    scores = json.loads((captioner / "run/evaluation/val/scores.json").read_text())
    assert result["page_path"] == str(captioner / "run" / "report.html")
    assert (result["task"], result["model"], result["datasets"]) == ("captioner", "nic", ["squares"])
    assert (result["epochs"], result["is_finished"]) == (2, True)
    assert result["records"]["train"] == {"images": 48, "captions": 108}
    assert result["failed"] == 1
    (evaluation,) = result["evaluations"]
    assert (evaluation["split"], evaluation["images"]) == ("val", 16)
    assert evaluation["metrics"]["cider_d"] == scores["cider_d"]
    assert result["errors"] == {"split": "val", "ranked": 16, "shown": 3}
    assert sections(result) == SECTIONS
    low, high = (100 * bound for bound in scores["intervals"]["cider_d"])
    assert f"{100 * scores['cider_d']:.1f} ({low:.1f} to {high:.1f})" in page.text
    assert "train 48 108" in page.text
    assert "squares, features 2 1 0 0 1" in page.text
    assert "decode: truncated" in page.text
    assert "inception_v3" in page.text
    assert f"{result['weights']:,}" in page.text
    # Three samples, three errors, the curves and the layers.
    assert len(page.pictures) == 8
    assert result["notes"] == []


def test_settings_that_differ_from_the_defaults_are_marked(captioner: Path) -> None:
    result = capt.report(run=captioner / "run")
    changed = result["changed_settings"]
    assert changed["units"] == {"value": 16, "default": 512}
    assert changed["epochs"] == {"value": 2, "default": 20}
    assert changed["monitor"] == {"value": "val_cider_d", "default": "val_loss"}
    assert "learning_rate" not in changed
    text = read(result).text
    assert "≠ units 16 (default: 512)" in text
    assert f"{len(changed)} of " in text
    assert "the defaults of the model nic" in text


def test_the_worst_captions_are_first_and_their_wrong_words_are_marked(captioner: Path) -> None:
    result = capt.report(run=captioner / "run", num_examples=2)
    lines = (captioner / "run/evaluation/val/images.tsv").read_text().splitlines()
    names, *rows = [line.split("\t") for line in lines]
    worst = sorted(rows, key=lambda row: (float(row[names.index("cider_d")]), float(row[names.index("bleu_4")])))[:2]
    page = read(result)
    text = page.text.partition("Worst captions by CIDEr-D")[2]
    assert [text.index(f"{row[0]} ") for row in worst] == sorted(text.index(f"{row[0]} ") for row in worst)
    for row in worst:
        assert all(reference in text for reference in json.loads(row[2]))


def test_the_report_of_a_recognizer_shows_labels_confusions_and_the_nearest_profile(recognizer: Path) -> None:
    result = capt.report(run=recognizer / "run", num_examples=4)
    page = read(result)
    scores = json.loads((recognizer / "run/evaluation/test/scores.json").read_text())
    assert result["records"]["train"] == {"images": 160}
    assert result["evaluations"][0]["metrics"]["exact_match"] == scores["exact_match"]
    wrong = 40 - scores["greedy"]["correct"]
    assert result["errors"] == {"split": "test", "ranked": wrong, "shown": 4}
    scores_end = SECTIONS.index("Scores") + 1
    coverage = "coverage by required exact match, %"
    assert sections(result) == [*SECTIONS[:scores_end], coverage, *SECTIONS[scores_end:]]
    assert "the defaults of the profile quick" in page.text
    assert "Confused characters in wrong predictions" in page.text
    assert "num_validation_images" not in result["changed_settings"]
    # Samples, errors, layers, curves, confusions, coverage.
    assert len(page.pictures) == 4 + 4 + 4
    (machine,) = re.findall(r"processor (.*?) memory", page.text)
    assert "cores" in machine


def test_the_report_shows_the_learning_curve(recognizer: Path, tmp_path: Path) -> None:
    run = shutil.copytree(recognizer / "run", tmp_path / "run")
    (run / "learning_curve").mkdir()
    size = {"fraction": "1/2", "labels": 1200, "errors": 8, "evaluated": 40, "exact_match": 0.8, "interval": [0.7, 0.9]}
    curve = {"statement": "About 4,000 more labels for 99%.", "split": "val", "sizes": [size]}
    (run / "learning_curve" / "learning_curve.json").write_text(json.dumps(curve))
    shutil.copy(run / "loss.png", run / "learning_curve" / "learning_curve.png")
    result = capt.report(run=run, num_examples=1)
    page = read(result)
    assert sections(result) == [*RECOGNIZER_SECTIONS[:5], "Learning curve", *RECOGNIZER_SECTIONS[5:]]
    assert "About 4,000 more labels for 99%." in page.text
    assert "1/2 1,200 8 of 40 80.0 (70.0 to 90.0)" in page.text
    (run / "learning_curve" / "learning_curve.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"learning_curve\.json"):
        capt.report(run=run)


def test_the_page_is_one_file_that_prints_in_light_colors(captioner: Path, tmp_path: Path) -> None:
    result = capt.report(run=captioner / "run", output=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert result["page_path"] == str(tmp_path / "page.html")
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page)
    assert "@media print" in page
    assert "@media screen and (prefers-color-scheme: dark)" in page


def test_without_an_evaluation_the_page_names_the_command_and_evaluates_nothing(captioner: Path) -> None:
    result = capt.report(run=captioner / "fresh")
    page = read(result)
    assert (result["evaluations"], result["errors"]) == ([], None)
    assert page.text.count(f"capt evaluate {captioner / 'fresh'}") == 2
    assert sections(result) == SECTIONS
    assert not (captioner / "fresh" / "evaluation").exists()


def test_without_its_store_the_report_says_so_and_goes_on(
    captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(captioner / "run", tmp_path / "run")
    (run / "store.txt").write_text(f"{tmp_path / 'gone'}\n")
    result = capt.report(run=run)
    (note,) = result["notes"]
    assert "the store of the run is not at" in note
    assert "--store" in note
    assert (result["records"], result["failed"], result["samples"]) == (None, None, 0)
    assert "Training images: 48. The store is not available." in read(result).text
    print_report(result)
    printed = capsys.readouterr().out
    assert note in printed
    assert "report.html" in printed
    assert capt.report(run=run, store=captioner / "store")["records"]["train"]["images"] == 48
    with pytest.raises(StoreError, match="gone"):
        capt.report(run=run, store=tmp_path / "gone")


def test_an_image_that_has_changed_is_not_shown(captioner: Path, tmp_path: Path) -> None:
    before = {image: image.read_bytes() for image in (captioner / "images").iterdir()}
    try:
        for image in before:
            image.write_bytes(b"")
        result = capt.report(run=captioner / "run", output=tmp_path / "page.html", num_examples=2)
    finally:
        for image, data in before.items():
            image.write_bytes(data)
    page = read(result)
    assert page.text.count("the image is not available") == 4
    assert len(page.pictures) == 2


def test_an_unfinished_run_is_reported_with_a_notice(captioner: Path, tmp_path: Path) -> None:
    run = shutil.copytree(captioner / "run", tmp_path / "run")
    metadata = (run / "run.json").read_text()
    (run / "run.json").write_text(metadata.replace('"epochs": 2', '"epochs": 5'))
    result = capt.report(run=run)
    assert (result["epochs"], result["is_finished"]) == (2, False)
    assert "Training is not finished: 2 of 5 epochs." in read(result).text


def test_scores_of_an_epoch_that_is_not_the_best_any_more_are_reported(captioner: Path, tmp_path: Path) -> None:
    run = shutil.copytree(captioner / "run", tmp_path / "run")
    path = run / "evaluation" / "val" / "scores.json"
    scores = json.loads(path.read_text())
    assert scores["best_epoch"] == capt.report(run=run)["best_epoch"]
    path.write_text(json.dumps(scores | {"best_epoch": 7}))
    (note,) = capt.report(run=run)["notes"]
    assert note.startswith("The run was trained after its evaluation on val: its best epoch was 7, and is")
    del scores["best_epoch"]  # an evaluation by an earlier version
    path.write_text(json.dumps(scores))
    assert capt.report(run=run)["notes"] == []


def test_evaluations_of_other_datasets_epochs_and_ensembles_have_titles_and_are_last(
    captioner: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(captioner / "run", tmp_path / "run")
    root = run / "evaluation"
    summary = json.loads((root / "val" / "scores.json").read_text())
    others: dict[str, dict[str, Any]] = {
        "on-a+b/val": {"evaluated_datasets": ["a", "b"]},
        "epoch-1/val": {"epoch": 1},
        "epoch-1/on-a/val": {"epoch": 1, "evaluated_datasets": ["a"]},
        "ensemble-0123abcd/val": {"ensemble": ["one", "two"]},
    }
    for name, further in others.items():
        shutil.copytree(root / "val", root / name)
        (root / name / "scores.json").write_text(json.dumps(summary | further))
    result = capt.report(run=run)
    text = read(result).text
    titles = ["val", "val, epoch 1", "val of a, epoch 1", "val of a, b", "val, ensemble of 3 runs"]
    assert [text.index(f" {title} ") for title in titles] == sorted(text.index(f" {title} ") for title in titles)
    assert [one["epoch"] for one in result["evaluations"]] == [None, 1, 1, None, None]
    assert [one["datasets"] for one in result["evaluations"]] == [["squares"]] * 2 + [["a"], ["a", "b"], ["squares"]]
    assert result["evaluations"][-1]["ensemble"] == ["one", "two"]
    assert "16 images of val." in text

    for name in ("val", "epoch-1", "ensemble-0123abcd"):
        shutil.rmtree(root / name)
    result = capt.report(run=run, num_examples=2)
    text = read(result).text
    assert "16 images of val of a, b." in text
    assert "not evaluated" not in text
    # The store lacks these datasets. Images of another dataset with equal names are not theirs.
    assert text.count("the image is not available") == 2


def test_wrong_input_is_one_line(captioner: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the directory does not contain a run"):
        capt.report(run=tmp_path)
    with pytest.raises(UsageError, match=r"not evaluated on test \(evaluated splits: val\).*--split test") as raised:
        capt.report(run=captioner / "run", split="test")
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="this is a directory"):
        capt.report(run=captioner / "run", output=tmp_path)
    begun = shutil.copytree(captioner / "run", tmp_path / "begun")
    shutil.rmtree(begun / "checkpoints")
    with pytest.raises(CorruptFileError, match="no checkpoint yet"):
        capt.report(run=begun)
    (begun / "checkpoints").mkdir()
    state = json.loads((captioner / "run/checkpoints/state.json").read_text())
    state["progress"] |= {"epoch": 0, "step": 3, "history": []}
    (begun / "checkpoints" / "state.json").write_text(json.dumps(state))
    with pytest.raises(CaptError, match="no epoch of the run is finished yet"):
        capt.report(run=begun)


def test_a_corrupt_evaluation_is_one_line(captioner: Path, tmp_path: Path) -> None:
    run = shutil.copytree(captioner / "run", tmp_path / "run")
    table = run / "evaluation" / "val" / "images.tsv"
    table.write_text("image\tprediction\nx\ty\n")
    with pytest.raises(CorruptFileError, match=r"images\.tsv: the file is corrupt: .*references"):
        capt.report(run=run)
    (run / "evaluation" / "val" / "scores.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"scores\.json: the file is corrupt"):
        capt.report(run=run)
