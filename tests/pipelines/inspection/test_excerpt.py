"""What `capt inspect` copies from archives is limited, whatever their names and sizes."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipelines.inspection.contents import list_contents
from pipelines.inspection.excerpt import Excerpt
from pipelines.inspection.problems import Problems
from schemas.errors import CaptError
from tests.pipelines.inspection.printed_commands import inspect

LINE = json.dumps({"image": "a.jpg", "caption": "A dog runs."}) + "\n"


def test_files_are_copied_once_and_together_not_larger_than_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.inspection.excerpt._MAX_COPIED_BYTES", 2 * len(LINE))
    with zipfile.ZipFile(tmp_path / "lines.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jsonl", LINE)
    (contents,) = list_contents(str(tmp_path / "lines.zip"), Problems())
    (tmp_path / "copies").mkdir()
    excerpt = Excerpt(tmp_path / "copies")
    copies = {excerpt.copy_file(contents, file) for file in contents.files[:2] for _ in range(3)}
    assert [Path(path).read_text() for path in sorted(copies)] == [LINE] * 2
    with pytest.raises(CaptError):
        excerpt.copy_file(contents, contents.files[2])
    assert sum(path.stat().st_size for path in (tmp_path / "copies").rglob("*") if path.is_file()) == 2 * len(LINE)


def test_a_large_json_file_in_an_archive_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.inspection.excerpt._MAX_PACKED_JSON_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "lines.zip", "w") as archive:
        archive.writestr("captions_train2017.json", json.dumps({"images": [], "annotations": []}))
    with pytest.raises(CaptError) as caught:
        inspect(tmp_path / "lines.zip")
    assert "larger" in str(caught.value)


def test_a_null_byte_in_a_name_affects_only_its_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "rows.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("zero.jsonl", "good.jsonl"):
            info = tarfile.TarInfo(name)
            info.size = len(LINE)
            info.pax_headers = {"path": "ze\0ro.jsonl"} if name == "zero.jsonl" else {}
            archive.addfile(info, io.BytesIO(LINE.encode()))
    with pytest.raises(CaptError):
        inspect(tmp_path / "rows.tar")


def test_names_of_many_parts_are_found_by_any_end(tmp_path: Path) -> None:
    """The listed ends of a path do not take memory of the square of its length."""
    name = "/".join(["a"] * 5_000 + ["photo.jpg"])
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr(name, b"")
    images = ("photo.jpg", "a/a/photo", "b/photo.jpg", "hoto.jpg")
    (tmp_path / "rows.csv").write_text("image,caption\n" + "".join(f"{image},A dog runs.\n" for image in images))
    (found,) = inspect(tmp_path / "photos.zip", tmp_path / "rows.csv")
    assert [one["found"] for one in found["records"]] == [True, True, False, False]
