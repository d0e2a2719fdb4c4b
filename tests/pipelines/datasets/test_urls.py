"""Lists of URLs are read in bounded memory in every format, and each fault costs its own records."""

import bz2
import errno
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from features.inputs import parquet_rows, text_files
from features.inputs.image_urls import build_download_name
from features.text import csv_rows
from features.text.lines import FailedRecord
from features.text.table_columns import CaptionColumns
from pipelines.datasets import open_reader
from schemas.errors import CaptError, UsageError
from tests.image_server import ImageServer, answer, image_server, jpeg
from tests.pipelines.datasets.test_huggingface import corrupt

SIZE = {"extractor": "pixels", "height": 8, "width": 8}


def url(number: int) -> str:
    return f"https://example.com/{number}.jpg"


def image_id(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()


def table(count: int = 3) -> dict[str, list[Any]]:
    return {"URL": [url(n) for n in range(count)], "TEXT": [f'a "dog",\nnumber {n}' for n in range(count)]}


def rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def parquet(path: Path, columns: Mapping[str, Any]) -> str:
    pq.write_table(pa.table(dict(columns)), path, row_group_size=2)
    return str(path)


def in_csv(columns: Mapping[str, Any], delimiter: str = ",") -> bytes:
    lines = [list(columns), *([row[name] for name in columns] for row in rows(columns))]
    quoted = (delimiter.join('"{}"'.format(str(one).replace('"', '""')) for one in line) for line in lines)
    return "".join(f"{line}\n" for line in quoted).encode()


def in_json(columns: Mapping[str, Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows(columns)).encode()


def put(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def read_captions(*paths: str, **columns: Any) -> list[tuple[str, str]]:
    """Image ID and caption of each record; position and reason of a failed one."""
    read = open_reader("urls", paths, columns=CaptionColumns(**columns)).read_captions()
    return [
        (one.location.rpartition("/")[2], one.reason) if isinstance(one, FailedRecord) else (one.image_id, one.caption)
        for one in read
    ]


def read_images(*paths: str, **columns: Any) -> list[tuple[str, str | None]]:
    """URL and split of each image; the reason of a failed record."""
    read = open_reader("urls", paths, columns=CaptionColumns(**columns)).read_images()
    return [(one.failure.reason if one.failure else one.url, one.split) for one in read]


WRITERS: dict[str, Callable[[Path], str]] = {
    "parquet": lambda root: parquet(root / "a.parquet", table()),
    "csv": lambda root: put(root / "a.csv", in_csv(table())),
    "tsv": lambda root: put(root / "a.TSV", in_csv(table(), "\t")),
    "jsonl": lambda root: put(root / "a.jsonl", in_json(table())),
    "csv.gz": lambda root: put(
        root / "a.csv.gz", gzip.compress(in_csv(table())[:50]) + gzip.compress(in_csv(table())[50:])
    ),
    "jsonl.zst": lambda root: put(root / "a.jsonl.zst", pa.compress(in_json(table()), "zstd", asbytes=True)),
    "tsv.bz2": lambda root: put(root / "a.tsv.bz2", bz2.compress(in_csv(table(), "\t"))),
    "utf-16": lambda root: put(root / "a.csv", in_csv(table()).decode().encode("utf-16")),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("path", ["", "directory"])
def test_every_format_is_read_from_a_file_or_a_directory(kind: str, path: str, tmp_path: Path) -> None:
    file = WRITERS[kind](tmp_path)
    found = read_captions(str(tmp_path) if path else file)
    assert found == [(image_id(url(n)), f'a "dog",\nnumber {n}') for n in range(3)]
    assert read_images(file) == [(url(n), None) for n in range(3)]


def test_many_files_are_one_list_with_the_splits_of_their_names(tmp_path: Path) -> None:
    for number, split in enumerate(["train", "val"]):
        parquet(tmp_path / f"{split}-0{number}.parquet", {"url": [url(number)], "caption": ["a dog"]})
    pattern = str(tmp_path / "{train-00,val-01}.parquet")
    assert read_images(pattern) == [(url(0), "train"), (url(1), "val")]


def test_columns_are_found_by_usual_names_or_named(tmp_path: Path) -> None:
    coyo = {"id": [7, 8], "url": [url(0), url(1)], "text": ["one", "two"], "width": [1, 2], "hash": [5, 6]}
    path = parquet(tmp_path / "coyo.parquet", coyo)
    read = list(open_reader("urls", [path]).read_captions())
    assert [one.caption_id for one in read if not isinstance(one, FailedRecord)] == ["7", "8"]
    named = {"link": [url(0)], "en": ["one"], "de": ["eins"], "nr": ["x"], "fold": ["dev"], "url": ["no"]}
    path = put(tmp_path / "b.csv", in_csv(named))
    columns = {"image": "link", "caption": ("en", "de"), "id": "nr", "split": "fold"}
    assert read_captions(path, **columns) == [(image_id(url(0)), "one"), (image_id(url(0)), "eins")]
    assert read_images(path, **columns) == [(url(0), "val")]


def test_a_row_without_a_url_costs_itself(tmp_path: Path) -> None:
    texts = {"none": None, "empty": "", "path": "0.jpg", "nul": "x://\0", "good": url(0)}
    reasons = ["no URL", "no URL", "no URL", "NUL byte"]
    columns = {"url": list(texts.values()), "text": list(texts)}
    for path in (parquet(tmp_path / "a.parquet", columns), put(tmp_path / "a.jsonl", in_json(columns))):
        assert [one[1] for one in read_captions(path)] == [*reasons, "good"]
        assert [one[0] for one in read_images(path)] == [*reasons, url(0)]
    numbers = put(tmp_path / "b.jsonl", b'{"url": 7, "text": "one"}\n{"text": "two"}\n')
    assert [one[1] for one in read_captions(numbers)] == ["no URL", "no URL"]


def test_a_corrupt_row_group_costs_its_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"url": [url(n) for n in range(6)], "text": [f"dog {n}" for n in range(6)]})
    corrupt(path, 1, "url")
    assert [one[1] for one in read_captions(path)] == ["dog 0", "dog 1", "unreadable", "unreadable", "dog 4", "dog 5"]


def test_a_row_that_is_not_utf8_costs_itself(tmp_path: Path) -> None:
    texts = pa.array([b"one", b"caf\xe9", b"three"]).cast(pa.binary()).view(pa.string())
    path = parquet(tmp_path / "a.parquet", {"url": pa.array([url(n) for n in range(3)]), "text": texts})
    assert [one[1] for one in read_captions(path)] == ["one", "not UTF-8", "three"]


def test_bytes_in_parquet_are_text(tmp_path: Path) -> None:
    urls, texts = [f"http://h/{n}.jpg".encode() for n in range(3)], ["A café".encode(), b"A \xff", b"A dog"]
    path = parquet(tmp_path / "a.parquet", {"url": urls, "caption": [[one] for one in texts]})
    assert read_images(path) == [("http://h/0.jpg", None), ("not UTF-8", None), ("http://h/2.jpg", None)]
    assert [text for _, text in read_captions(path)] == ["A café", "not UTF-8", "A dog"]


def test_a_parquet_file_with_names_that_are_not_utf8_is_one_failed_record(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "a.parquet", {"url": [url(0)], "text": ["one"], "caf_": ["x"]}))
    path.write_bytes(path.read_bytes().replace(b"caf_", b"caf\xe9"))
    assert [one[1] for one in read_captions(str(path))] == ["unreadable"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_lines_end_as_the_first_one_does_in_a_file_of_any_size(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_BLOCK_BYTES", "MAX_LINE"):
        monkeypatch.setattr(text_files, name, 256)
    columns = {"url": [url(n) for n in range(100)], "text": [f"dog {n}" for n in range(100)]}
    lines = (in_csv(columns) if kind == "csv" else in_json(columns)).splitlines()
    lines[1] = lines[1].replace(b"dog 0", b"dog\n0").replace(b", ", b",\n")
    path = put(tmp_path / f"a.{kind}", b"\r".join(lines))
    first = ["dog\n0", "dog 1"] if kind == "csv" else ["dog 0", *["mixed line ends"] * 2]
    assert [one[1] for one in read_captions(path)] == first + [f"dog {n}" for n in range(2, 100)]


def test_failed_lines_of_all_blocks_have_positions_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 256)
    path = put(tmp_path / "a.jsonl", b"".join(b"no JSON\n" if n % 9 else b"no\rJSON\n" for n in range(400)))
    found = [one[0] for one in read_captions(path)]
    assert len(set(found)) == len(found) == 400 + 45


def test_a_list_that_may_not_be_read_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    paths = [parquet(tmp_path / "a.parquet", table()), put(tmp_path / "a.csv", in_csv(table()))]
    for module in (text_files, parquet_rows):
        monkeypatch.setattr(module, "open_file", refuse)
    for path in paths:
        with pytest.raises(CaptError, match="Permission denied"):
            read_captions(path)


def test_gzip_and_bzip2_of_several_parts_and_with_padding_are_read_to_the_end(tmp_path: Path) -> None:
    data = in_json(table(50))
    padded = put(tmp_path / "a.jsonl.gz", gzip.compress(data) + bytes(100))
    parts = put(tmp_path / "a.jsonl.bz2", b"".join(map(bz2.compress, (data[:99], b"", data[99:]))))
    skippable = put(tmp_path / "a.jsonl.zst", b"\x50\x2a\x4d\x18\1\0\0\0x" + pa.compress(data, "zstd", asbytes=True))
    wide = data.decode().encode("utf-16")
    divided = put(tmp_path / "c.jsonl.gz", gzip.compress(wide[:1]) + gzip.compress(wide[1:]))
    for path in (padded, parts, skippable, divided):
        assert read_captions(path) == read_captions(put(tmp_path / "b.jsonl", data))


def test_keys_are_found_after_lines_that_are_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 256)
    path = put(tmp_path / "a.jsonl", b"no JSON\n" * 100 + in_json({"LINK": [url(0)], "TEXT": ["one"]}))
    assert read_captions(path)[100:] == [(image_id(url(0)), "one")]


def test_messages_have_no_password(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", b'{"url": "http://user:secret@host/a.jpg", "text": null}\n')
    (failed,) = open_reader("urls", [path]).read_captions()
    assert isinstance(failed, FailedRecord)
    assert "secret" not in failed.detail


def test_a_corrupt_or_empty_file_is_one_failed_record(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", b"PAR1 no more")
    put(tmp_path / "b.csv", b"")
    put(tmp_path / "c.jsonl", b"")
    put(tmp_path / "d.jsonl", b"no JSON\n[]\n" + in_json({"url": [url(0)], "text": ["one"]}))
    put(tmp_path / "e.jsonl.gz", gzip.compress(b"")[:-6])
    found = [
        ("a.parquet", "unreadable"),
        ("b.csv", "no header"),
        ("d.jsonl:1", "not JSON"),
        ("d.jsonl:2", "not an object"),
    ]
    assert read_captions(str(tmp_path)) == [*found, (image_id(url(0)), "one"), ("e.jsonl.gz", "unreadable")]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_lines_before_a_truncation_are_read(compression: str, suffix: str, tmp_path: Path) -> None:
    texts = [hashlib.sha512(bytes([n % 256, n // 256])).hexdigest() for n in range(4000)]
    columns = {"url": [url(n) for n in range(4000)], "text": texts}
    data = in_csv(columns) if suffix == "csv" else in_json(columns)
    packed = gzip.compress(data) if compression == "gzip" else pa.compress(data, "zstd", asbytes=True)
    path = put(tmp_path / f"a.{suffix}.gz", packed[: len(packed) // 2])
    *found, (location, reason) = read_captions(path)
    assert (location, reason) == (f"a.{suffix}.gz", "unreadable")
    assert [one[1] for one in found] == texts[: len(found)]
    assert 1000 < len(found) < 4000


def test_rows_continue_from_one_block_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"url": [url(n) for n in range(500)], "text": [f'"{n}",\n' * (n % 7 + 1) for n in range(500)]}
    paths = [put(tmp_path / "a.csv", in_csv(columns)), put(tmp_path / "b.jsonl", in_json(columns))]
    expected = [read_captions(path) for path in paths]
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 200)
    monkeypatch.setattr(csv_rows, "MAX_ROW", 300)
    assert [read_captions(path) for path in paths] == expected
    assert [len(one) for one in expected] == [500, 500]


def test_lines_keep_their_numbers_and_a_long_line_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [in_json({"url": [url(n)], "text": ["x" * (2000 if n == 5 else 5)]}) for n in range(9)]
    path = put(tmp_path / "a.jsonl", b"\n".join([*lines, b"no JSON"]))
    for module in ("features.inputs.text_files", "features.text.lines"):
        monkeypatch.setattr(f"{module}.MAX_LINE", 1000)
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 300)
    failed = [(where, reason) for where, reason in read_captions(path) if "jsonl" in where]
    assert failed == [("a.jsonl:11", "too long"), ("a.jsonl:19", "not JSON")]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.txt", b"https://example.com/1.jpg\n", "Rename the file"),
        ("a.csv", b"link to it,text\nhttps://example.com/1.jpg,a dog\n", "no column with a usual name for the image"),
        ("a.csv", b"\xfd7zXZ\0\0\0", "only gzip, zstd and bzip2"),
    ],
)
def test_a_file_of_another_format_is_wrong_usage(name: str, data: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem):
        read_captions(put(tmp_path / name, data))


def test_lists_and_columns_are_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--annotations"):
        open_reader("urls", [])
    with pytest.raises(UsageError, match="--hash-column"):
        open_reader("csv", [str(tmp_path)], columns=CaptionColumns(hash="md5"))


# === Downloads ===


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def prepare(root: Path, *lists: str, **options: Any) -> dict[str, Any]:
    given = {"store": str(root / "S"), "dataset_type": "urls", "images": [str(root / "images")], "annotations": lists}
    result: dict[str, Any] = capt.prepare_features(**{**given, "allow_private_addresses": True, **SIZE, **options})
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def test_images_are_downloaded_once_and_captions_belong_to_them(tmp_path: Path, server: ImageServer) -> None:
    urls = [server.url(f"/{n}.jpg") for n in (0, 1, 0, 2)] + [server.url("/gone"), "ftp://127.0.0.1/x.jpg", None]
    urls += [server.on("/refused", answer(body=jpeg(5), X_Robots_Tag="noai"))]
    texts = ["one", "two", "three", "", "five", "six", "seven", "eight"]
    path = parquet(tmp_path / "laion.parquet", {"URL": urls, "TEXT": texts})
    result = prepare(tmp_path, path)
    assert (result["input"], result["ok"]) == (7, 3)
    assert result["reasons"] == {"http 404": 1, "no URL": 1, "robots tag": 1, "scheme": 1}
    assert server.requests == {"/0.jpg": 1, "/1.jpg": 1, "/2.jpg": 1, "/gone": 1, "/refused": 1}
    again = prepare(tmp_path, path, ignore_robots_tag=True)
    assert (again["cached"], again["ok"], again["failed"], server.requests.total()) == (3, 1, 3, 6)
    captions = capt.prepare_captions(store=str(tmp_path / "S"), dataset_type="urls", annotations=[path], dry_run=True)
    assert (captions["input"], captions["ok"], captions["reasons"]) == (8, 6, {"empty": 1, "no URL": 1})


def test_a_list_without_urls_fails_row_by_row(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", b"url,text\n,one\n0.jpg,two\n")
    result = prepare(tmp_path, path)
    assert (result["input"], result["reasons"], result["downloads"]) == (2, {"no URL": 2}, 0)


def hashes(number: int) -> list[str]:
    data = jpeg(number)
    return [hashlib.md5(data).hexdigest(), hashlib.sha1(data).hexdigest().upper(), hashlib.sha256(data).hexdigest()]


def test_images_have_their_expected_hashes(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.name_matching._DISTRUST_NS", 0)  # The hashes of new files are kept, too.
    expected = [*hashes(0)[:1], *hashes(1)[1:2], *hashes(2)[2:], *hashes(3)[:2], "", hashes(9)[0], hashes(9)[2], "12"]
    numbers = [0, 1, 2, 3, 3, 4, 5, 6, 7]
    columns = {"url": [server.url(f"/{n}.jpg") for n in numbers], "text": ["x"] * 9, "digest": expected}
    path = put(tmp_path / "a.csv", in_csv(columns))
    assert prepare(tmp_path, path)["ok"] == 8  # Without the option, any file is accepted.
    reasons = {"bad hash": 1, "hash mismatch": 2, "two hashes": 1}
    for _ in range(2):
        result = prepare(tmp_path, path, hash_column="digest")
        assert (result["input"], result["cached"], result["reasons"]) == (8, 4, reasons)
    assert server.requests.total() == 8


def test_a_url_has_one_hash_but_rows_may_lack_it(tmp_path: Path, server: ImageServer) -> None:
    address = server.on("/a", answer(body=jpeg(1)))
    columns = {"url": [address] * 3, "text": ["one", "two", "three"], "md5": [None, hashes(1)[0], None]}
    result = prepare(tmp_path, parquet(tmp_path / "a.parquet", columns), hash_column="md5")
    assert (result["input"], result["ok"]) == (1, 1)
    (tmp_path / "images" / build_download_name(address)).write_bytes(jpeg(2))
    result = prepare(tmp_path, parquet(tmp_path / "a.parquet", columns), hash_column="md5")
    assert result["reasons"] == {"hash mismatch": 1}
