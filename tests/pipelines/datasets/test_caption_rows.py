"""CSV and JSON lines with columns of any names give the same images, captions, splits and groups."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import capt
from features.text.lines import FailedRecord
from features.text.table_columns import CaptionColumns
from pipelines.datasets import open_reader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.errors import UsageError
from tests.pipelines.datasets.entries import bare_entries

KINDS = ["csv", "jsonl"]


def write(kind: str, directory: Path, rows: list[dict[str, Any]]) -> str:
    path = directory / f"table.{kind}"
    with path.open("w", newline="", encoding="utf-8") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_named_columns_are_read(kind: str, tmp_path: Path) -> None:
    rows = [
        {"image": "no", "photo": "a.jpg", "en": "A dog", "de": "Ein Hund", "nr": "7", "fold": "dev", "by": "Ann"},
        {"image": "no", "photo": "b.jpg", "en": "A cat", "de": "", "nr": "8", "fold": "", "by": ""},
    ]
    columns = CaptionColumns("photo", ("en", "de"), "nr", "fold", "by")
    reader = open_reader(kind, [write(kind, tmp_path, rows)], columns=columns)
    assert bare_entries(reader.read_images()) == [
        ImageEntry("a.jpg", "a.jpg", "val", group="Ann"),
        ImageEntry("b.jpg", "b.jpg", None),
    ]
    assert bare_entries(reader.read_captions()) == [
        CaptionEntry("a.jpg", "7.0", "A dog"),
        CaptionEntry("a.jpg", "7.1", "Ein Hund"),
        CaptionEntry("b.jpg", "8", "A cat"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_numbered_columns_are_the_captions_of_a_row(kind: str, tmp_path: Path) -> None:
    rows = [{"file_name": "a.jpg", **{f"caption_{number}": f"dog {number}" for number in range(5)}}]
    reader = open_reader(kind, [write(kind, tmp_path, rows)])
    assert bare_entries(reader.read_captions()) == [CaptionEntry("a.jpg", str(n), f"dog {n}") for n in range(5)]


def test_a_column_of_json_contains_texts_or_lists(tmp_path: Path) -> None:
    rows = [
        {"image": "a", "text": ["one", "two"]},
        {"image": "b", "text": "three"},
        {"image": "c", "text": None},
        {"image": "d", "text": ["four", 5]},
    ]
    found = bare_entries(open_reader("jsonl", [write("jsonl", tmp_path, rows)]).read_captions())
    reasons = [one.reason if isinstance(one, FailedRecord) else one.caption for one in found]
    assert reasons == ["one", "two", "three", "no caption", "four", "caption is not text"]


def test_the_columns_are_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = open_reader("csv", [write("csv", tmp_path, [{"path": "a.jpg", "TEXT": "A dog"}])])
    with caplog.at_level("INFO", "capt.columns"):
        list(reader.read_images())
        list(reader.read_captions())
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("table.csv: columns: image 'path', caption 'TEXT'.")


@pytest.mark.parametrize("role", ["image", "caption", "id", "split", "group"])
def test_a_type_without_columns_refuses_them(role: str, tmp_path: Path) -> None:
    given = CaptionColumns(**{role: ("x",) if role == "caption" else "x"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"--{role}-column"):
        open_reader("coco", [str(tmp_path)], columns=given)


def test_images_of_a_group_have_one_split_and_an_image_of_two_groups_fails(tmp_path: Path) -> None:
    rows = [{"image": f"{number}.jpg", "caption": "A dog", "by": f"p{number % 20}"} for number in range(200)]
    rows += [{"image": "x.jpg", "caption": "A cat", "by": one} for one in ("p1", "p2")]
    result = capt.prepare_captions(
        store=str(tmp_path / "S"),
        dataset_type="csv",
        annotations=[write("csv", tmp_path, rows)],
        group_column="by",
        split_ratios="0.6,0.4",
    )
    assert (result["ok"], result["reasons"]) == (200, {"two groups": 2})
    found = capt.open_store(tmp_path / "S").caption_table(result["fingerprint"]).captions().to_pylist()
    splits: dict[str, set[str]] = {}
    for row in found:
        group = f"p{int(row['image_id'].removesuffix('.jpg')) % 20}"
        splits.setdefault(group, set()).add(row["split"])
    assert all(len(one) == 1 for one in splits.values())
    assert {"train", "val"} == set.union(*splits.values())
