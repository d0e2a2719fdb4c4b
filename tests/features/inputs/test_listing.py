"""Directories, zips and users' names are listed, and no name leads outside."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.inputs import is_collection, list_files
from schemas.errors import UsageError


def test_a_directory_is_listed_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg", "deep/er/c.jpg", ".hidden.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    found = {entry.name: entry for entry in list_files(str(tmp_path))}
    assert set(found) == {"a.jpg", "deep/b.jpg", "deep/er/c.jpg"}
    assert found["deep/b.jpg"].reference.read() == b"deep/b.jpg"


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.jpg", b"first")
        archive.writestr("__MACOSX/images/._a.jpg", b"noise")
    (entry,) = list_files(str(path))
    assert (entry.name, entry.reference.read(), entry.size) == ("images/a.jpg", b"first", 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images.zip"]


def test_the_stamp_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    (before,) = list_files(str(tmp_path))
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    (after,) = list_files(str(tmp_path))
    assert before.stamp != after.stamp


def test_a_member_named_to_escape_stays_inside_its_archive(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.jpg", b"data")
    (entry,) = list_files(str(path))
    assert entry.reference.read() == b"data"
    assert not (tmp_path.parent / "escaped.jpg").exists()


def test_other_files_and_missing_paths_are_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    with pytest.raises(UsageError, match="neither a directory nor"):
        list(list_files(str(tmp_path / "text")))
    with pytest.raises(UsageError, match="no such directory"):
        list(list_files(str(tmp_path / "nowhere")))


def test_an_empty_path_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--images: no such directory or archive"):
        list(list_files(""))


def test_collections_are_recognized_without_a_request(tmp_path: Path) -> None:
    many = [str(tmp_path), "a.ZIP", "a.tar", "a.tar.gz", "s3://bucket", "gs://bucket/images", "s3://bucket/a.tar"]
    assert all(is_collection(name) for name in many)
    assert not any(is_collection(name) for name in ("a.jpg", "s3://bucket/a.jpg", str(tmp_path / "nowhere")))


def test_an_entry_of_unknown_type_is_listed_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"data")
    (tmp_path / "b.jpg").write_bytes(b"data")
    scandir = os.scandir

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self.stat = entry.name, entry.path, entry.stat

        def is_dir(self, follow_symlinks: bool = True) -> bool:
            raise OSError("stale handle")

    @contextlib.contextmanager
    def hostile(path: str) -> Iterator[Iterator[Entry]]:
        with scandir(path) as entries:
            yield (Entry(entry) for entry in entries)

    monkeypatch.setattr(os, "scandir", hostile)
    assert sorted(found.name for found in list_files(str(tmp_path))) == ["a.jpg", "b.jpg"]
