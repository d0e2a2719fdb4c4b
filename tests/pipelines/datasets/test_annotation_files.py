"""Annotation files are found in plain files, directories and archives, and each failed record has its location."""

import bz2
import gzip
import lzma
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from features.text.lines import FailedRecord, Line
from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files
from schemas.errors import CaptError, UsageError
from tests.features.buckets import put_s3, s3_server

PATTERN = re.compile(r"(^|/)notes_[^/]*\.txt$")


def found(*names: Path) -> list[AnnotationFile]:
    return list(list_annotation_files([str(name) for name in names], PATTERN, "notes_*.txt"))


def lines(tmp_path: Path, data: bytes) -> list[Line | FailedRecord]:
    (tmp_path / "a.txt").write_bytes(data)
    return list(found(tmp_path / "a.txt")[0].read_lines())


def test_a_plain_file_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "anything").write_bytes(b"x")
    (document,) = found(tmp_path / "anything")
    assert (document.location, document.name, document.read_text()) == (str(tmp_path / "anything"), "anything", b"x")


def test_matching_files_of_directories_and_archives_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("notes_b.txt", "deep/notes_a.txt", "other.txt", "notes_c.json"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(tmp_path / "folder" / "notes_b.txt", "inner/notes_b.txt")
        packed.writestr("__MACOSX/notes_b.txt", "junk")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "folder" / "notes_b.txt", "inner/notes_b.txt")
    places = {
        "folder": ["deep/notes_a.txt", "notes_b.txt"],
        "a.zip": ["inner/notes_b.txt"],
        "a.tar": ["inner/notes_b.txt"],
    }
    for place, names in places.items():
        all_found = found(tmp_path / place)
        assert [document.name for document in all_found] == names
        assert [document.location for document in all_found] == [f"{tmp_path / place}/{name}" for name in names]
        assert all_found[-1].read_text() == b"notes_b.txt"


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such annotation file"):
        found(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="--annotations: no such annotation file"):
        list(list_annotation_files([""], re.compile("x"), "x"))
    with pytest.raises(UsageError, match=r"contains no notes_\*\.txt"):
        found(tmp_path)
    with pytest.raises(UsageError, match="no such annotation file"):
        found(tmp_path / "a.zip")
    (tmp_path / "a.tar").write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"a\.tar"):
        found(tmp_path / "a.tar")


def test_a_file_that_decompresses_to_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes_a.txt", bytes(1002))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(struct.pack("<I", 1002), struct.pack("<I", (4 << 30) - 2)))
    with pytest.raises(CaptError, match="limit of 2,147,483,648 bytes"):
        found(tmp_path / "a.zip")[0].read_text()


def test_lines_are_numbered_without_ends_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    seen = lines(tmp_path, b"\xef\xbb\xbfone\r\n\n  \r\nfour \xe2\x80\xa8 still\nlast")
    location = tmp_path / "a.txt"
    assert seen == [
        Line(f"{location}:1", "one"),
        Line(f"{location}:4", "four \u2028 still"),
        Line(f"{location}:5", "last"),
    ]


def test_a_line_that_is_not_text_fails_alone(tmp_path: Path) -> None:
    seen = lines(tmp_path, b"one\ncaf\xe9\nN\0L\nfour\n")
    assert [line.reason if isinstance(line, FailedRecord) else line.text for line in seen] == [
        "one",
        "not UTF-8",
        "NUL byte",
        "four",
    ]
    assert [line.location.rsplit(":", 1)[1] for line in seen] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    location = tmp_path / "a.txt"
    seen = lines(tmp_path, "one\r\ncafé 🐕\n".encode(encoding))
    assert seen == [Line(f"{location}:1", "one"), Line(f"{location}:2", "café 🐕")]


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_an_unpaired_surrogate_in_utf16_fails_its_line_only(tmp_path: Path, order: str) -> None:
    seen = lines(tmp_path, "\ufeffone\n\ud800\nthree\n".encode(order, "surrogatepass"))
    assert [line.reason if isinstance(line, FailedRecord) else line.text for line in seen] == [
        "one",
        "not UTF-8",
        "three",
    ]


def test_utf16_that_ends_within_a_character_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CaptError, match=r"a\.txt: invalid UTF-16"):
        lines(tmp_path, "one".encode("utf-16")[:-1])


def test_lines_that_end_in_cr_alone_are_lines(tmp_path: Path) -> None:
    location = tmp_path / "a.txt"
    assert lines(tmp_path, b"one\r\rthree\rfour") == [
        Line(f"{location}:1", "one"),
        Line(f"{location}:3", "three"),
        Line(f"{location}:4", "four"),
    ]


def test_each_part_of_a_line_that_cr_divides_among_lf_is_a_failed_record(tmp_path: Path) -> None:
    location = tmp_path / "a.txt"
    one, *parts, last = lines(tmp_path, b"one\r\r\ntwo\rthree\nfour\n")
    assert (one, last) == (Line(f"{location}:1", "one"), Line(f"{location}:3", "four"))
    assert [(part.location, part.reason) for part in parts if isinstance(part, FailedRecord)] == [
        (f"{location}:2 part 1", "mixed line ends"),
        (f"{location}:2 part 2", "mixed line ends"),
    ]


def test_a_line_above_the_limit_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.text.lines.MAX_LINE", 5)
    seen = lines(tmp_path, b"one\n" + b"x" * 6 + b"\nthree\n")
    assert [line.reason if isinstance(line, FailedRecord) else line.text for line in seen] == [
        "one",
        "too long",
        "three",
    ]


def test_gzip_is_detected_by_content_and_its_suffix_is_removed_from_the_name(tmp_path: Path) -> None:
    (tmp_path / "notes_a.txt.gz").write_bytes(gzip.compress(b"on") + gzip.compress(b"e\n"))
    (tmp_path / "notes_b.txt").write_bytes(gzip.compress(b"two\n"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "notes_a.txt.gz", "inner/notes_a.txt.gz")
    for place in (tmp_path, tmp_path / "a.zip", tmp_path / "notes_a.txt.gz"):
        document = found(place)[0]
        assert document.name.endswith("notes_a.txt")
        assert [line.text for line in document.read_lines() if isinstance(line, Line)] == ["one"]
    assert [document.read_text() for document in found(tmp_path)] == [b"one\n", b"two\n"]


def test_a_file_that_is_both_plain_and_compressed_is_wrong_usage(tmp_path: Path) -> None:
    for name in ("notes_a.txt", "notes_a.txt.gz"):
        (tmp_path / name).write_bytes(b"one\n")
    with pytest.raises(UsageError, match=r"notes_a\.txt plain and compressed"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (gzip.compress(b"one\n" * 100)[:-9], "corrupt gzip data"),
        (gzip.compress(b"one\n")[:5], "corrupt gzip data"),
        (gzip.compress(b"one\n") + b"more", "corrupt gzip data"),
        (gzip.compress(b"one\n" * 100)[:-8] + bytes(8), "corrupt gzip data"),
        (bz2.compress(b"one\n"), "`bunzip2 a.txt`"),
        (lzma.compress(b"one\n"), "`unxz a.txt`"),
    ],
    ids=["truncated gzip", "gzip header only", "bytes after gzip", "wrong gzip checksum", "bzip2", "xz"],
)
def test_a_compressed_file_that_cannot_be_read_is_one_line(tmp_path: Path, data: bytes, line: str) -> None:
    with pytest.raises(CaptError, match=line):
        lines(tmp_path, data)


def test_the_limit_counts_the_unpacked_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.datasets.annotation_files.MAX_BYTES", 1000)
    for size, is_read in ((1000, True), (1001, False), (100_000, False)):
        (tmp_path / "a.txt").write_bytes(gzip.compress(b"x" * size))
        if is_read:
            assert len(found(tmp_path / "a.txt")[0].read_text()) == size
        else:
            with pytest.raises(CaptError, match="larger than the limit"):
                found(tmp_path / "a.txt")[0].read_text()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_invalid_json_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(CaptError, match=r"a\.json: not JSON") as caught:
        found(tmp_path / "a.json")[0].read_json()
    assert len(str(caught.value)) < 500


def test_existing_siblings_of_a_plain_file_are_found(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(name.encode())
    (document,) = found(tmp_path / "a.txt")
    assert [other.read_text() for other in document.find_siblings(["b.txt", "c.txt"])] == [b"b.txt"]


def test_uris_of_a_bucket_are_read_like_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes_c.txt", "c")
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for name in ("notes_a.txt", "deep/notes_b.txt", "other.txt"):
            put_s3(environment, f"texts/{name}", name.encode())
        root = put_s3(environment, "texts/a.zip", (tmp_path / "a.zip").read_bytes()).removesuffix("/a.zip")

        def read(*names: str) -> dict[str, bytes]:
            found = list_annotation_files([f"{root}{name}" for name in names], PATTERN, "notes_*.txt")
            return {document.location.removeprefix(root): document.read_text() for document in found}

        assert read("/a.zip", "/other.txt") == {"/a.zip/notes_c.txt": b"c", "/other.txt": b"other.txt"}
        assert read("") == {"/deep/notes_b.txt": b"deep/notes_b.txt", "/notes_a.txt": b"notes_a.txt"}
        (document,) = list_annotation_files([f"{root}/other.txt"], PATTERN, "notes_*.txt")
        assert [other.read_text() for other in document.find_siblings(["notes_a.txt", "no.txt"])] == [b"notes_a.txt"]
        with pytest.raises(CaptError, match=r"s3://pictures/texts/no\.txt: the file cannot be read: missing"):
            read("/no.txt")
        with pytest.raises(UsageError, match="the bucket is missing, or contains nothing"):
            read("/no.zip")
