import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from schemas.errors import UsageError
from trainer.evaluation.evaluate import print_evaluation

TRUTH = "".join(f"a{number} word\n" for number in range(100, 110))


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.txt"
    path.write_text(TRUTH)
    return path


def answer(directory, name, text):
    path = directory / "answers" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def counts(graded):
    return {name: graded[name] for name in ("correct", "wrong", "missing", "duplicate", "unknown", "invalid")}


NONE = dict.fromkeys(("wrong", "missing", "duplicate", "unknown", "invalid"), 0)


def test_each_file_of_answers_has_a_row(tmp_path, truth):
    right = answer(tmp_path, "right.txt", TRUTH.replace(" ", "\t").replace("\n", "\r\n"))
    worse = answer(tmp_path, "worse.txt", TRUTH.replace("a105 word", "a105 ward"))
    result = capt.evaluate(answers=[right, worse], labels=truth)
    assert (result["task"], result["labels"], result["notes"]) == ("captcha", 10, [])
    one, other = result["answers"]
    assert (one["file"], one["exact_match"], other["exact_match"]) == (str(right), 1, 0.9)
    assert counts(one) == {**NONE, "correct": 10}
    assert counts(other) == {**NONE, "correct": 9, "wrong": 1}
    low, high = other["interval"]
    assert low < 0.9 < high


def test_missing_duplicate_and_unknown_ids_and_invalid_lines_are_counted_and_named(tmp_path, truth):
    lines = [
        "a100 word",
        "a101 word",
        "a101 word",
        "a102 word",
        "a102 ward",
        "a103,word",
        "a104 WORD",
        "a9 word",
        "a10",
    ]
    file = answer(tmp_path, "one.txt", "\n".join(lines))
    result = capt.evaluate(answers=file, labels=truth)
    (graded,) = result["answers"]
    assert counts(graded) == {"correct": 2, "wrong": 2, "missing": 6, "duplicate": 2, "unknown": 1, "invalid": 2}
    assert graded["examples"] == {
        "missing": ["a103", "a105", "a106", "a107", "a108"],
        "duplicate": ["a101", "a102"],
        "unknown": ["a9"],
        "invalid": ["line 6 ('a103,word')", "line 9 ('a10')"],
    }
    assert f"{file}: missing: a103, a105, a106, a107, a108 and 1 more." in result["notes"]
    json.dumps(result)


def test_answers_and_labels_may_be_tables(tmp_path):
    (tmp_path / "truth.csv").write_text("image,label\nx/a.png,007\nb.png,É\nc.png,null\n")
    file = answer(tmp_path, "one.csv", "file;text\nx/a.png;007\nb.png;E\u0301\nc.png\nd.png;7\n")
    (graded,) = capt.evaluate(answers=file, labels=tmp_path / "truth.csv")["answers"]
    assert counts(graded) == {"correct": 2, "wrong": 0, "missing": 1, "duplicate": 0, "unknown": 1, "invalid": 1}
    assert graded["examples"]["invalid"] == ["4 (too few columns)"]
    pq.write_table(pa.table({"image": ["x/a.png", "b.png"], "label": ["007", "x"]}), tmp_path / "two.parquet")
    (graded,) = capt.evaluate(answers=tmp_path / "two.parquet", labels=tmp_path / "truth.csv")["answers"]
    assert counts(graded) == {"correct": 1, "wrong": 1, "missing": 1, "duplicate": 0, "unknown": 0, "invalid": 0}


def test_only_the_ids_of_the_range_are_graded(tmp_path, truth):
    file = answer(tmp_path, "one.txt", TRUTH)
    result = capt.evaluate(answers=file, labels=truth, ids="108:110")
    assert result["labels"] == 2
    assert counts(result["answers"][0]) == {**NONE, "correct": 2, "unknown": 8}
    with pytest.raises(UsageError, match=r"--labels .*: a110 is in --ids and has no label\. Check --ids and --labels"):
        capt.evaluate(answers=file, labels=truth, ids="108:112")
    with pytest.raises(UsageError, match="a110 is in --ids and has no label"):
        capt.evaluate(answers=file, labels=truth, ids=f"108:{10**15}")
    with pytest.raises(UsageError, match="--ids: '7' is not a range"):
        capt.evaluate(answers=file, labels=truth, ids="7")


def test_a_directory_and_a_pattern_name_several_files(tmp_path, truth):
    files = [answer(tmp_path, name, TRUTH) for name in ("a.txt", "b.txt", "c.txt")]
    answer(tmp_path, "read.me", TRUTH)
    by_directory = capt.evaluate(answers=tmp_path / "answers", labels=truth)
    # As the command line parses `--answers a.txt b.txt c.txt`.
    by_pattern = capt.evaluate(answers=files[0], runs=files[1:], labels=truth)
    assert [one["file"] for one in by_directory["answers"]] == list(map(str, files))
    assert by_pattern == by_directory


def test_a_file_without_a_valid_line_gets_no_point_and_stops_no_other(tmp_path, truth):
    files = [
        answer(tmp_path, "empty.txt", ""),
        answer(tmp_path, "image.txt", b"\x89PNG\xff\xfe\0\n\xff"),
        answer(tmp_path, "half.txt", "\ufeffa100 word".encode("utf-16-le") + b"\xd8"),
        answer(tmp_path, "mark.txt", b"\xef\xbb\xbf" + TRUTH.encode()),
        answer(tmp_path, "wide.txt", TRUTH.encode("utf-16")),
    ]
    empty, image, half, marked, wide = capt.evaluate(answers=files, labels=truth)["answers"]
    assert counts(empty) == {**NONE, "correct": 0, "missing": 10}
    assert counts(image) == {**NONE, "correct": 0, "missing": 10, "invalid": 2}
    assert counts(half) == {**NONE, "correct": 0, "missing": 10, "invalid": 1}
    assert counts(marked) == counts(wide) == {**NONE, "correct": 10}


def test_the_table_shows_every_file_and_the_notes(tmp_path, truth, capsys):
    file = answer(tmp_path, "one.txt", TRUTH.replace("a105 word\n", ""))
    print_evaluation(capt.evaluate(answers=file, labels=truth))
    shown = capsys.readouterr().out
    assert "answers for 10 labels" in shown
    assert "90.00" in shown
    assert "one.txt: missing: a105." in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"RUN: a value is required\. Name a run, or grade answer files by --answers FILE --labels FILE"),
        ({"answers": "none.txt"}, r"--labels: a value is required\. Name the file with the true labels"),
        ({"answers": "none.txt", "labels": "truth.txt"}, r"none\.txt: no such answer file\. Check --answers"),
        ({"answers": "empty", "labels": "truth.txt"}, r"--answers empty: the directory contains no \.txt file"),
        (
            {"answers": "truth.txt", "runs": "empty", "labels": "truth.txt"},
            r"empty: a run cannot be evaluated together with --answers",
        ),
        (
            {"answers": "truth.txt", "labels": "truth.txt", "num_beams": 3},
            r"--num-beams: this option is not valid with --answers",
        ),
        ({"runs": "empty", "ids": "1:2"}, r"--ids: this option is only valid with --answers"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, truth, monkeypatch, given, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        capt.evaluate(**given)


def test_case_is_ignored_on_request_and_only_with_answers(tmp_path, truth):
    file = answer(tmp_path, "one.txt", TRUTH.replace("a104 word", "a104 WORD"))
    correct = [
        capt.evaluate(answers=file, labels=truth, fold_case=folded)["answers"][0]["correct"] for folded in (False, True)
    ]
    truth.write_text(TRUTH.upper().replace("A1", "a1"))
    assert [*correct, capt.evaluate(answers=file, labels=truth, fold_case=True)["answers"][0]["correct"]] == [9, 10, 10]
    with pytest.raises(UsageError, match="--fold-case"):
        capt.evaluate(runs=tmp_path, labels=truth, fold_case=True)
