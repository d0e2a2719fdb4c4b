"""Images and captions in Parquet are read by row group, and each fault costs its own rows."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from features.inputs import parquet_rows
from features.inputs.archives import open_archive
from features.inputs.parquet_rows import ParquetRows, name_member
from features.text.lines import FailedRecord
from features.text.table_columns import CaptionColumns
from pipelines.datasets import open_reader
from pipelines.datasets.base import EmbeddedReader
from schemas.errors import RecordError, UsageError
from tests.pipelines.datasets.test_webdataset import jpeg

SIZE = {"extractor": "pixels", "height": 8, "width": 8}


def photo(number: int, path: str | None = "") -> dict[str, Any]:
    return {"bytes": jpeg(number), "path": f"{number}.jpg" if path == "" else path}


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **{"row_group_size": 2, **options})
    return str(path)


def images(*paths: str, **columns: Any) -> list[tuple[str, str | None, str]]:
    """ID, split and group of each image; the reason for a failed record."""
    read = open_reader("huggingface", paths, columns=CaptionColumns(**columns)).read_images()
    return [(one.image_id, one.split, one.failure.reason if one.failure else one.group) for one in read]


def captions(*paths: str, **columns: Any) -> list[tuple[str, str, str]]:
    read = open_reader("huggingface", paths, columns=CaptionColumns(**columns)).read_captions()
    return [
        (one.location.rpartition(": ")[2], one.reason, "")
        if isinstance(one, FailedRecord)
        else (one.image_id, one.caption_id, one.caption)
        for one in read
    ]


def read_files(*paths: str, **columns: Any) -> dict[str, bytes]:
    reader = open_reader("huggingface", paths, columns=CaptionColumns(**columns))
    assert isinstance(reader, EmbeddedReader)
    return {one.name: one.reference.read() for one in reader.list_files()}


def test_images_are_structures_of_bytes_and_path_or_bytes(tmp_path: Path) -> None:
    text = ["A dog", "A cat", "A cow"]
    structs = parquet(tmp_path / "a.parquet", {"image": [photo(n) for n in range(3)], "text": text})
    # As img2dataset writes them.
    plain = parquet(tmp_path / "b.parquet", {"key": ["x", "y", "z"], "jpg": [jpeg(n) for n in range(3)], "TEXT": text})
    assert captions(structs) == [(f"{n}.jpg", "0", one) for n, one in enumerate(text)]
    assert captions(plain) == [(key, "0", one) for key, one in zip("xyz", text, strict=True)]
    assert list(read_files(structs).items()) == [(f"a.parquet/{n}.jpg", jpeg(n)) for n in range(3)]
    assert list(read_files(plain).values()) == [jpeg(n) for n in range(3)]


def test_an_id_is_that_of_a_column_or_the_path_or_the_row(tmp_path: Path) -> None:
    pictures = [photo(0), photo(1, None), photo(2, None)]
    path = parquet(tmp_path / "a.parquet", {"image": pictures, "nr": [7, 8, 9]})
    assert [one[0] for one in images(path)] == ["0.jpg", "a.parquet/1", "a.parquet/2"]
    assert [one[0] for one in images(path, id="nr")] == ["7", "8", "9"]
    assert list(read_files(path)) == ["a.parquet/0.jpg", "a.parquet#1", "a.parquet#2"]


def test_a_path_that_is_the_number_of_a_row_is_another_image_than_the_row(tmp_path: Path) -> None:
    pictures = [photo(0, "x"), photo(1, "0"), photo(2, "x"), photo(3, None), photo(4, "3")]
    path = parquet(tmp_path / "a.parquet", {"image": pictures})
    assert [one[0] for one in images(path)] == ["a.parquet/0", "0", "a.parquet/2", "a.parquet/3", "3"]
    result = capt.prepare_features(store=str(tmp_path / "S"), dataset_type="huggingface", images=[path], **SIZE)
    assert (result["input"], result["ok"], result["failed"]) == (5, 5, 0)


def test_a_path_of_different_images_identifies_none(tmp_path: Path) -> None:
    pictures = [photo(0, "x"), photo(1, "x"), photo(0, "x"), photo(2, "y"), photo(2, "y"), photo(3, "z")]
    pictures += [photo(4, "v"), {"bytes": None, "path": "v"}]
    path = parquet(tmp_path / "a.parquet", {"image": pictures, "text": [f"dog {n}" for n in range(8)]})
    ids = ["a.parquet/0", "a.parquet/1", "a.parquet/0", "y", "y", "z", "a.parquet/6", "a.parquet/7"]
    assert [one[0] for one in images(path)] == ids
    numbers = ["0", "0", "1", "0", "1", "0", "0", "0"]
    assert captions(path) == [
        (one, number, f"dog {n}") for n, (one, number) in enumerate(zip(ids, numbers, strict=True))
    ]
    result = capt.prepare_features(
        store=str(tmp_path / "S"), dataset_type="huggingface", images=[path], max_failures="100%", **SIZE
    )
    assert (result["input"], result["ok"], result["reasons"]) == (6, 5, {"no image": 1})


def test_a_repeated_path_whose_bytes_cannot_be_read_identifies_no_image(tmp_path: Path) -> None:
    pictures = [photo(n, "x" if n % 2 == 0 else f"{n}") for n in range(6)]
    path = parquet(tmp_path / "a.parquet", {"image": pictures, "text": [f"dog {n}" for n in range(6)]})
    corrupt(path, 1, "image.bytes")
    assert [one[0] for one in images(path)] == ["a.parquet/0", "1", "a.parquet/2", "3", "a.parquet/4", "5"]


@pytest.mark.parametrize(
    ("columns", "given", "found"),
    [
        ({"caption": [["one", "two"]]}, {}, ["one", "two"]),
        ({"caption_0": ["one"], "caption_1": ["two"]}, {}, ["one", "two"]),
        ({"text": ["one"], "de": ["zwei"]}, {"caption": ("de", "text")}, ["zwei", "one"]),
        ({"caption": [["one", None]]}, {}, ["one", "caption is not text"]),
        ({"caption": pa.array([None], pa.string())}, {}, ["no caption"]),
        ({"caption": [7]}, {}, ["caption is not text"]),
        ({"caption_0": ["one"], "caption_1": [{"en": "two"}]}, {}, ["one", "caption is not text"]),
        ({"sentences": [[{"raw": "one"}]]}, {}, ["caption is not text"]),
    ],
)
def test_captions_are_text_or_lists_of_text(
    columns: dict[str, Any], given: dict[str, Any], found: list[str], tmp_path: Path
) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": [photo(0)], **columns})
    assert [text or reason for _, reason, text in captions(path, **given)] == found


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("validation-00000-of-00001.parquet", "val"),
        ("data/test/0000.parquet", "test"),
        ("eval-0.parquet", "test"),
        ("data/evaluation/0000.parquet", "test"),
        ("0000.parquet", None),
    ],
)
def test_file_names_state_splits_unless_a_column_does(name: str, split: str | None, tmp_path: Path) -> None:
    values = {"image": [photo(0), photo(1), photo(2)], "split": [None, "test", "tarin"], "who": ["Ann", None, "Bob"]}
    parquet(tmp_path / "x" / name, values)
    first, second, third = images(str(tmp_path / "x"), group="who")
    assert (first, second) == (("0.jpg", split, "Ann"), ("1.jpg", "test", ""))
    assert third[1:] == (None, "unknown split")


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"caption": ["one"]}, {}, "no column with the bytes of images"),
        ({"a": [jpeg(0)], "b": [jpeg(0)]}, {}, "2 columns with the bytes of images"),
        ({"image": ["a.jpg"], "caption": ["one"]}, {"image": "image"}, "no column 'image' with the bytes of images"),
        ({"image": [jpeg(0)], "x": ["one"]}, {}, "no column with a usual name for the caption"),
        ({"image": [jpeg(0)], "caption": ["one"]}, {"split": "fold"}, "no column 'fold'"),
    ],
)
def test_a_missing_column_is_one_line(
    columns: dict[str, Any], given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        captions(parquet(tmp_path / "a.parquet", columns), **given)


def corrupt(path: str, group: int, column: str) -> None:
    """Overwrites the pages of a column in a row group."""
    metadata = pq.ParquetFile(path).metadata.row_group(group)
    chunk = next(metadata.column(n) for n in range(metadata.num_columns) if metadata.column(n).path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(Path(path).read_bytes())
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    Path(path).write_bytes(data)


def test_a_corrupt_row_group_costs_its_rows(tmp_path: Path) -> None:
    values = {"image": [photo(n) for n in range(6)], "caption": [f"dog {n}" for n in range(6)]}
    path = parquet(tmp_path / "a.parquet", values)
    corrupt(path, 1, "caption")
    lost = [(f"row {n}", "unreadable", "") for n in (3, 4)]
    assert captions(path) == [*((f"{n}.jpg", "0", f"dog {n}") for n in (0, 1)), *lost, ("4.jpg", "0", "dog 4"),
                              ("5.jpg", "0", "dog 5")]  # fmt: skip
    corrupt(path, 0, "image.bytes")
    result = capt.prepare_features(
        store=str(tmp_path / "S"), dataset_type="huggingface", images=[path], max_failures="100%", **SIZE
    )
    assert (result["ok"], result["reasons"]) == (4, {"unreadable": 2})


def test_a_corrupt_row_group_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": [bytes([n]) * 50 for n in range(40)]}, row_group_size=40)
    corrupt(path, 0, "image")
    groups, decode = [], ParquetRows._decode
    monkeypatch.setattr(ParquetRows, "_decode", lambda *given: groups.append(given) or decode(*given))
    rows = ParquetRows(path)
    for number in range(40):
        with pytest.raises(RecordError, match="unreadable"):
            rows.read(name_member(0, number, "image"), "x", 1 << 20)
    assert len(groups) == 1


def test_a_file_that_is_no_parquet_is_one_failed_record(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "b.parquet", {"image": [photo(0)], "caption": ["one"]})
    (tmp_path / "a.parquet").write_bytes(Path(whole).read_bytes()[:-100])
    found = captions(str(tmp_path))
    assert [one[1:] for one in found] == [("unreadable", ""), ("0", "one")]
    reader = open_reader("huggingface", [str(tmp_path)])
    assert isinstance(reader, EmbeddedReader)
    assert [one.reference.location for one in reader.list_files()] == [whole]


def test_values_are_found_in_any_order(tmp_path: Path) -> None:
    values = [jpeg(n) for n in range(100)]
    path = parquet(tmp_path / "a.parquet", {"image": values, "id": list(range(100))}, row_group_size=75)
    reader = open_reader("huggingface", [path])
    assert isinstance(reader, EmbeddedReader)
    references = [one.reference for one in reader.list_files()]
    for number in (0, 99, 40, 39, 74, 75, 98, 1):
        assert references[number].read() == values[number]
    archive = open_archive(path)
    with pytest.raises(FileNotFoundError):
        archive.read("000009/000000000/image", "x", 1 << 20)
    with pytest.raises(FileNotFoundError):
        archive.read("000000/000000090/image", "x", 1 << 20)
    with pytest.raises(RecordError, match="too large"):
        archive.read("000000/000000001/image", "x", 10)


def test_rows_in_any_order_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[bytes | None] = [bytes([n]) * (n % 7) for n in range(200)]
    values[5] = None
    path = parquet(tmp_path / "a.parquet", {"image": values}, row_group_size=100)
    batches, decode = [], ParquetRows._decode

    def count(self: ParquetRows, group: int, column: str) -> Iterator[Any]:
        for one in decode(self, group, column):
            batches.append(len(one))
            yield one

    monkeypatch.setattr(ParquetRows, "_decode", count)
    monkeypatch.setattr(parquet_rows, "_MAX_GROUP_MEMORY", 50)  # most values are in a temporary file
    rows = ParquetRows(path)
    for number in random.Random(0).sample(range(200), 200):
        member = name_member(number // 100, number % 100, "image")
        if values[number] is None:
            with pytest.raises(RecordError, match="no image"):
                rows.read(member, "x", 1 << 20)
        else:
            assert rows.read(member, "x", 1 << 20) == values[number]
    assert sum(batches) == 200
    # Only so many row groups are kept.
    monkeypatch.setattr(parquet_rows, "_MAX_KEPT_GROUPS", 1)
    for group in (0, 1, 0):
        assert rows.read(name_member(group, 3, "image"), "x", 1 << 20) == values[100 * group + 3]
    assert sum(batches) > 200


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    pictures = [photo(0), photo(1), photo(1), photo(2, "x"), photo(3, "x"), {"bytes": None, "path": "none"}]
    pictures += [{"bytes": jpeg(4)[:-200], "path": "cut"}, {"bytes": b"text", "path": "text"}]
    path = parquet(tmp_path / "train.parquet", {"image": pictures, "caption": [f"dog {n}" for n in range(8)]})
    options = {"store": str(tmp_path / "S"), "dataset_type": "huggingface", "max_failures": "100%"}
    result = capt.prepare_features(**options, images=[path], **SIZE)
    # Rows with one path and equal bytes are one image, with the captions of both.
    assert (result["input"], result["ok"]) == (7, 4)
    assert result["reasons"] == {"no image": 1, "truncated": 1, "unsupported": 1}
    texts = capt.prepare_captions(**options, annotations=[path])
    assert (texts["input"], texts["ok"]) == (8, 8)
    again = capt.prepare_features(**options, images=[path], **SIZE)
    assert (again["cached"], again["ok"]) == (4, 0)


def test_rows_of_one_id_with_different_bytes_contradict_each_other(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": [photo(n) for n in range(3)], "id": [1, 1, 2]})
    result = capt.prepare_features(
        store=str(tmp_path / "S"), dataset_type="huggingface", images=[path], max_failures="100%", **SIZE
    )
    assert (result["input"], result["ok"], result["reasons"]) == (2, 1, {"ambiguous": 1})


def test_a_parquet_file_is_no_archive_of_images(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": [photo(0)]})
    with pytest.raises(UsageError, match="--dataset-type huggingface"):
        capt.prepare_features(store=str(tmp_path / "S"), dataset_type="folder", images=[path], **SIZE)
