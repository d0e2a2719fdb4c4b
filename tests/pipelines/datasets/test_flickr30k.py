"""Both files of Flickr30k are read, the row without separator is repaired, and unreadable rows fail alone."""

from pathlib import Path

import pytest

from features.text.lines import FailedRecord
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.flickr import Flickr30kReader
from tests.pipelines.datasets.entries import bare_entries

HEADER = "image_name| comment_number| comment\n"
ROWS = f"""{HEADER}1000092795.jpg| 0| Two young guys with shaggy hair .
1000092795.jpg| 1| Two | three men .
2199200615.jpg| 4   A dog runs across the grass .
"""


def captions(tmp_path: Path, text: str, name: str = "results.csv") -> list[CaptionEntry | FailedRecord]:
    (tmp_path / name).write_text(text)
    return bare_entries(Flickr30kReader([str(tmp_path / name)]).read_captions())


def test_rows_are_read_and_the_one_without_its_separator_is_repaired(tmp_path: Path) -> None:
    assert captions(tmp_path, ROWS) == [
        CaptionEntry("1000092795.jpg", "0", "Two young guys with shaggy hair ."),
        CaptionEntry("1000092795.jpg", "1", "Two | three men ."),
        CaptionEntry("2199200615.jpg", "4", "A dog runs across the grass .", repaired="missing separator"),
    ]
    source = Flickr30kReader([str(tmp_path / "results.csv")])
    assert bare_entries(source.read_images()) == [
        ImageEntry(name, name) for name in ("1000092795.jpg", "2199200615.jpg")
    ]


def test_the_token_file_gives_the_same_and_is_preferred(tmp_path: Path) -> None:
    tokens = captions(tmp_path, "1000092795.jpg#0\tTwo young guys with shaggy hair .\n", "results_20130124.token")
    assert tokens == captions(tmp_path, ROWS)[:1]
    assert bare_entries(Flickr30kReader([str(tmp_path)]).read_captions()) == tokens


@pytest.mark.parametrize("part", [" ", "a ", "| 1", "|1 ", "|", "a" + " " * 99])
def test_a_row_that_is_made_to_confuse_takes_no_longer_than_its_length(tmp_path: Path, part: str) -> None:
    assert len(captions(tmp_path, HEADER + part * (400_000 // len(part)) + "x")) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.jpg| 0|", "no caption"),
        ("a.jpg| 0", "no image|number|caption"),
        ("a.jpg| x| A dog", "no image|number|caption"),
        ("| 0| A dog", "no image|number|caption"),
        ("a.jpg", "no image|number|caption"),
    ],
)
def test_a_row_that_cannot_be_read_is_reported_with_its_location(tmp_path: Path, row: str, reason: str) -> None:
    entry, other = captions(tmp_path, f"{HEADER}{row}\nb.jpg| 0| A cat\n")
    assert isinstance(entry, FailedRecord)
    assert (entry.location, entry.reason) == (f"{tmp_path}/results.csv:2", reason)
    assert isinstance(other, CaptionEntry)
