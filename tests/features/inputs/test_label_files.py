"""Label files of every layout give the same rows; text stays text, and a faulty row fails alone."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.inputs.label_files import LabelColumns, LabelRow, find_layout, read_label_list, read_label_table
from features.text.lines import FailedRecord, Line
from schemas.errors import CaptError, RecordError, UsageError

ROWS = [("x/a.png", "null", "train"), ("b.jpg", "007", "val"), ("c.png", "1e5", ""), ("d.png", "NaN", "test")]
HEADER = ("File Name", "Text", "split")


def parquet(columns: dict[str, list]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def delimited(delimiter: str) -> bytes:
    return "\n".join(delimiter.join(row) for row in (HEADER, *ROWS)).encode()


FILES = {
    "labels.csv": delimited(","),
    "labels.tsv": delimited("\t"),
    "semicolons.csv": delimited(";"),
    "labels.jsonl": "\n".join(json.dumps(dict(zip(HEADER, row, strict=True))) for row in ROWS).encode(),
    "labels.parquet": parquet({name: [row[number] for row in ROWS] for number, name in enumerate(HEADER)}),
}


def rows(name: str, data: bytes, **columns: str) -> list[LabelRow | FailedRecord]:
    return list(read_label_table(name, data, name, LabelColumns(**columns)).rows)


def faults(name: str, data: bytes) -> dict[str, str]:
    return {row.location: row.reason for row in rows(name, data) if isinstance(row, FailedRecord)}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name):
    assert find_layout(name, FILES[name]) == "table"
    table = read_label_table(name, FILES[name], name)
    assert table.columns == {"image": "File Name", "label": "Text", "split": "split"}
    found = [row for row in table.rows if isinstance(row, LabelRow)]
    assert [(row.image, row.label, row.read_split()) for row in found] == [
        (image, label, split or None) for image, label, split in ROWS
    ]


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("a0 thus\na1 fail\n", "ids"),
        ("a0,thus\na1 fail\n", "ids"),
        ("a0.png thus\nx/a b.jpg,fail\n", "table"),
        ("thus\nfail\n", "list"),
        ("a12\na13\n", "list"),
        ("AB 123\n7.5 kg\n", "list"),
        ("", "ids"),
    ],
)
def test_the_layout_of_a_text_follows_from_its_lines(text, layout):
    assert find_layout("labels.txt", text.encode()) == layout
    assert find_layout("x/spec_train_val.txt", text.encode()) == "ids"


def test_lines_begin_with_an_image_name():
    data = b"x/a b.png 7 kg\nb.v2.jpg, x\nc.png\t,\nnothing here\nd.png\n"
    found = rows("labels.txt", data)
    assert [row[1:] for row in found if isinstance(row, LabelRow)] == [
        ("x/a b.png", "7 kg", None),
        ("b.v2.jpg", "x", None),
        ("c.png", ",", None),
    ]
    assert faults("labels.txt", data) == {"labels.txt:4": "no image name", "labels.txt:5": "no image name"}


def test_columns_can_be_named():
    data = b"image,label,number,fold\na.png,x,7,dev\n"
    assert rows("a.csv", data, image="image", label="number", split="fold")[0][1:] == ("a.png", "7", "dev")


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        (b"picture,label\n", {}, r"no column with a usual name for the image; the columns are 'picture, label'"),
        (b"a.png,x\nb.png,y\n", {}, r"Name the column with --image-column\. The first row of a CSV file"),
        (b"image,label\n", {"label": "word"}, "no column 'word'; the columns are 'image, label'"),
        (b"image,label\n", {"split": "fold"}, "no column 'fold'"),
        (b"image,label,image\n", {}, "there are 2 columns 'image'"),
        (b"image,label\n", {}, "the file contains no label"),
        (b"", {}, "the file contains no label"),
    ],
)
def test_a_missing_column_is_named(data, columns, message):
    with pytest.raises(UsageError, match=message):
        rows("a.csv", data, **columns)


def test_a_faulty_row_of_csv_fails_alone():
    data = b'image,label,split\na.png\n,x,\nb.png,"x,\nc.png,x,\nd.png,\xff,\ne.png,ok,train,\nf.png,,\n'
    assert faults("a.csv", data) == {
        "a.csv:2": "too few columns",
        "a.csv:3": "no image",
        "a.csv:4": "bad quoting",
        "a.csv:6": "not UTF-8",
        "a.csv:7": "too many columns",
    }
    assert [row for row in rows("a.csv", data) if isinstance(row, LabelRow)] == [
        LabelRow("a.csv:5", "c.png", "x", ""),
        LabelRow("a.csv:8", "f.png", "", ""),
    ]


def test_a_value_that_is_no_split_is_an_error_where_the_split_is_read():
    with pytest.raises(RecordError) as caught:
        LabelRow("a.csv:2", "a.png", "x", "other").read_split()
    assert caught.value.reason == "unknown split"


def test_a_key_may_be_missing_in_some_json_objects():
    lines = [{"image": "a"}, {"image": "b", "label": "x"}, {"image": "c", "label": "y", "split": "test"}]
    data = "\n".join(map(json.dumps, lines)).encode()
    assert faults("a.jsonl", data) == {"a.jsonl:1": "label is not text"}
    found = [row for row in rows("a.jsonl", data) if isinstance(row, LabelRow)]
    assert [(row.image, row.read_split()) for row in found] == [("b", None), ("c", "test")]


@pytest.mark.parametrize("name", ["labels.json", "x/LABELS.XML", "a.yaml"])
def test_a_format_that_is_not_read_is_no_list_of_labels(name):
    with pytest.raises(UsageError, match="label files of this format cannot be read"):
        find_layout(name, b"x")
    for text in (b'{"a.png": "x"}\n', b'{"a.png":\n"x"}', b'["x", "y"]', b'{"image": "a"}\n{"image": "b"}\n'):
        with pytest.raises(UsageError, match="label files of this format cannot be read"):
            find_layout("labels.txt", text)
    assert find_layout("labels.txt", b"[x\n{y\n") == "list"


def test_a_long_line_is_searched_for_an_image_name_once():
    assert find_layout("labels.txt", b"a,b " * 300_000) == "list"


def test_numbers_and_null_of_json_are_not_text():
    lines = ['{"image": "a", "label": 7}', '{"image": "b", "label": null}', "[]", "{", '{"label": "x"}']
    lines += ['{"image": "c", "label": "x", "label": "y"}', '{"image": "d"}', '{"image": "e", "label": "null"}']
    assert list(faults("a.jsonl", "\n".join(lines).encode()).values()) == [
        *("label is not text", "label is not text", "not an object", "not JSON", "no image", "duplicate key"),
        "label is not text",
    ]
    with pytest.raises(UsageError, match="no line is a JSON object"):
        rows("a.jsonl", b"[]\n")


def test_numbers_and_null_of_parquet_are_not_text():
    assert list(faults("a.parquet", parquet({"image": ["a", "b"], "label": ["x", None]}))) == ["a.parquet: row 2"]
    assert len(faults("a.parquet", parquet({"image": ["a", "b"], "label": [7, 8]}))) == 2
    invalid = pa.array([b"\xff"]).view(pa.string())
    with pytest.raises(CaptError, match="the Parquet file cannot be read"):
        rows("a.parquet", parquet({"image": ["a"], "label": invalid}))
    with pytest.raises(CaptError, match="the Parquet file cannot be read"):
        rows("a.parquet", b"image,label\n")


def test_a_list_keeps_the_number_of_a_line():
    found = read_label_list(b"thus\n\nfail\r\n\xff\n", "a.txt")
    assert found[1] == Line("a.txt:1", "thus")
    assert found[3] == Line("a.txt:3", "fail")
    assert isinstance(found[4], FailedRecord)
    assert 2 not in found
    with pytest.raises(UsageError, match="the file contains no label"):
        read_label_list(b"\n", "a.txt")
