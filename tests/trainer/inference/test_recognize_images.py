import csv
import json
import shutil
import zipfile
from pathlib import Path

import pytest

import capt
from features.store import open_store
from schemas.errors import CaptError, CorruptFileError, NoUsableImageError, RecordError, UsageError
from tests.trainer.words import WORDS, put_images
from trainer.decoding.label_decoder import Prediction
from trainer.inference.image_inputs import ImageInput, print_results
from trainer.inference.open_images import OpenImage, write_open_images
from trainer.inference.recognize_images import print_recognized
from trainer.runs.metadata import METADATA
from trainer.runs.recognizer_run import STRATEGIES, RecognizedImage, RecognizerRun
from trainer.runs.run import load_run, open_run


@pytest.fixture(scope="module")
def run(words_run):
    return load_run(words_run[0])


def test_files_and_stored_pixels_give_equal_predictions(run, words_store, captchas):
    table = words_store.feature_tables()[0]
    stored = run.recognize_pixels(table.get_many([captcha.key for captcha in captchas]))
    for how in STRATEGIES:
        read_now = list(run.recognize_many([captcha.data for captcha in captchas], how))
        assert [one.text for one in read_now] == [each.by(how).text for each in stored]
        assert [one.score for one in read_now] == pytest.approx([each.by(how).score for each in stored], abs=1e-4)


def test_lexicon_predictions_are_training_labels_and_beam_is_at_least_as_probable_as_greedy(run, captchas):
    for one in captchas[:20]:
        assert run.recognize(one.data, "lexicon").text in WORDS
        assert run.recognize(one.data, "beam").score >= run.recognize(one.data).score - 1e-5


def test_files_directories_and_archives_are_recognized_and_a_corrupt_one_does_not_affect_others(
    run, captchas, tmp_path, capsys
):
    folder = put_images(tmp_path / "folder", captchas[:2])
    (folder / "a9.png").write_bytes(b"no picture")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("words_captcha/a3.png", captchas[3].data)
    result = capt.recognize(
        run=run.path,
        images=[str(folder), str(tmp_path / "z.zip"), str(tmp_path / "none.png")],
        decoding_strategy="lexicon",
    )
    names = ["folder/a0.png", "folder/a1.png", "folder/a9.png", "z.zip/words_captcha/a3.png", "none.png"]
    assert [row["image"] for row in result["results"]] == [str(tmp_path / name) for name in names]
    assert ["error" in row for row in result["results"]] == [False, False, True, False, True]
    first = result["results"][0]
    assert (first["text"], first["score"]) == (first["lexicon"]["text"], first["lexicon"]["score"])
    assert first["greedy"]["text"] == run.recognize(captchas[0].data).text
    values = {"text", "score", "confidence", "character_confidence"}
    assert set(first) == {"image", *values, *STRATEGIES}
    assert all(set(first[strategy]) == values for strategy in STRATEGIES)
    print_results(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder}/a0.png\t{first['text']}"
    assert "unsupported" in lines[2]


def test_labels_of_low_confidence_are_left_open_and_their_images_can_be_labelled(run, captchas, tmp_path, capsys):
    folder = put_images(tmp_path / "images", captchas[:12])
    put_images(tmp_path / "images" / "deeper", captchas[12:16])
    (folder / "deeper" / "a0.png").write_bytes(captchas[16].data)
    request = {"run": run.path, "images": [str(folder)]}
    confidences = sorted(row["confidence"] for row in capt.recognize(**request)["results"])
    threshold, out = confidences[7], tmp_path / "open"
    result = capt.recognize(**request, min_confidence=threshold, open_dir=out)
    left_open = [row for row in result["results"] if row["confidence"] < threshold]
    assert (result["open"], len(left_open)) == (7, 7)
    assert all(row["text"] == "" and row["prediction"] == row["greedy"]["text"] for row in left_open)
    assert all(row["text"] and "prediction" not in row for row in result["results"] if row["confidence"] >= threshold)
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["image", "label", "confidence"]] * 7
    assert {path.name for path in out.iterdir()} == {"labels.csv", *(row["image"] for row in rows)}
    for row, one in zip(rows, left_open, strict=True):
        assert (out / row["image"]).read_bytes() == Path(one["image"]).read_bytes()
        assert (row["label"], float(row["confidence"])) == (
            one["prediction"],
            pytest.approx(one["confidence"], abs=1e-4),
        )
    print_recognized(result)
    assert "7 of 17 labels are left open" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--open-dir"):
        capt.recognize(**request, min_confidence=threshold, open_dir=out)


def test_a_label_without_a_character_is_open_at_any_confidence(run, captchas, tmp_path, monkeypatch):
    results = iter([Prediction("", -1e-3), Prediction("an", -1e-3), Prediction("", -1e-3), Prediction("an", -1e-3)])
    monkeypatch.setattr(
        type(run), "recognize_all_strategies", lambda _, images: [RecognizedImage(*3 * [next(results)]) for _ in images]
    )
    request = {"run": run.path, "images": [str(put_images(tmp_path / "images", captchas[:2]))]}
    result = capt.recognize(**request, min_confidence=0.5)
    assert [(row["text"], row.get("prediction")) for row in result["results"]] == [("", ""), ("an", None)]
    assert result["open"] == 1
    assert "open" not in capt.recognize(**request)


def test_results_are_kept_if_an_open_image_cannot_be_copied(run, captchas, tmp_path, monkeypatch):
    folder = put_images(tmp_path / "images", captchas[:3])
    request = {"run": run.path, "images": [str(folder)], "min_confidence": 1}
    expected = capt.recognize(**request)
    recognize = RecognizerRun.recognize_all_strategies

    def remove_one(run, images):
        yield from recognize(run, images)
        (folder / "a1.png").unlink()

    monkeypatch.setattr(RecognizerRun, "recognize_all_strategies", remove_one)
    with pytest.raises(CaptError, match=r"a1\.png: the image cannot be copied") as caught:
        capt.recognize(**request, open_dir=tmp_path / "open")
    assert caught.value.summary == expected
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_labels_are_printed_if_the_open_images_cannot_be_written(run, captchas, tmp_path, commands):
    folder = put_images(tmp_path / "images", captchas[:3])
    labels = [row["text"] for row in capt.recognize(run=run.path, images=[str(folder)], min_confidence=1)["results"]]
    request = ("recognize", run.path, folder, "--min-confidence", "1", "--open-dir", "/sys/capt-open")
    done = commands.capt(*request)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{folder}/a{number}.png\t{label}" for number, label in zip(range(3), labels, strict=True)
    ]
    assert done.stderr.splitlines()[-1].startswith("capt: --open-dir /sys/capt-open: ")
    assert commands.capt(*request, "--quiet").stdout == ""


def test_a_confidence_that_is_not_calibrated_is_announced(run, captchas, tmp_path, caplog):
    images = [str(put_images(tmp_path / "images", captchas[:1]))]
    shutil.copytree(run.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / METADATA).read_text())
    record["calibration"]["checkpoint"] = "00000001"
    (tmp_path / "run" / METADATA).write_text(json.dumps(record))
    capt.recognize(run=run.path, images=images, min_confidence=0.5)
    capt.recognize(run=tmp_path / "run", images=images)
    assert not [one for one in caplog.records if one.name == "capt.inference"]
    request = {"run": tmp_path / "run", "images": images, "min_confidence": 0.5}
    capt.recognize(**request)
    capt.predict_captcha(**request, ids="0:1", output=tmp_path / "answers.txt")
    messages = [one.getMessage() for one in caplog.records if one.name == "capt.inference"]
    assert [message.startswith("--min-confidence 0.5: ") for message in messages] == [True] * 2


def test_the_corrected_labels_of_open_images_are_a_dataset(run, captchas, tmp_path):
    images = [captchas[number] for number in range(10)]
    folder, out = put_images(tmp_path / "images", images), tmp_path / "open"
    capt.recognize(run=run.path, images=[str(folder)], min_confidence=1, open_dir=out)
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    words = {f"{one.image_id}.png": one.word for one in images}
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": words[row["image"]]} for row in rows)
    store = tmp_path / "store"
    options = {"images": [str(out)], "labels": str(out / "labels.csv"), "dataset_name": "open", "split_ratios": "1,0,0"}
    prepared = capt.prepare_captcha(store=store, **options, height=24, width=64)
    labels = {row["image_id"]: row["word"] for row in open_store(store).dataset("open").labels().to_pylist()}
    assert (labels, prepared["failed"]) == ({row["image"]: words[row["image"]] for row in rows}, 0)


def test_the_options_of_open_labels_are_checked(run, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match=r"--open-dir .*: the directory is in"):
        capt.recognize(
            run=run.path, images=[str(tmp_path / "images")], open_dir=tmp_path / "images" / "a", min_confidence=1
        )
    for value in (0, 1.5, -1):
        with pytest.raises(UsageError, match="--min-confidence"):
            capt.recognize(run=run.path, images=["a.png"], min_confidence=value)
    with pytest.raises(UsageError, match="--open-dir: this option requires --min-confidence"):
        capt.recognize(run=run.path, images=["a.png"], open_dir=tmp_path / "open")


def test_names_of_copies_are_safe_and_distinct(tmp_path):
    names = [
        "x/a.png",
        "y/A.png",
        "z.zip/a.png",
        "x/a.3.png",
        "v/a.png",
        "../..",
        "labels.csv",
        "https://host/c.php?x=/../d",
        "é b\n.jpg",
    ]
    images = [OpenImage(ImageInput(name, name.encode), Prediction("ab", -1.0)) for name in [*names, 80 * "é" + ".png"]]
    write_open_images(tmp_path / "open", images)
    with (tmp_path / "open" / "labels.csv").open(newline="") as file:
        written = [row["image"] for row in csv.DictReader(file)]
    assert written[:5] == ["a.png", "A.2.png", "a.3.png", "a.3.2.png", "a.4.png"]
    assert written[6:9] == ["labels_csv", "c_php", "é_b_.jpg"]
    assert len({name.casefold() for name in written}) == len(images)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"labels.csv", *written}
    assert [(tmp_path / "open" / name).read_bytes().decode() for name in written] == [one.image.name for one in images]


def test_invalid_requests_are_errors(run, words_run, captchas):
    with pytest.raises(UsageError, match="--decoding-strategy: "):
        capt.recognize(run=run.path, images=["a.png"], decoding_strategy="best")
    with pytest.raises(UsageError, match="PATH: "):
        capt.recognize(run=run.path, images=[])
    with pytest.raises(UsageError, match="capt recognize"):
        capt.caption(run=words_run[0], images=["a.png"])
    with pytest.raises(RecordError, match="decode: unsupported"):
        run.recognize(b"no picture")


def test_a_captioner_cannot_recognize(store, tmp_path):

    sizes = {"units": 8, "embedding_dim": 8, "attention_dim": 8, "projection_dim": 8, "output_dim": 8}
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=sizes)
    with pytest.raises(UsageError, match=r"the run captions images"):
        capt.recognize(run=tmp_path / "run", images=["a.png"])


def test_missing_training_labels_are_an_error(words_run, tmp_path):
    shutil.copytree(words_run[0], tmp_path / "run")
    (tmp_path / "run" / "words.txt").write_text("an\n")
    with pytest.raises(CorruptFileError, match="expected 10, got 1"):
        _ = load_run(tmp_path / "run").labels
    (tmp_path / "run" / "words.txt").unlink()
    with pytest.raises(CorruptFileError, match="are missing"):
        _ = load_run(tmp_path / "run").labels


def test_a_run_opens_once(run):
    from trainer.runs.recognizer_run import RecognizerRun

    assert open_run(run, RecognizerRun) is run


def test_a_command_without_a_readable_image_fails(run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(NoUsableImageError) as caught:
        capt.recognize(run=run.path, images=[str(tmp_path / "bad.png"), str(tmp_path / "none.png")])
    assert len(caught.value.summary["results"]) == 2
