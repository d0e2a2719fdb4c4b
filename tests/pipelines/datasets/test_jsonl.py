"""JSON lines have one or more captions with stable IDs, and an unreadable line fails alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.text.lines import FailedRecord
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.jsonl import JsonLinesReader
from tests.pipelines.datasets.entries import bare_entries

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
RECORDS = st.lists(st.tuples(TEXT.filter(str.strip), st.lists(TEXT, min_size=1, max_size=3)), max_size=5)


def captions(tmp_path: Path, *records: Any) -> list[CaptionEntry | FailedRecord]:
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    return bare_entries(JsonLinesReader([str(tmp_path / "a.jsonl")]).read_captions())


def test_a_line_has_one_caption_or_several(tmp_path: Path) -> None:
    assert captions(
        tmp_path,
        {"image": "a.jpg", "caption": "A dog"},
        {"image": "b.jpg", "captions": ["null", "NA"], "split": "validation", "width": 3},
        {"image": "a.jpg", "caption": "A cat", "split": None},
        {"image": "c.jpg", "caption": "One", "id": 7, "split": "test"},
        {"image": "c.jpg", "captions": ["Two", "Three"], "id": "x"},
    ) == [
        CaptionEntry("a.jpg", "0", "A dog"),
        CaptionEntry("b.jpg", "0", "null"),
        CaptionEntry("b.jpg", "1", "NA"),
        CaptionEntry("a.jpg", "1", "A cat"),
        CaptionEntry("c.jpg", "7", "One"),
        CaptionEntry("c.jpg", "x.0", "Two"),
        CaptionEntry("c.jpg", "x.1", "Three"),
    ]
    images = bare_entries(JsonLinesReader([str(tmp_path / "a.jsonl")]).read_images())
    assert images[1] == ImageEntry("b.jpg", "b.jpg", "val")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"image": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"image": "caf\xe9", "caption": "A dog"}', "not UTF-8"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        ({"caption": "A dog"}, "no image"),
        ({"image": 7, "caption": "A dog"}, "no image"),
        ({"image": " ", "caption": "A dog"}, "no image"),
        ({"image": "a"}, "no caption"),
        ({"image": "a", "caption": None, "captions": []}, "no caption"),
        ({"image": "a", "caption": 7}, "caption is not text"),
        ({"image": "a", "captions": {"en": "A dog"}}, "caption is not text"),
        ({"image": "a", "captions": [["A dog"]]}, "caption is not text"),
        ({"image": "a", "captions": [None]}, "caption is not text"),
        ({"image": "a", "caption": "A dog", "split": "tarin"}, "unknown split"),
        ({"image": "a", "caption": "A dog", "split": 3}, "unknown split"),
        ({"image": "a", "caption": "A dog", "id": [1]}, "bad id"),
    ],
)
def test_a_line_that_cannot_be_read_is_reported_with_its_location_and_affects_no_other(
    tmp_path: Path, line: Any, reason: str
) -> None:
    sound = {"image": "b", "caption": "A dog"}
    before, entry, after = captions(tmp_path, sound, line, sound)
    assert isinstance(entry, FailedRecord)
    assert (entry.location.split(": ")[0], entry.reason) == (f"{tmp_path}/a.jsonl:2", reason)
    assert len(entry.detail) < 300
    assert isinstance(before, CaptionEntry)
    assert isinstance(after, CaptionEntry)


def test_half_a_surrogate_pair_in_a_name_is_written_out(tmp_path: Path) -> None:
    (entry,) = captions(tmp_path, {"image": "\ud800.jpg", "caption": "A dog"})
    assert isinstance(entry, CaptionEntry)
    assert entry.image_id == "\\ud800.jpg"


@given(RECORDS)
@settings(max_examples=60, deadline=None, database=None)
def test_what_json_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, list[str]]]
) -> None:
    written = [{"image": image, "captions": texts} for image, texts in records]
    entries = captions(tmp_path_factory.getbasetemp(), *written)
    assert [(entry.image_id, entry.caption) for entry in entries if isinstance(entry, CaptionEntry)] == [
        (image, text) for image, texts in records for text in texts
    ]
