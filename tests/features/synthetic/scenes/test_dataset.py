"""Datasets of scenes have COCO's layout, depend only on their settings, and are written atomically."""

import json

import pytest

import capt
from features.synthetic.scenes import dataset
from features.synthetic.scenes.dataset import load_scenes, make_scenes
from features.synthetic.scenes.generator import SceneDatasetConfig, make_scene
from features.synthetic.scenes.grammar import CAPTIONS
from schemas.errors import UsageError

CONFIG = SceneDatasetConfig(object_counts=(2, 3), held_out_fraction=0.125)


def read_files(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "scenes"
    return out, make_scenes(out, 20, 7)


def test_the_dataset_has_cocos_layout(made):
    out, summary = made
    assert summary == {
        "images": 20,
        "captions": 100,
        "train": 16,
        "val": 4,
        "bytes": sum(map(len, read_files(out).values())),
        "seed": 7,
    }
    splits = {}
    for split in ("train", "val"):
        data = json.loads((out / "annotations" / f"captions_{split}2017.json").read_text())
        splits[split] = [image["id"] for image in data["images"]]
        assert all((out / "images" / image["file_name"]).is_file() for image in data["images"])
        image_ids = [each["image_id"] for each in data["annotations"]]
        assert sorted(image_ids) == sorted(splits[split] * CAPTIONS)
        assert all(each["caption"] for each in data["annotations"])
    assert splits["val"] == [5, 10, 15, 20]
    assert sorted(splits["train"] + splits["val"]) == list(range(1, 21))
    assert sorted(f.name for f in (out / "images").iterdir()) == [f"{n:012d}.jpg" for n in range(1, 21)]


def test_caption_ids_are_unique_over_both_splits(made):
    out, _ = made
    ids = [
        each["id"]
        for split in ("train", "val")
        for each in json.loads((out / "annotations" / f"captions_{split}2017.json").read_text())["annotations"]
    ]
    assert sorted(ids) == list(range(1, 101))


def test_the_ground_truth_of_each_scene_is_stored(made):
    out, _ = made
    assert load_scenes(out) == [make_scene(7, number) for number in range(1, 21)]
    first = json.loads((out / "scenes.jsonl").read_text().splitlines()[0])
    assert first["file_name"] == "000000000001.jpg"
    assert set(first["objects"][0]) == {"size", "color", "shape", "box", "rotation"}


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    out, _ = made
    make_scenes(tmp_path / "again", 20, 7)
    assert read_files(tmp_path / "again") == read_files(out)


def test_a_larger_dataset_starts_with_the_smaller_one(made, tmp_path):
    out, _ = made
    make_scenes(tmp_path / "more", 25, 7)
    images = read_files(out / "images")
    assert images.items() < read_files(tmp_path / "more" / "images").items()
    assert load_scenes(tmp_path / "more")[:20] == load_scenes(out)


def test_an_equal_dataset_is_kept(made):
    out, summary = made
    times = {f: f.stat().st_mtime_ns for f in out.rglob("*")}
    assert make_scenes(out, 20, 7) == summary
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*")} == times


def test_an_empty_directory_is_used(tmp_path):
    assert make_scenes(tmp_path, 5, 0)["images"] == 5


@pytest.mark.parametrize(("count", "seed"), [(20, 8), (21, 7)])
def test_a_directory_with_other_scenes_is_rejected(made, count, seed):
    out, _ = made
    with pytest.raises(UsageError, match="other contents than"):
        make_scenes(out, count, seed)


def test_a_directory_with_something_else_is_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="other contents than"):
        make_scenes(tmp_path, 5, 0)
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


@pytest.mark.parametrize(("count", "seed"), [(4, 0), (5, -1)])
def test_arguments_out_of_range_are_rejected(tmp_path, count, seed):
    with pytest.raises(UsageError):
        make_scenes(tmp_path / "out", count, seed)


def test_a_failed_run_leaves_no_files(tmp_path, monkeypatch):
    def disk_full(scene, seed):
        raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "draw_scene", disk_full)
    with pytest.raises(OSError, match="no space"):
        make_scenes(tmp_path / "out", 5, 0)
    assert list(tmp_path.iterdir()) == []


def test_held_out_combinations_give_a_test_split(tmp_path):
    summary = make_scenes(tmp_path / "out", 50, 1, CONFIG)
    assert [summary[split] for split in ("train", "val", "test")] == [40, 2, 8]
    data = json.loads((tmp_path / "out/annotations/captions_test2017.json").read_text())
    assert [image["id"] for image in data["images"]] == [10, 15, 20, 25, 35, 40, 45, 50]
    assert load_scenes(tmp_path / "out") == [make_scene(1, number, CONFIG) for number in range(1, 51)]
    with pytest.raises(UsageError, match="other contents than"):
        make_scenes(tmp_path / "out", 50, 1)


@pytest.mark.parametrize(("text", "counts"), [("2,3", (2, 3)), ("1", (1,)), ("3, 2", (3, 2))])
def test_object_counts_are_separated_by_commas(tmp_path, text, counts):
    capt.synth_scenes(out=tmp_path / "named", num_images=5, seed=3, objects_per_scene=text)
    make_scenes(tmp_path / "counted", 5, 3, SceneDatasetConfig(object_counts=counts))
    assert read_files(tmp_path / "named") == read_files(tmp_path / "counted")


def test_object_counts_that_are_not_numbers_are_rejected(tmp_path):
    with pytest.raises(UsageError, match="--objects-per-scene: got 'two'"):
        capt.synth_scenes(out=tmp_path / "out", num_images=5, seed=3, objects_per_scene="two")
    assert not list(tmp_path.iterdir())
