"""The images that `capt caption` is told to look at: files, folders, archives and addresses."""

import tarfile
from pathlib import Path

import pytest

from schemas.errors import RecordError
from trainer.inference.image_inputs import find_images, print_results


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


def test_the_texts_are_printed_on_standard_output_and_written_files_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"image": "a.jpg", "text": "a dog", "attention": "maps-1.png"},
        {"image": "b.jpg", "error": "decode: truncated"},
        {"image": "c.jpg", "text": "", "attention_error": "draw: unexpected"},
        {"image": "d.jpg", "text": "a cat", "attention": "maps-4.png"},
    ]
    print_results({"results": rows, "page_path": "page.html"})
    printed = capsys.readouterr()
    assert printed.out == "a.jpg\ta dog\nb.jpg\tdecode: truncated\nc.jpg\t\nd.jpg\ta cat\n"
    assert printed.err.splitlines() == [
        "attention maps: maps-1.png to maps-4.png, 2 files",
        "no attention maps of c.jpg: draw: unexpected",
        "page: page.html",
    ]
    print_results({"results": rows[:1]})
    assert capsys.readouterr().err == "attention maps: maps-1.png\n"
    print_results({"results": [{"image": "a.png", "text": "thus"}]})
    assert capsys.readouterr().err == ""
