"""capt and the network of Keras' OCR example are trained and scored on the same folds of a set."""

import csv
import importlib
import json
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import capt
from features.text.charset import Charset
from schemas.errors import CaptError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EASY = {"charset": "0123456789abcdef", "lengths": "4,4", "width": 100, "height": 40, "num_strokes": "0,1"}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The same images in two layouts: named by their labels, and numbered with a label file."""
    out = tmp_path_factory.mktemp("drawn")
    capt.synth_captcha(out=str(out / "names"), num_images=40, seed=1, layout="names", **EASY)
    capt.synth_captcha(out=str(out / "published"), num_images=40, num_labelled=40, seed=1, **EASY)
    return out


def test_every_image_is_in_the_test_split_of_one_fold_and_a_tenth_of_the_others_in_val(benchmark):
    assign = benchmark("captcha_folds").assign_split
    splits = np.array([[assign(f"{number}.png", fold, 5) for fold in range(1, 6)] for number in range(4000)])
    assert ((splits == "test").sum(axis=1) == 1).all()
    assert (splits == "test").sum(axis=0) == pytest.approx(np.full(5, 800), rel=0.1)
    assert (splits == "val").sum() / (splits != "test").sum() == pytest.approx(0.1, abs=0.02)
    # Pinned, so that results of later versions have the same folds.
    assert [assign(name, 3, 5) for name in ("226md.png", "0.png", "a7.png", "a1.png")] == [
        "train",
        "test",
        "train",
        "test",
    ]


def test_a_label_table_has_every_label_and_split_and_a_split_without_images_is_refused(benchmark, tmp_path):
    folds = benchmark("captcha_folds")
    images = [folds.LabelledImage(f"{number}.png", f"0{number},", {}) for number in range(50)]
    folds.write_label_table(tmp_path / "fold" / "labels.csv", images, 2, 5)
    with (tmp_path / "fold" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["label"]) for row in rows] == [(one.name, one.label) for one in images]
    assert [row["split"] for row in rows] == [folds.assign_split(one.name, 2, 5) for one in images]
    with pytest.raises(CaptError, match="fold 2 of 5"):
        folds.write_label_table(tmp_path / "few.csv", images[:3], 2, 5)
    assert not (tmp_path / "few.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["names", "published"])
def test_recognizers_get_the_splits_of_a_fold_and_what_is_finished_is_kept(
    benchmark, drawn, tmp_path, monkeypatch, layout
):
    peers, folds = benchmark("captcha_peers"), benchmark("captcha_folds")
    calls = []

    def read_labels():
        if layout == "names":
            return {path.name: path.stem for path in root.iterdir()}
        lines = (drawn / layout / "truth.txt").read_text().splitlines()
        return {f"{name}.png": label for name, _, label in (line.partition(" ") for line in lines)}

    def measure_one(fold, images):
        calls.append(("one", fold.number))
        splits = {one.name: folds.assign_split(one.name, fold.number, 2) for one in images}
        assert {one.name: one.split for one in images} == splits
        assert all(one.read().startswith(b"\x89PNG") for one in images)
        assert {one.name: one.label for one in images} == read_labels()
        return {"exact_match": 0.5}

    def measure_other(fold, images):
        calls.append(("other", fold.number))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"exact_match": 0.25}

    monkeypatch.setattr(peers, "RECOGNIZERS", {"one": measure_one, "other": measure_other})
    root = drawn / layout / ("images" if layout == "names" else "words_captcha")
    labels = None if layout == "names" else str(root)
    bench = peers.Peers(str(root), labels, tmp_path / "out", folds=2)
    with pytest.raises(KeyboardInterrupt):
        bench.measure([2])
    figures = bench.measure([2])
    assert calls == [("one", 2), ("other", 2), ("other", 2)]
    assert (figures["input"], figures["failed"], figures["labelled"]) == (40, 0, 40)
    counts = Counter(
        folds.assign_split(one.name, 2, 2) for one in folds.read_images(tmp_path / "out" / "store", str(root))
    )
    expected = {"fold": 2, "images": dict(counts)}
    assert figures["results"] == {
        "one": [{**expected, "exact_match": 0.5}],
        "other": [{**expected, "exact_match": 0.25}],
    }
    with pytest.raises(CaptError, match="epochs"):
        replace(bench, epochs=1).measure([2])


def test_the_table_has_a_row_per_fold_and_the_mean_over_the_folds(benchmark):
    images = {"train": 1440, "val": 160, "test": 400}
    cost = {"images": images, "epochs": 10, "seconds": 90.0, "cpu_seconds": 180.0}
    folds = [
        {"fold": 1, "exact_match": 0.98, "interval": [0.96, 0.99], **cost},
        {"fold": 2, "exact_match": 0.99, "interval": [0.97, 1.0], **cost, "seconds": 30.0, "epochs": 20},
    ]
    lines = benchmark("captcha_peers").table({"keras_ocr": [], "capt": folds}).splitlines()
    assert lines[2:] == [
        "| capt | 1 | 1,440 | 160 | 400 | 10 | 98.00% (96.00%–99.00%) | 1.5 | 3.0 |",
        "| capt | 2 | 1,440 | 160 | 400 | 20 | 99.00% (97.00%–100.00%) | 0.5 | 3.0 |",
        "| capt | mean of 2 | 1,440 | 160 | 400 | 15 | 98.50% | 1.0 | 3.0 |",
    ]


def test_images_of_any_size_and_mode_are_gray_stretched_and_transposed(benchmark):
    ramp = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (30, 1))
    files = []
    for image in (Image.fromarray(ramp), Image.fromarray(ramp).convert("P"), Image.new("RGBA", (20, 90), "#0000")):
        file = BytesIO()
        image.save(file, "png")
        files.append(file.getvalue())
    gray, palette, transparent = benchmark("keras_ocr").load_pixels(files)
    assert (gray.shape, gray.dtype) == ((200, 50, 1), np.uint8)
    assert (np.diff(gray[:, 0, 0].astype(int)) >= 0).all()
    assert (gray == gray[:, :1]).all()
    assert np.abs(gray.astype(int) - palette).max() <= 1
    assert (transparent == 255).all()


def test_repeated_classes_are_one_character_and_blanks_separate_characters(benchmark):
    charset = Charset.from_labels(["ab", "אב"])  # 1: a, 2: b, 3: א, 4: ב
    classes = np.array([[0, 1, 1, 0, 1, 2], [2, 2, 2, 2, 2, 2], [4, 4, 0, 3, 0, 0], [0] * 6])
    assert benchmark("keras_ocr").merge_classes(charset, classes) == ["aab", "b", "אב", ""]


def test_the_peer_has_the_layers_of_the_example_and_as_many_classes_as_the_train_labels_need(benchmark):
    network = benchmark("keras_ocr").KerasOcr(["ab1", "ba"]).network
    assert network.output_shape == (None, 50, 4)
    convolutions = (9 * 32 + 32) + (9 * 32 * 64 + 64)
    recurrences = 2 * 4 * (64 + 128 + 1) * 128 + 2 * 4 * (256 + 64 + 1) * 64
    assert network.count_params() == convolutions + (768 * 64 + 64) + recurrences + (128 * 4 + 4)


@pytest.mark.parametrize("label", ["a" * 26, "ab" * 26])
def test_a_train_label_that_needs_more_than_50_time_steps_is_refused(benchmark, label):
    with pytest.raises(CaptError):
        benchmark("keras_ocr").KerasOcr(["ab", label])


@pytest.mark.slow
def test_both_recognizers_are_trained_on_a_fold(benchmark, drawn, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = [str(drawn / "names" / "images"), str(out), "--folds", "2", "--fold", "1", "--epochs", "1", "--json"]
    monkeypatch.setattr("sys.argv", ["captcha.py", "peers", *arguments])
    program = benchmark("captcha")
    program.main()
    lines = capsys.readouterr().out.splitlines()
    results = json.loads(lines[-1])["results"]
    assert list(results) == ["keras_ocr", "capt"]
    for (one,) in results.values():
        assert (one["fold"], one["epochs"], sum(one["images"].values())) == (1, 1, 40)
        assert one["exact_match"] == one["correct"] / one["images"]["test"]
        assert min(one["seconds"], one["cpu_seconds"]) > 0
    assert results["keras_ocr"][0]["images"] == results["capt"][0]["images"]
    program.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"] == results
    monkeypatch.setattr("sys.argv", ["captcha.py", "peers", *arguments[:3], "3", *arguments[4:]])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert "folds" in str(caught.value.code)
