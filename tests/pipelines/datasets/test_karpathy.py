"""Karpathy's files give IDs, splits and names; missing fields fail one record."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from features.text.lines import FailedRecord
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.karpathy import KarpathyReader
from schemas.errors import CaptError, UsageError
from tests.pipelines.datasets.entries import bare_entries


def image(number: int, split: str, **more: Any) -> dict[str, Any]:
    sentences = [{"tokens": ["a", "dog"], "raw": "A dog. ", "imgid": number, "sentid": number * 5}]
    return {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences, **more}


def write(tmp_path: Path, *images: Any) -> Path:
    path = tmp_path / "dataset_some.json"
    path.write_text(json.dumps({"dataset": "some", "images": images}))
    return path


def test_coco_images_have_cocos_ids_and_folders(tmp_path: Path) -> None:
    source = KarpathyReader([str(write(tmp_path, image(3, "restval", cocoid=391895, filepath="val2014")))])
    assert bare_entries(source.read_images()) == [ImageEntry("391895", "val2014/3.jpg", "train")]
    assert bare_entries(source.read_captions()) == [CaptionEntry("391895", "15", "A dog. ")]


def test_flickr_images_have_their_own_ids_and_every_split_is_kept(tmp_path: Path) -> None:
    splits = ["train", "restval", "val", "test"]
    source = KarpathyReader([str(write(tmp_path, *(image(number, split) for number, split in enumerate(splits))))])
    assert [entry.split for entry in source.read_images()] == ["train", "train", "val", "test"]
    assert [(entry.image_id, entry.file_name) for entry in source.read_images()][3] == ("3", "3.jpg")


def test_words_are_joined_where_the_raw_text_is_missing(tmp_path: Path) -> None:
    one = image(0, "train")
    del one["sentences"][0]["raw"]
    assert [entry.caption for entry in KarpathyReader([str(write(tmp_path, one))]).read_captions()] == ["a dog"]


def test_the_published_zip_is_read_where_it_holds_one_file_and_refused_with_their_names_else(tmp_path: Path) -> None:
    path = write(tmp_path, image(0, "train"))
    for names in (["dataset_coco.json"], ["dataset_coco.json", "dataset_flickr8k.json"]):
        with zipfile.ZipFile(tmp_path / "caption_datasets.zip", "w") as archive:
            for name in names:
                archive.write(path, name)
        source = KarpathyReader([str(tmp_path / "caption_datasets.zip")])
        if len(names) == 1:
            assert len(bare_entries(source.read_images())) == 1
        else:
            with pytest.raises(UsageError, match=r"dataset_coco\.json, dataset_flickr8k\.json"):
                bare_entries(source.read_images())


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in image(0, "train").items() if name != key}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (without("filename"), "no filename"),
        (without("imgid"), "no imgid"),
        (without("split"), "no split"),
        (image(0, "training"), "unknown split"),
        (image(0, "train", cocoid=None), "bad cocoid"),
        (image(0, "train", filepath=["val2014"]), "no filepath"),
        ({**image(0, "train"), "split": ["train"]}, "unknown split"),
        ({**image(0, "train"), "filename": 7}, "no filename"),
        (7, "not an object"),
    ],
)
def test_an_image_that_cannot_be_read_affects_only_itself(tmp_path: Path, record: Any, reason: str) -> None:
    path = write(tmp_path, record, image(1, "val"))
    failed, sound = KarpathyReader([str(path)]).read_images()
    assert failed.failure is not None
    assert (failed.failure.location, failed.failure.reason) == (f"{path}: images[0]", reason)
    assert (sound.image_id, sound.failure) == ("1", None)


@pytest.mark.parametrize(
    ("record", "place", "reason"),
    [
        (without("imgid"), ": sentences[0]", "no imgid"),
        (without("sentences"), "", "no sentences"),
        (image(0, "train", sentences={}), "", "not a list"),
        (7, "", "not an object"),
        (image(0, "train", sentences=[7]), ": sentences[0]", "not an object"),
        (image(0, "train", sentences=[{"raw": "a"}]), ": sentences[0]", "no sentid"),
        (image(0, "train", sentences=[{"sentid": 1}]), ": sentences[0]", "no tokens"),
        (image(0, "train", sentences=[{"sentid": 1, "tokens": "a b"}]), ": sentences[0]", "caption is not text"),
        (image(0, "train", sentences=[{"sentid": 1, "tokens": ["a", None]}]), ": sentences[0]", "caption is not text"),
        (
            image(0, "train", sentences=[{"sentid": 1, "raw": None, "tokens": ["a"]}]),
            ": sentences[0]",
            "caption is not text",
        ),
    ],
)
def test_a_caption_that_cannot_be_read_affects_only_itself(
    tmp_path: Path, record: Any, place: str, reason: str
) -> None:
    path = write(tmp_path, record, image(1, "val"))
    failed, sound = KarpathyReader([str(path)]).read_captions()
    assert isinstance(failed, FailedRecord)
    assert (failed.location, failed.reason) == (f"{path}: images[0]{place}", reason)
    assert isinstance(sound, CaptionEntry)


@pytest.mark.parametrize("data", [[], {}, {"images": 7}, {"images": {}}])
def test_a_file_without_the_list_is_one_line(tmp_path: Path, data: Any) -> None:
    (tmp_path / "dataset_x.json").write_text(json.dumps(data))
    with pytest.raises(CaptError, match="the list 'images' is missing"):
        bare_entries(KarpathyReader([str(tmp_path / "dataset_x.json")]).read_images())
