"""References read files and members, and every failure has its reason."""

import hashlib
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.inputs import FileReference, list_files
from features.inputs.file_reference import read_source_image
from schemas.errors import RecordError


def test_an_unreadable_file_has_a_reason_and_is_not_permanent(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"data" * 100)
    damaged = bytearray((tmp_path / "a.zip").read_bytes())
    damaged[60] ^= 255
    (tmp_path / "b.zip").write_bytes(damaged)
    cases = {
        "missing": [FileReference(str(tmp_path / "no.jpg")), FileReference(str(tmp_path / "a.zip"), "no.jpg")],
        "unreadable": [FileReference(str(tmp_path)), FileReference(str(tmp_path / "b.zip"), "a.jpg")],
    }
    for reason, references in cases.items():
        for reference in references:
            with pytest.raises(RecordError) as caught:
                reference.read()
            assert (caught.value.reason, caught.value.permanent) == (reason, False)


def test_a_reference_has_an_absolute_path_or_a_uri() -> None:
    assert FileReference.from_location("s3://bucket/a.jpg").location == "s3://bucket/a.jpg"
    assert FileReference.from_location("a.jpg").location == str(Path("a.jpg").absolute())


@pytest.mark.parametrize("error", [OverflowError, MemoryError, RecursionError, AssertionError, KeyError, TypeError])
@pytest.mark.parametrize("take", [lambda reference: reference.read(), lambda reference: reference.read_start(8)])
def test_any_exception_while_a_file_or_member_is_read_is_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], take: Callable[[FileReference], bytes]
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"data")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, tarfile.open(tmp_path / "a.tar", "w") as archive:
        packed.writestr("a", b"data")
        archive.add(tmp_path / "files" / "a", "a")
    found = [entry for root in ("files", "a.zip", "a.tar") for entry in list_files(str(tmp_path / root))]
    assert [take(entry.reference) for entry in found] == [b"data"] * 3

    def hostile(*_: object, **__: object) -> bytes:
        raise error("hostile")

    for target in ("pathlib.Path.open", "zipfile.ZipFile.open", "tarfile.TarFile.next"):
        monkeypatch.setattr(target, hostile)
    for entry in found:
        with pytest.raises(RecordError) as caught:
            take(entry.reference)
        assert (caught.value.reason, caught.value.permanent) == (f"unexpected: {error.__name__}", False)


def row(location: Path, data: bytes, member: str = "") -> dict[str, Any]:
    return {"location": str(location), "member": member, "key": hashlib.sha256(data).digest()}


def test_a_source_image_is_read_from_its_file_or_archive(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in/b.png", b"other")
    assert read_source_image(row(tmp_path / "a.png", b"image")) == b"image"
    assert read_source_image(row(tmp_path / "z.zip", b"other", "in/b.png")) == b"other"


@pytest.mark.parametrize("data", [b"another", None])
def test_a_changed_or_missing_source_image_is_none(tmp_path: Path, data: bytes | None) -> None:
    if data:
        (tmp_path / "a.png").write_bytes(data)
    assert read_source_image(row(tmp_path / "a.png", b"image")) is None


def test_a_source_image_without_a_catalog_row_is_none() -> None:
    assert read_source_image(None) is None


def test_a_name_can_be_a_file_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("images/a.jpg", b"data")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip" / "a.jpg").write_bytes(b"other")
    assert FileReference.from_location(str(tmp_path / "a.zip" / "images" / "a.jpg")).read() == b"data"
    assert FileReference.from_location(str(tmp_path / "folder.zip" / "a.jpg")).read() == b"other"
    with pytest.raises(RecordError, match="missing"):
        FileReference.from_location(str(tmp_path / "a.zip" / "no.jpg")).read()
