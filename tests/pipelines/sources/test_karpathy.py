"""Karpathy's files: ids, splits and names, the published zip, and structure that is missing."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.sources.base import CaptionEntry, ImageEntry
from pipelines.sources.karpathy import Karpathy
from schemas.errors import CaptError, UsageError


def image(number: int, split: str, **more: Any) -> dict[str, Any]:
    sentences = [{"tokens": ["a", "dog"], "raw": "A dog. ", "imgid": number, "sentid": number * 5}]
    return {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences, **more}


def write(tmp_path: Path, *images: Any) -> Path:
    path = tmp_path / "dataset_some.json"
    path.write_text(json.dumps({"dataset": "some", "images": images}))
    return path


def test_coco_images_have_cocos_ids_and_folders(tmp_path: Path) -> None:
    source = Karpathy([str(write(tmp_path, image(3, "restval", cocoid=391895, filepath="val2014")))])
    assert list(source.images()) == [ImageEntry("391895", "val2014/3.jpg", "train")]
    assert list(source.captions()) == [CaptionEntry("391895", "15", "A dog. ")]


def test_flickr_images_have_their_own_ids_and_every_split_is_kept(tmp_path: Path) -> None:
    splits = ["train", "restval", "val", "test"]
    source = Karpathy([str(write(tmp_path, *(image(number, split) for number, split in enumerate(splits))))])
    assert [entry.split for entry in source.images()] == ["train", "train", "val", "test"]
    assert [(entry.image_id, entry.file_name) for entry in source.images()][3] == ("3", "3.jpg")


def test_words_are_joined_where_the_raw_text_is_missing(tmp_path: Path) -> None:
    one = image(0, "train")
    del one["sentences"][0]["raw"]
    assert [entry.caption for entry in Karpathy([str(write(tmp_path, one))]).captions()] == ["a dog"]


def test_the_published_zip_is_read_where_it_holds_one_file_and_refused_with_their_names_else(tmp_path: Path) -> None:
    path = write(tmp_path, image(0, "train"))
    for names in (["dataset_coco.json"], ["dataset_coco.json", "dataset_flickr8k.json"]):
        with zipfile.ZipFile(tmp_path / "caption_datasets.zip", "w") as archive:
            for name in names:
                archive.write(path, name)
        source = Karpathy([str(tmp_path / "caption_datasets.zip")])
        if len(names) == 1:
            assert len(list(source.images())) == 1
        else:
            with pytest.raises(UsageError, match=r"dataset_coco\.json, dataset_flickr8k\.json"):
                list(source.images())


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in image(0, "train").items() if name != key}


@pytest.mark.parametrize(
    ("images", "line"),
    [
        ([image(0, "train"), without("filename")], r"images\[1\]: the key 'filename' is missing"),
        ([without("imgid")], r"images\[0\]: the key 'imgid' is missing"),
        ([without("split")], r"images\[0\]: the key 'split' is missing"),
        ([without("sentences")], r"images\[0\]: the list 'sentences' is missing"),
        ([image(0, "train", sentences=[{"raw": "a"}])], r"images\[0\]: sentences\[0\]: the key 'sentid' is missing"),
        ([image(0, "train", sentences=[{"sentid": 1}])], r"images\[0\]: sentences\[0\]: the key 'tokens' is missing"),
        ([image(0, "train", sentences=[7])], r"images\[0\]: sentences\[0\]: the key 'sentid' is missing"),
        ([image(0, "training")], r"images\[0\]: unknown split: 'training' is none of train, val"),
        ([7], r"images\[0\]: it is no object"),
    ],
)
def test_what_is_missing_is_told_with_its_place(tmp_path: Path, images: list[Any], line: str) -> None:
    source = Karpathy([str(write(tmp_path, *images))])
    with pytest.raises(CaptError, match=line):
        [*source.images(), *source.captions()]
