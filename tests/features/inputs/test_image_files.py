"""Image files are recognized by their suffix or first bytes, on every machine and in every kind of container."""

import io
import mimetypes
import tarfile
import zipfile
from pathlib import Path

import pytest

from features.inputs import FileReference, list_files
from features.inputs.image_files import is_image, is_image_name
from schemas.errors import RecordError
from tests.conftest import noise_image
from tests.features.buckets import put_s3, s3_server


def encode(form: str) -> bytes:
    file = io.BytesIO()
    noise_image(1).save(file, form)
    return file.getvalue()


NAMED = (
    *("a.jpg", "A.JPEG", "b.jfif", "c.pjpeg", "d.mpo", "e.webp", "f.tif", "g.svg", "h.heic", "i.cr2"),
    *("j.avif", "k.jp2", "l.j2k", "m.jpx", "n.ppm", "o.pgm", "p.pbm", "q.pnm", "r.heif"),
    *("data:x.jpg", "deep/er/j.png"),
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
# Contents of each file, and whether it is an image.
FILES = {
    **dict.fromkeys(NAMED, (b"anything", True)),
    **{name: (encode("JPEG"), False) for name in ("readme.txt", "captions.json", "archive.tar.gz")},
    **{f"{form}.unknown": (encode(form), True) for form in FORMATS},
    **{name: (encode("PNG"), True) for name in ("a", "a.jpg?w=500", "a.jpg ", "jpg", "v1.2/0", "a.1")},
    **dict.fromkeys(("LICENSE", "a.txt2", "empty.d/b"), (b"no image", False)),
    "nothing": (b"", False),
}
IMAGES = {name for name, (_, expected) in FILES.items() if expected}


def make_directory(root: Path) -> Path:
    for name, (data, _) in FILES.items():
        path = root / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root / "files"


def make_zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "files.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, _) in FILES.items():
            archive.writestr(name, data)
    return root / "files.zip"


def make_tar(root: Path) -> Path:
    with tarfile.open(root / "files.tar", "w") as archive:
        for name, (data, _) in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return root / "files.tar"


@pytest.mark.parametrize("make", [make_directory, make_zip, make_tar])
def test_the_same_files_are_images_in_directories_and_archives(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    assert {file.name for file in list_files(str(make(tmp_path))) if is_image(file)} == IMAGES


def test_the_machines_table_of_types_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.webp", "a.jfif", "a.jpg", "a.txt"]
    before = [is_image_name(name) for name in names]
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_, **__: (None, None))
    assert [is_image_name(name) for name in names] == before == [True, True, True, False]


def test_only_files_without_a_known_suffix_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_start = FileReference.read_start

    def recorded(self: FileReference, size: int) -> bytes:
        read.append(self.location)
        return read_start(self, size)

    monkeypatch.setattr(FileReference, "read_start", recorded)
    root = make_directory(tmp_path)
    assert {file.name for file in list_files(str(root)) if is_image(file)} == IMAGES
    assert {path.removeprefix(f"{root}/") for path in read} == {name for name in FILES if is_image_name(name) is None}


def test_the_first_bytes_of_files_and_members_are_read(tmp_path: Path) -> None:
    for make in (make_directory, make_zip, make_tar):
        for file in list_files(str(make(tmp_path))):
            assert file.reference.read_start(10) == FILES[file.name][0][:10]
            assert file.reference.read_start(1 << 20) == FILES[file.name][0]
    with pytest.raises(RecordError, match="missing"):
        FileReference(str(tmp_path / "no")).read_start(10)
    with pytest.raises(RecordError, match="missing"):
        FileReference(str(tmp_path / "files.tar"), "no@0").read_start(10)


def test_an_unreadable_file_counts_as_an_image(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "lost").symlink_to(tmp_path / "nowhere")
    (file,) = list_files(str(tmp_path / "files"))
    assert is_image(file)


def test_the_same_objects_in_a_bucket_are_images(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        keys = list(FILES)
        root = put_s3(environment, "files/a.jpg", FILES["a.jpg"][0]).removesuffix("/a.jpg")
        for name in keys:
            put_s3(environment, f"files/{name}", FILES[name][0])
        assert {file.name for file in list_files(root) if is_image(file)} == IMAGES & set(keys)
