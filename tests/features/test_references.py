"""References read from folders and archives in place, and no name leads outside."""

import os
import zipfile
from pathlib import Path

import pytest

from features.references import Reference, is_image_name, walk
from schemas.errors import RecordError, UsageError


def test_a_folder_is_walked_with_its_subfolders_but_not_its_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg", "deep/er/c.jpg", ".hidden.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    found = {entry.name: entry for entry in walk(str(tmp_path))}
    assert set(found) == {"a.jpg", "deep/b.jpg", "deep/er/c.jpg"}
    assert found["deep/b.jpg"].reference.read() == b"deep/b.jpg"


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.jpg", b"first")
        archive.writestr("__MACOSX/images/._a.jpg", b"noise")
    (entry,) = walk(str(path))
    assert (entry.name, entry.reference.read(), entry.size) == ("images/a.jpg", b"first", 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images.zip"]


def test_the_stamp_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    (before,) = walk(str(tmp_path))
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    (after,) = walk(str(tmp_path))
    assert before.stamp != after.stamp


def test_a_member_named_to_escape_stays_inside_its_archive(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.jpg", b"data")
    (entry,) = walk(str(path))
    assert entry.reference.read() == b"data"
    assert not (tmp_path.parent / "escaped.jpg").exists()


def test_what_cannot_be_read_is_a_passing_failure_with_its_reason(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"data" * 100)
    damaged = bytearray((tmp_path / "a.zip").read_bytes())
    damaged[60] ^= 255
    (tmp_path / "b.zip").write_bytes(damaged)
    cases = {
        "missing": [Reference(str(tmp_path / "no.jpg")), Reference(str(tmp_path / "a.zip"), "no.jpg")],
        "unreadable": [Reference(str(tmp_path)), Reference(str(tmp_path / "b.zip"), "a.jpg")],
    }
    for reason, references in cases.items():
        for reference in references:
            with pytest.raises(RecordError) as caught:
                reference.read()
            assert (caught.value.reason, caught.value.permanent) == (reason, False)


def test_what_is_neither_a_folder_nor_an_archive_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    with pytest.raises(UsageError, match="neither a directory nor a zip"):
        list(walk(str(tmp_path / "text")))
    with pytest.raises(UsageError, match="no such directory"):
        list(walk(str(tmp_path / "nowhere")))


def test_image_names_are_told_by_their_suffix() -> None:
    assert all(is_image_name(name) for name in ("a.jpg", "A.JPEG", "b/c.png", "d.webp", "e.tif", "f.svg"))
    assert not any(is_image_name(name) for name in ("readme.txt", "a", "captions.json"))
