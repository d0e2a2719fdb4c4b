"""The images that `capt caption` is told to look at: files, folders, archives and addresses."""

import tarfile
from pathlib import Path

import pytest

from schemas.errors import RecordError
from trainer.inference.image_inputs import find_images


def test_directories_and_archives_are_expanded_to_their_images(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.jpg", "deep/a.png", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, ".")
    for root in (folder, tmp_path / "a.tar"):
        pictures = {picture.name: picture.read() for picture in find_images(str(root))}
        assert pictures == {f"{root}/b.jpg": b"b.jpg", f"{root}/deep/a.png": b"deep/a.png"}
    (picture,) = find_images(str(folder / "b.jpg"))
    assert picture.read() == b"b.jpg"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere.jpg", "missing"),
        ("nowhere.tar", "no such directory or archive"),
        ("ftp://host/images", "only s3:// and gs:// are"),
        ("s3://key:word@bucket/a.jpg", "contains credentials"),
    ],
)
def test_an_unreadable_location_is_an_image_that_fails(tmp_path: Path, name: str, line: str) -> None:
    (picture,) = find_images(name if "://" in name else str(tmp_path / name))
    with pytest.raises(RecordError, match=line):
        picture.read()
