"""CSV and TSV columns may be in any order, and an unreadable row fails alone."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.text.lines import FailedRecord
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.csv_file import CsvReader
from schemas.errors import CaptError
from tests.pipelines.datasets.entries import bare_entries

FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROWS = st.lists(st.tuples(FIELD.filter(str.strip), FIELD, st.sampled_from(["", "train", "val", "test"])), max_size=6)


def captions(tmp_path: Path, data: str | bytes, name: str = "a.csv") -> list[CaptionEntry | FailedRecord]:
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return bare_entries(CsvReader([str(tmp_path / name)]).read_captions())


def texts(entries: list[CaptionEntry | FailedRecord]) -> list[str]:
    return [entry.reason if isinstance(entry, FailedRecord) else entry.caption for entry in entries]


def test_columns_come_in_any_order_and_case_and_others_are_left(tmp_path: Path) -> None:
    data = (
        "\ufeff Caption ,width,IMAGE,Split,id\r\nA dog,3,x/a.jpg,Train,17\r\nA cat,3,b.jpg,,\r\n\r\n,3,c.jpg,dev,9\r\n"
    )
    assert captions(tmp_path, data) == [
        CaptionEntry("x/a.jpg", "17", "A dog"),
        CaptionEntry("b.jpg", "0", "A cat"),
        CaptionEntry("c.jpg", "9", ""),
    ]
    images = bare_entries(CsvReader([str(tmp_path / "a.csv")]).read_images())
    assert images == [
        ImageEntry("x/a.jpg", "x/a.jpg", "train"),
        ImageEntry("b.jpg", "b.jpg", None),
        ImageEntry("c.jpg", "c.jpg", "val"),
    ]


def test_captions_are_numbered_within_their_image_whatever_rows_of_others_come_between(tmp_path: Path) -> None:
    few = captions(tmp_path, "image,caption\na,one\na,two\nb,three\n")
    many = captions(tmp_path, "image,caption\nz,zero\na,one\nb,three\nz,more\na,two\n")
    assert [(e.image_id, e.caption_id) for e in few if isinstance(e, CaptionEntry)] == [
        ("a", "0"),
        ("a", "1"),
        ("b", "0"),
    ]
    assert set(map(str, few)) <= set(map(str, many))


@pytest.mark.parametrize("word", ["null", "NA", "None", "nan", "NULL", "true", "1e5", "007"])
def test_words_that_look_like_values_are_words(tmp_path: Path, word: str) -> None:
    assert captions(tmp_path, f"image,caption,id\n{word},{word},{word}\n") == [CaptionEntry(word, word, word)]


def test_only_a_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    assert texts(captions(tmp_path, "image\tcaption\na\tA dog, running\n", "a.TSV")) == ["A dog, running"]
    with pytest.raises(CaptError, match=r"a\.csv: no column with a usual name for the image"):
        captions(tmp_path, "image\tcaption\na\tA dog\n")


def test_quoted_fields_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    data = 'image,caption\na,"A ""big"" dog,\n\nrunning"\nb,A 10" pizza\n'
    assert texts(captions(tmp_path, data)) == ['A "big" dog,\n\nrunning', 'A 10" pizza']


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a", "too few columns"),
        (b"a,A dog, running,train", "too many columns"),
        (b",A dog,train", "no image"),
        (b"  ,A dog,train", "no image"),
        (b"a,A dog,tarin", "unknown split"),
        (b"a,caf\xe9,train", "not UTF-8"),
        (b"a,A\0dog,train", "NUL byte"),
        (b'a,"A" dog,train', "bad quoting"),
        (b'a,"A dog,train', "bad quoting"),
        (b"a," + b"x" * 200_000 + b",train", "too long"),
        (b'a,"' + b"x" * 200_000 + b'",train', "too long"),
    ],
)
def test_a_row_that_cannot_be_read_is_reported_with_its_line_and_affects_no_other(
    tmp_path: Path, row: bytes, reason: str
) -> None:
    data = b"image,caption,split\na,before,\n" + row + b"\na,after,\nb,last,\n"
    before, entry, *rest = captions(tmp_path, data)
    assert isinstance(entry, FailedRecord)
    assert (entry.location, entry.reason) == (f"{tmp_path}/a.csv:3", reason)
    assert len(entry.detail) < 250
    assert texts([before, *rest]) == ["before", "after", "last"]


def test_an_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    (entry,) = captions(tmp_path, "image,caption,split\na,A dog,tarin\n")
    assert isinstance(entry, FailedRecord)
    assert entry.detail == "'tarin' is none of train, val, test, unused, dev, validation"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "no header: the file is empty"),
        (b"\n\n", "no header: the file is empty"),
        (b"a.jpg,A dog\n", "no column with a usual name for the image"),
        (b"image,width\n", "no column with a usual name for the caption"),
        (b"image,caption,Image\n", "2 columns 'image'"),
        (b"image,caption,split,split\n", "2 columns 'split'"),
        (b"im\xff,caption\n", "no header: not UTF-8"),
        ("image,caption\n".encode("utf-16")[:-1], "invalid UTF-16"),
    ],
)
def test_a_header_that_is_none_is_one_line(tmp_path: Path, data: bytes, line: str) -> None:
    with pytest.raises(CaptError, match=line) as caught:
        captions(tmp_path, data)
    assert f"{tmp_path}/a.csv" in str(caught.value)


@given(ROWS)
@settings(max_examples=60, deadline=None, database=None)
def test_what_a_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([("image", "caption", "split"), *rows])
    base = tmp_path_factory.getbasetemp()
    entries = captions(base, out.getvalue())
    assert [(e.image_id, e.caption) for e in entries if isinstance(e, CaptionEntry)] == [
        (image.strip(), caption) for image, caption, _ in rows
    ]
    images = CsvReader([str(base / "a.csv")]).read_images()
    assert [(e.image_id, e.split or "") for e in images] == [(image.strip(), split) for image, _, split in rows]
