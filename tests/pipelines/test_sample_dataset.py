"""A sample is a small dataset of unchanged images with their captions, and its seed determines it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import capt
from pipelines.sample_dataset import _make_names_unique
from schemas.errors import CaptError, UsageError
from tests.conftest import zip_of


def sample(out: Path, images: Path, annotations: Path, **options: Any) -> dict[str, Any]:
    given = {"dataset_type": "coco", "annotations": str(annotations), "output": out, **options}
    result: dict[str, Any] = capt.synth_sample(images=str(images), **given)
    return result


def members(out: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(out / "images.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_sample_has_the_bytes_captions_and_splits_of_its_images(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(10), coco(range(10), "captions_val2017.json")
    zip_of(images, tmp_path / "val2017.zip")
    result = sample(tmp_path / "out", tmp_path / "val2017.zip", annotations, rate=0.3)
    assert (result["found"], result["images"], result["captions"]) == (10, 3, 15)
    assert result["splits"] == {"val": 3}
    written = members(tmp_path / "out")
    assert all(data == (images / Path(name).name).read_bytes() for name, data in written.items())
    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    assert {line["image"] for line in lines} == written.keys()
    assert {(line["split"], len(line["captions"])) for line in lines} == {("val", 5)}


def test_a_sample_can_be_prepared(tmp_path: Path, photos: Any, coco: Any) -> None:
    out = tmp_path / "out"
    sample(out, photos(10), coco(range(10), "captions_train2017.json"), rate=0.4)
    common = {"store": tmp_path / "store", "dataset_type": "jsonl", "annotations": out / "captions.jsonl"}
    size = {"extractor": "pixels", "height": 32, "width": 32}
    assert capt.prepare_features(**common, images=out / "images.zip", **size)["ok"] == 4
    assert capt.prepare_captions(**common)["ok"] == 20


def test_the_seed_determines_the_sample_and_samples_nest(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(10), coco(range(10))
    names = {}
    for seed, rate in ((1, 0.3), (2, 0.3), (1, 0.6)):
        out = tmp_path / f"{seed}-{rate}"
        sample(out, images, annotations, rate=rate, seed=seed)
        names[seed, rate] = members(out).keys()
    assert names[1, 0.3] != names[2, 0.3]
    assert names[1, 0.3] < names[1, 0.6]
    again = tmp_path / "again"
    sample(again, images, annotations, rate=0.3, seed=1)
    assert (again / "images.zip").read_bytes() == (tmp_path / "1-0.3" / "images.zip").read_bytes()


def test_without_annotations_the_sample_has_images_only(tmp_path: Path, photos: Any) -> None:
    result = capt.synth_sample(images=str(photos(5)), rate=0.01, output=tmp_path / "out")
    assert (result["images"], result["captions"]) == (1, 0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images.zip", "sample.json"]


def test_two_images_of_one_name_are_both_written(tmp_path: Path, photos: Any) -> None:
    images = photos(2)
    one, other = sorted(images.iterdir())
    for root, photo in (("a", one), ("b", other)):
        (tmp_path / root).mkdir()
        photo.rename(tmp_path / root / "x.jpg")
    roots = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert capt.synth_sample(images=roots, rate=1, output=tmp_path / "out")["images"] == 2
    written = members(tmp_path / "out")
    assert sorted(written) == ["2/x.jpg", "x.jpg"]
    assert len(set(written.values())) == 2


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "..\\x.jpg", "./x.jpg"])
def test_no_name_in_a_sample_leads_out_of_its_archive(name: str) -> None:
    rows = [{"location": str(number), "member": "", "file_name": one} for number, one in enumerate((name, "x.jpg"))]
    for one in _make_names_unique(rows):
        assert not {"", ".", ".."} & set(one["file_name"].replace("\\", "/").split("/"))
    assert len({one["file_name"] for one in _make_names_unique(rows)}) == 2


def test_an_equal_sample_is_kept_and_another_is_refused(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(5), coco(range(5))
    first = sample(tmp_path / "out", images, annotations, rate=0.4)
    time = (tmp_path / "out" / "images.zip").stat().st_mtime_ns
    assert sample(tmp_path / "out", images, annotations, rate=0.4) == first
    assert (tmp_path / "out" / "images.zip").stat().st_mtime_ns == time
    with pytest.raises(UsageError, match="other contents than this sample"):
        sample(tmp_path / "out", images, annotations, rate=0.6)
    annotations.write_text(annotations.read_text().replace("A thing", "The thing"))
    with pytest.raises(UsageError, match="other contents than this sample"):
        sample(tmp_path / "out", images, annotations, rate=0.4)


def test_a_sample_of_changed_images_is_another(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(5), coco(range(5))
    sample(tmp_path / "out", images, annotations, rate=1)
    one, other, *_ = sorted(images.iterdir())
    one.write_bytes(other.read_bytes())
    with pytest.raises(UsageError, match="other contents than this sample"):
        sample(tmp_path / "out", images, annotations, rate=1)


def test_a_caption_that_is_not_valid_text_is_left_out_and_counted(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(2), coco(range(2))
    content = json.loads(annotations.read_text())
    content["annotations"][0]["caption"] = "a \ud800 dog"
    content["annotations"][1]["caption"] = " "
    annotations.write_text(json.dumps(content))
    result = sample(tmp_path / "out", images, annotations, rate=1)
    assert (result["captions"], result["unusable_captions"]) == (8, 2)
    assert sum(len(json.loads(line)["captions"]) for line in (tmp_path / "out" / "captions.jsonl").open()) == 8


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan")])
def test_a_rate_is_a_fraction(tmp_path: Path, photos: Any, coco: Any, rate: float) -> None:
    with pytest.raises(UsageError, match=r"--rate: .* is not above 0 and at most 1"):
        sample(tmp_path / "out", photos(2), coco(range(2)), rate=rate)


def test_a_sample_without_images_is_one_line(tmp_path: Path, photos: Any, coco: Any) -> None:
    with pytest.raises(CaptError, match=r"no image of the annotations is there\. Check --annotations"):
        sample(tmp_path / "out", photos(2), coco(range(5, 7)))
    assert not (tmp_path / "out").exists()
