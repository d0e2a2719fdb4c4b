import csv
import json
import shutil
import time
import zipfile
from unittest.mock import Mock

import pytest

import capt
from schemas.errors import CaptError, UsageError
from tests.trainer.words import put_images, truth_lines
from trainer.inference.partial_output import PartialOutput
from trainer.runs.metadata import METADATA
from trainer.runs.run import load_run


@pytest.fixture(scope="module")
def run(words_run):
    return load_run(words_run[0])


@pytest.fixture(scope="module")
def folder(captchas, tmp_path_factory):
    return put_images(tmp_path_factory.mktemp("images") / "words_captcha", captchas)


@pytest.fixture(scope="module")
def expected(run, captchas):
    """The file of ids 10 to 90."""
    lines = []
    for one in captchas[10:90]:
        text = run.recognize(one.data).text or run.recognize(one.data, "lexicon").text
        lines.append(f"{one.image_id} {text}\n")
    return "".join(lines)


def test_every_image_of_the_range_has_a_line_in_order(run, folder, tmp_path, expected):
    out = tmp_path / "answers.txt"
    figures = capt.predict_captcha(run=run.path, images=[str(folder)], ids="10:90", output=out)
    assert out.read_text() == expected
    assert figures == {"output": str(out), "ids": 80, "labels_written": 80, "failed": 0, "resumed": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["answers.txt"]


def test_images_are_found_in_archives_and_other_images_are_ignored(run, captchas, tmp_path, expected):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for one in captchas:
            archive.writestr(f"words_captcha/{one.image_id}.png", one.data)
        archive.writestr("words_captcha/cover.png", b"no picture")
    capt.predict_captcha(run=run.path, images=[str(tmp_path / "z.zip")], ids="10:90", output=tmp_path / "answers.txt")
    assert (tmp_path / "answers.txt").read_text() == expected


def test_the_lexicon_strategy_writes_training_labels_only(run, folder, tmp_path):
    capt.predict_captcha(
        run=run.path, images=[str(folder)], ids="0:8", output=tmp_path / "answers.txt", decoding_strategy="lexicon"
    )
    assert all(line.split()[1] in run.labels for line in (tmp_path / "answers.txt").read_text().splitlines())


def test_an_unreadable_image_is_listed_and_no_file_is_written(run, captchas, tmp_path, expected):
    folder, out = put_images(tmp_path / "images", captchas), tmp_path / "answers.txt"
    (folder / "a20.png").write_bytes(b"no picture")
    with pytest.raises(CaptError, match=r"1 images are unreadable: a20\. .*decode: unsupported.*--fallback-label"):
        capt.predict_captcha(run=run.path, images=[str(folder)], ids="10:90", output=out)
    assert not out.exists()
    (folder / "a20.png").write_bytes(captchas[20].data)
    figures = capt.predict_captcha(run=run.path, images=[str(folder)], ids="10:90", output=out)
    assert figures["resumed"] == 79
    assert out.read_text() == expected


def test_the_fallback_label_replaces_missing_and_unreadable_images(run, captchas, tmp_path, expected):
    folder, out = put_images(tmp_path / "images", captchas), tmp_path / "answers.txt"
    (folder / "a20.png").write_bytes(b"no picture")
    (folder / "a30.png").unlink()
    with pytest.raises(
        CaptError, match=r"no file is written, because 1 images are missing: a30\. Check --images and --ids"
    ):
        capt.predict_captcha(run=run.path, images=[str(folder)], ids="10:90", output=out)
    figures = capt.predict_captcha(run=run.path, images=[str(folder)], ids="10:90", output=out, fallback_label="null")
    assert figures["failed"] == 2
    lines, wanted = out.read_text().splitlines(), expected.splitlines()
    assert (lines[10], lines[20]) == ("a20 null", "a30 null")
    assert [line for i, line in enumerate(lines) if i not in (10, 20)] == [
        line for i, line in enumerate(wanted) if i not in (10, 20)
    ]


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(commands, words_run, run, folder, tmp_path, expected):
    out, part = tmp_path / "answers.txt", tmp_path / "answers.txt.part"
    options = ["--images", str(folder), "--ids", "10:90", "--output", str(out)]
    process = commands.start(["predict", "captcha", str(words_run[0]), *options])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if part.exists() and part.read_bytes().count(b"\n") > 1:
            process.kill()
        time.sleep(0.0005)
    process.wait()
    assert not out.exists()
    figures = capt.predict_captcha(run=run.path, images=[str(folder)], ids="10:90", output=out)
    assert 0 < figures["resumed"] < 80
    assert out.read_text() == expected


def test_labels_of_low_confidence_have_no_line_and_their_images_are_copied(run, captchas, tmp_path, expected):
    folder, out = put_images(tmp_path / "images", captchas), tmp_path / "answers.txt"
    read = {one.image_id: run.recognize(one.data) for one in captchas[10:90]}
    sure = sorted(one.confidence for one in read.values())[30]
    request = {"run": run.path, "images": [str(folder)], "ids": "10:90", "output": out, "min_confidence": sure}
    (folder / "a20.png").write_bytes(b"no picture")
    with pytest.raises(CaptError, match="unreadable: a20"):
        capt.predict_captcha(**request, open_dir=tmp_path / "open")
    assert not (tmp_path / "open").exists()
    (folder / "a20.png").write_bytes(captchas[20].data)
    figures = capt.predict_captcha(**request, open_dir=tmp_path / "open")
    lines = out.read_text().splitlines()
    assert [line for line in expected.splitlines() if line in lines] == lines
    assert figures["resumed"] == 79
    assert (figures["labels_written"], figures["open"], figures["ids"]) == (len(lines), 80 - len(lines), 80)
    with (tmp_path / "open" / "labels.csv").open(newline="") as file:
        rows = {row["image"].removesuffix(".png"): row for row in csv.DictReader(file)}
    assert {*rows, *(line.split()[0] for line in lines)} == set(read)
    assert all((tmp_path / "open" / f"{name}.png").read_bytes() == captchas[int(name[1:])].data for name in rows)
    assert all(float(row["confidence"]) <= sure + 1e-3 for row in rows.values())
    truth = tmp_path / "truth.txt"
    truth.write_text(truth_lines(captchas))
    grades = capt.evaluate(answers=str(out), labels=truth, ids="10:90")["answers"][0]
    assert (grades["missing"], grades["invalid"]) == (figures["open"], 0)


def test_a_run_that_is_interrupted_at_its_end_resumes_with_its_open_directory(run, folder, tmp_path, monkeypatch):
    out, open_dir = tmp_path / "answers.txt", tmp_path / "open"
    request = {"run": run.path, "images": [str(folder)], "ids": "10:30", "output": out, "min_confidence": 1}
    with monkeypatch.context() as patch:
        patch.setattr(PartialOutput, "finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            capt.predict_captcha(**request, open_dir=open_dir)
    assert not out.exists()
    written = {path: path.stat().st_mtime_ns for path in open_dir.iterdir()}
    (open_dir / "more.txt").write_text("")
    with pytest.raises(UsageError, match="other contents than open images"):
        capt.predict_captcha(**request, open_dir=open_dir)
    (open_dir / "more.txt").unlink()
    figures = capt.predict_captcha(**request, open_dir=open_dir)
    assert (figures["resumed"], figures["open_dir"]) == (20, str(open_dir))
    assert {path: path.stat().st_mtime_ns for path in open_dir.iterdir()} == written
    assert out.exists()
    with pytest.raises(UsageError, match="already exists"):
        capt.predict_captcha(**request, open_dir=open_dir)


def test_the_output_and_the_images_are_not_in_the_open_directory(run, folder, tmp_path):
    request = {"run": run.path, "images": [str(folder)], "ids": "10:30", "min_confidence": 1}
    for output, open_dir in (
        (tmp_path / "open" / "answers.txt", tmp_path / "open"),
        (tmp_path / "a.txt", folder / "x"),
    ):
        with pytest.raises(UsageError, match="--open-dir"):
            capt.predict_captcha(**request, output=output, open_dir=open_dir)
        assert not output.parent.joinpath(f"{output.name}.part").exists()


@pytest.mark.parametrize("ids", ["10", "10:", "10:10", "20:10", "a10:a20", "-1:3"])
def test_invalid_ranges_are_rejected(run, folder, tmp_path, ids):
    with pytest.raises(UsageError, match=f"--ids: '{ids}' is not a range"):
        capt.predict_captcha(run=run.path, images=[str(folder)], ids=ids, output=tmp_path / "answers.txt")


def test_invalid_fallback_labels_are_rejected(run, folder, tmp_path):
    for word in ("", "Null", "two words"):
        with pytest.raises(UsageError, match="--fallback-label"):
            capt.predict_captcha(
                run=run.path, images=[str(folder)], ids="0:4", output=tmp_path / "answers.txt", fallback_label=word
            )


def test_duplicate_images_are_rejected(run, folder, tmp_path, captchas):
    again = put_images(tmp_path / "again", captchas[:1])
    with pytest.raises(CaptError, match="a0 exists twice"):
        capt.predict_captcha(run=run.path, images=[str(folder), str(again)], ids="0:4", output=tmp_path / "answers.txt")


def test_the_file_has_the_separator_and_line_ends_of_the_label_file(run, folder, captchas, tmp_path, expected):
    tabbed = tmp_path / "run"
    shutil.copytree(run.path, tabbed)
    metadata = json.loads((tabbed / METADATA).read_text())
    assert "label_format" not in metadata
    metadata["label_format"] = {"separator": "\t", "line_end": "\r\n"}
    (tabbed / METADATA).write_text(json.dumps(metadata))
    images, out = put_images(tmp_path / "images", captchas), tmp_path / "answers.txt"
    (images / "a30.png").unlink()
    capt.predict_captcha(run=tabbed, images=[str(images)], ids="10:90", output=out, fallback_label="null")
    lines = expected.splitlines()
    lines[20] = "a30 null"
    assert out.read_bytes().decode() == "".join(line.replace(" ", "\t") + "\r\n" for line in lines)
