"""COCO captions are read in both namings and from the published zip; missing fields fail one record."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from features.text.lines import FailedRecord
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.coco import CocoReader
from schemas.errors import CaptError, UsageError
from tests.pipelines.datasets.entries import bare, bare_entries

DATA = {
    "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}],
    "annotations": [{"id": 48, "image_id": 9, "caption": "A bowl\nof food. "}],
}


def test_train_and_val_come_together_from_files_and_from_the_published_zip(tmp_path: Path) -> None:
    names = ["captions_train2014.json", "captions_val2014.json"]
    with zipfile.ZipFile(tmp_path / "annotations_trainval2014.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_train2014.json", "no captions")
        for name in names:
            (tmp_path / name).write_text(json.dumps(DATA))
            archive.write(tmp_path / name, f"annotations/{name}")
    for annotations in ([tmp_path / name for name in names], [tmp_path / "annotations_trainval2014.zip"]):
        source = CocoReader([str(path) for path in annotations])
        image = "COCO_train2014_000000000009.jpg"
        assert bare_entries(source.read_images()) == [ImageEntry("9", image, "train"), ImageEntry("9", image, "val")]
        assert bare(next(source.read_captions())) == CaptionEntry("9", "48", "A bowl\nof food. ")


def test_the_directory_of_a_file_determines_no_split(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "captions_mine.json").write_text(json.dumps(DATA))
    assert next(CocoReader([str(tmp_path)]).read_images()).split is None


def test_two_years_together_are_refused(tmp_path: Path) -> None:
    for name in ("captions_train2014.json", "captions_val2017.json"):
        (tmp_path / name).write_text(json.dumps(DATA))
    with pytest.raises(UsageError, match="captions of 2014 and 2017 share images"):
        bare_entries(CocoReader([str(tmp_path)]).read_images())


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ([], "the list 'images' is missing"),
        ({"images": {}}, "the list 'images' is missing"),
        ({"images": []}, "the list 'annotations' is missing"),
    ],
)
def test_what_is_missing_is_reported_with_its_location(tmp_path: Path, data: Any, line: str) -> None:
    (tmp_path / "captions_train2017.json").write_text(json.dumps(data))
    source = CocoReader([str(tmp_path / "captions_train2017.json")])
    with pytest.raises(CaptError, match=line):
        [*source.read_images(), *source.read_captions()]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (3, "not an object"),
        ({}, "no id"),
        ({"id": None, "file_name": "a.jpg"}, "bad id"),
        ({"id": True, "file_name": "a.jpg"}, "bad id"),
        ({"id": float("nan"), "file_name": "a.jpg"}, "bad id"),
        ({"id": 1.5, "file_name": "a.jpg"}, "bad id"),
        ({"id": [1], "file_name": "a.jpg"}, "bad id"),
        ({"id": " ", "file_name": "a.jpg"}, "no id"),
        ({"id": 1}, "no file_name"),
        ({"id": 1, "file_name": None}, "no file_name"),
        ({"id": 1, "file_name": ["a.jpg"]}, "no file_name"),
        ({"id": 1, "file_name": ""}, "no file_name"),
        ({"id": 1, "file_name": "a\0.jpg"}, "NUL byte"),
        ({"id": 1, "file_name": "a" * 200_000}, "too long"),
    ],
)
def test_an_image_that_cannot_be_read_affects_only_itself(tmp_path: Path, image: Any, reason: str) -> None:
    path = tmp_path / "captions_train2017.json"
    path.write_text(json.dumps({"images": [image, *DATA["images"]], "annotations": []}))
    failed, sound = CocoReader([str(path)]).read_images()
    assert failed.failure is not None
    assert (failed.failure.location, failed.failure.reason) == (f"{path}: images[0]", reason)
    assert (sound.image_id, sound.failure) == ("9", None)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("A dog", "not an object"),
        ({"id": 1, "image_id": 9}, "no caption"),
        ({"id": 1, "caption": "A dog"}, "no image_id"),
        ({"image_id": 9, "caption": "A dog"}, "no id"),
        ({"id": None, "image_id": 9, "caption": "A dog"}, "bad id"),
        ({"id": 1, "image_id": {}, "caption": "A dog"}, "bad image_id"),
        *(
            ({"id": 1, "image_id": 9, "caption": caption}, "caption is not text")
            for caption in (None, float("nan"), 7, True, ["a", "cat"], {"en": "a dog"})
        ),
    ],
)
def test_an_annotation_that_cannot_be_read_affects_only_itself(tmp_path: Path, annotation: Any, reason: str) -> None:
    path = tmp_path / "captions_train2017.json"
    path.write_text(json.dumps({"images": [], "annotations": [annotation, *DATA["annotations"]]}))
    failed, sound = CocoReader([str(path)]).read_captions()
    assert isinstance(failed, FailedRecord)
    assert (failed.location, failed.reason) == (f"{path}: annotations[0]", reason)
    assert isinstance(sound, CaptionEntry)


def test_whole_numbers_that_are_written_with_a_point_are_the_same_ids(tmp_path: Path) -> None:
    path = tmp_path / "captions_train2017.json"
    path.write_text('{"images": [], "annotations": [{"id": 1.0, "image_id": 9.0, "caption": "None"}]}')
    assert bare_entries(CocoReader([str(path)]).read_captions()) == [CaptionEntry("9", "1", "None")]


def test_annotations_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--annotations: dataset type coco needs annotation files"):
        CocoReader([])
