"""Splits: stated by the input or hashed, assigned once, the same for features and captions, whoever runs at once."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from features.io.locations import parse_location
from features.store import Dataset, commit_log
from features.store.layout import DATASETS
from features.text.record_fields import find_split_in_name
from schemas.errors import StoreError
from tests.conftest import noise_image
from tests.features.buckets import BUCKET, bucket

PIXELS: dict[str, Any] = {
    "extractor": "pixels",
    "storage_dtype": "uint8",
    "height": 8,
    "width": 8,
    "max_failures": "100%",
}
COUNT = 8
VECTORS: dict[str, Any] = {
    "extractor": "mobilenet_v3_small",
    "weights": "random:7",
    "storage_dtype": "float32",
    "pooling": "avg",
}
VECTORS |= {"height": 32, "width": 32}

Job = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder of images."""
    monkeypatch.chdir(tmp_path)
    draw(Path("images"), range(COUNT))
    return tmp_path


def draw(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        noise_image(number, 12, 9).save(folder / f"a{number}.png")


def rows(*lines: str, file: str = "c.csv") -> None:
    Path(file).write_text("\n".join(("image,caption,split", *lines)) + "\n")


def rows_of(numbers: range, split: str = "") -> list[str]:
    return [f"a{number}.png,word{number} here,{split}" for number in numbers]


def features(store: str = "store", **options: Any) -> dict[str, Any]:
    given = {"dataset_type": "csv", "images": ["images"], "annotations": ["c.csv"], **PIXELS, **options}
    result: dict[str, Any] = capt.prepare_features(store=store, **given)
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def captions(store: str = "store", **options: Any) -> dict[str, Any]:
    given = {"dataset_type": "csv", "annotations": ["c.csv"], "max_failures": "100%", **options}
    result: dict[str, Any] = capt.prepare_captions(store=store, **given)
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def assigned(store: str = "store", name: str = "csv") -> dict[str, str]:
    """The splits that the dataset has assigned, those of absent images included."""
    dataset = Dataset(parse_location(store) / DATASETS / name)
    if not dataset.manifests:
        return {}
    batches = [*(dataset.record_batches() if dataset.has_images else ()), *dataset.absent_splits()]
    pairs = [pair for one in batches for pair in zip(*(one[n].to_pylist() for n in ("image_id", "split")), strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def catalogued(store: str = "store", name: str = "csv") -> dict[str, str]:
    rows = capt.open_store(store).dataset(name).catalog().to_pylist()
    return {row["image_id"]: row["split"] for row in rows}


def captioned(store: str = "store") -> dict[str, str]:
    """The splits of the captions in all tables, which agree."""
    tables = [table.captions().to_pylist() for table in capt.open_store(store).caption_tables()]
    pairs = {(row["image_id"], row["split"]) for table in tables for row in table}
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


# === A split once assigned stays ===


@pytest.mark.parametrize("first", ["captions", "features"])
def test_features_and_captions_agree_whichever_is_prepared_first(first: str) -> None:
    rows(*rows_of(range(COUNT)))
    jobs: dict[str, Job] = {"captions": captions, "features": features}
    jobs.pop(first)(split_ratios="1,0,0")
    (second,) = jobs.values()
    result = second(split_ratios="0,1,0")
    assert set(captioned().values()) == {"train"}
    assert catalogued() == captioned()
    assert result["splits"] == {"hashed": 0, "kept": COUNT}


def test_captions_of_new_images_take_splits_that_features_take_later() -> None:
    rows(*rows_of(range(4)))
    features(split_ratios="1,0,0")
    rows(*rows_of(range(COUNT)))
    captions(split_ratios="0.5,0.25,0.25")
    before = assigned()
    assert catalogued() == {f"a{number}.png": "train" for number in range(4)}
    features(split_ratios="0,0,1")
    assert assigned() == before == captioned() == catalogued()


@pytest.mark.parametrize("runs", [1, 2])
def test_an_image_that_was_missing_for_some_runs_comes_back_in_its_split(runs: int) -> None:
    rows(*rows_of(range(COUNT)))
    features(split_ratios="0,0,1")
    for number in (2, 5):
        Path(f"images/a{number}.png").rename(f"a{number}.away")
    for _ in range(runs):
        assert features(split_ratios="1,0,0")["failed"] == 2
        assert set(catalogued()) == {f"a{number}.png" for number in (0, 1, 3, 4, 6, 7)}
    for number in (2, 5):
        Path(f"a{number}.away").rename(f"images/a{number}.png")
    result = features(split_ratios="1,0,0")
    assert (result["failed"], result["splits"]["kept"]) == (0, COUNT)
    assert set(catalogued().values()) == {"test"}


def test_an_image_that_the_annotations_left_out_comes_back_in_its_split() -> None:
    rows(*rows_of(range(COUNT), "test"))
    features()
    rows(*rows_of(range(3), "test"))
    features()
    rows(*rows_of(range(COUNT), "train"))
    assert features()["splits"] == {"hashed": 0, "kept": COUNT}
    assert set(catalogued().values()) == {"test"}


def test_an_image_that_failed_from_the_first_run_on_keeps_its_split() -> None:
    Path("images/a0.png").write_bytes(b"no image")
    rows(*rows_of(range(COUNT), "val"))
    assert features()["failed"] == 1
    noise_image(0, 12, 9).save("images/a0.png")
    rows(*rows_of(range(COUNT)))
    features(split_ratios="1,0,0", retry_failed=True)
    assert catalogued()["a0.png"] == "val"


def test_a_limit_assigns_no_split_to_images_that_it_leaves_out() -> None:
    rows(*rows_of(range(COUNT)))
    features(limit_images=3, split_ratios="0,0,1")
    assert len(assigned()) == 3
    features(split_ratios="1,0,0")
    assert Counter(catalogued().values()) == {"test": 3, "train": COUNT - 3}


def test_captchas_keep_their_split_by_position() -> None:
    draw(Path("captchas"), range(14))
    Path("labels.txt").write_text("".join(f"a{number} word\n" for number in range(12)))
    options = {"store": "store", "images": ["captchas"], "labels": "labels.txt", "max_failures": "100%"}
    capt.prepare_captcha(**options)
    before = catalogued(name="captcha")
    assert Counter(before.values()) == {"train": 10, "val": 2, "test": 2}
    Path("away").mkdir()
    for path in Path("captchas").glob("a*.png"):
        if path.name != "a0.png":
            path.rename(Path("away") / path.name)
    assert capt.prepare_captcha(**options)["failed"] == 11
    for path in Path("away").glob("*.png"):
        path.rename(Path("captchas") / path.name)
    assert capt.prepare_captcha(**options)["splits"] == {"hashed": 0, "kept": 0}
    assert catalogued(name="captcha") == before
    assert capt.prepare_captcha(split_sizes="8,4,2", **options)["splits"] == {"hashed": 0, "kept": 2}
    assert catalogued(name="captcha") == before


def test_a_dataset_that_was_dropped_is_assigned_anew() -> None:
    rows(*rows_of(range(COUNT)))
    captions(split_ratios="1,0,0")
    features()
    capt.store_drop(store="store", dataset="csv")
    assert features(split_ratios="0,0,1")["splits"] == {"hashed": COUNT, "kept": 0}
    assert set(catalogued().values()) == {"test"}


def test_captions_alone_are_dropped_with_their_splits() -> None:
    rows(*rows_of(range(COUNT)))
    captions(split_ratios="1,0,0")
    assert capt.store_ls(store="store")["datasets"] == []
    capt.store_drop(store="store", dataset="csv")
    assert (assigned(), capt.open_store("store").caption_tables()) == ({}, [])


# === Reports on splits ===


def test_a_changed_split_column_counts_the_images_that_keep_their_split() -> None:
    rows("a0.png,one,train", "a1.png,two,train")
    assert features()["splits"] == {"hashed": 0, "kept": 0}
    rows("a0.png,one,train", "a1.png,two,test")
    for job, plan in ((features, True), (features, False), (captions, True), (captions, False), (captions, False)):
        assert job(dry_run=plan)["splits"] == {"hashed": 0, "kept": 1}
    assert catalogued() == captioned() == {"a0.png": "train", "a1.png": "train"}


def test_splits_that_nobody_states_are_counted_as_hashed_once() -> None:
    rows(*rows_of(range(5)), *rows_of(range(5, COUNT), "val"))
    assert features(dry_run=True)["splits"] == {"hashed": 5, "kept": 0}
    assert features()["splits"] == {"hashed": 5, "kept": 0}
    assert features()["splits"] == {"hashed": 0, "kept": 0}
    assert captions()["splits"] == {"hashed": 0, "kept": 0}


# === Names of files ===


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train2017.json", "train"),
        ("captions_val2014.json", "val"),
        ("train.json", "train"),
        ("captions_train.json", "train"),
        ("Training.tsv", "train"),
        ("Train_GCC-training.tsv", "train"),
        ("GCC-1.1.0-Validation.tsv", "val"),
        ("annotations/dev.json", "val"),
        ("image_info_test-dev2017.json", "test"),
        ("captions_test.json", "test"),
        ("train/captions.json", None),
        ("captions_trainval2014.json", None),
        ("train_val.json", None),
        ("constraint.json", None),
        ("latest.json", None),
        ("évaluation.json", None),
        ("interval2017.json", None),
        ("", None),
    ],
)
def test_a_name_states_the_split_that_is_a_word_of_its_last_part(name: str, split: str | None) -> None:
    assert find_split_in_name(name) == split


@pytest.mark.parametrize(
    "names",
    [("captions_train.json", "captions_val.json"), ("train.json", "val.json"), ("train.json", "validation.json")],
)
def test_names_of_coco_files_without_a_year_state_splits(names: tuple[str, str]) -> None:
    for name, numbers in zip(names, (range(4), range(4, COUNT)), strict=True):
        images = [{"id": number, "file_name": f"a{number}.png"} for number in numbers]
        annotations = [{"id": number, "image_id": number, "caption": f"word{number} here"} for number in numbers]
        Path(name).write_text(json.dumps({"images": images, "annotations": annotations}))
    for job in (captions, features):
        assert job(dataset_type="coco", annotations=list(names))["splits"] == {"hashed": 0, "kept": 0}
    expected = {str(number): "train" if number < 4 else "val" for number in range(COUNT)}
    assert catalogued(name="coco") == captioned() == expected


@pytest.mark.parametrize(("listed", "warnings"), [("a0.png", 0), ("images/a0.png", 1)])
def test_names_of_split_lists_that_no_caption_has_are_reported(
    listed: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    Path("Flickr8k.token.txt").write_text("a0.png#0\tone word\na1.png#0\tother word\n")
    Path("Flickr_8k.trainImages.txt").write_text(f"{listed}\na1.png\n")
    with caplog.at_level("WARNING", logger="capt"):
        captions(dataset_type="flickr8k", annotations=["Flickr8k.token.txt"])
    assert len([one for one in caplog.records if one.name.startswith("capt")]) == warnings


# === Two splits of one image ===


@pytest.mark.parametrize("swapped", [False, True])
def test_an_image_in_two_splits_is_a_failure_in_any_order(swapped: bool) -> None:
    lines = ["a0.png,one,train", "a0.png,two,test", "a1.png,three,train", "a2.png,four,", "a2.png,five,val"]
    rows(*(reversed(lines) if swapped else lines))
    result = features()
    assert (result["failed"], result["ok"]) == (1, 2)
    assert result["reasons"] == {"two splits": 1}
    assert catalogued() == {"a1.png": "train", "a2.png": "val"}
    summary = captions()
    assert (summary["failed"], summary["ok"], summary["reasons"]) == (2, 3, {"two splits": 2})
    assert captioned() == catalogued()
    (row,) = [row for row in pq.read_table(result["report"]).to_pylist() if row["status"] == "failed"]
    assert (row["record"], row["stage"], row["detail"]) == ("a0.png", "parse", "test and train")


# === Training ===


def train() -> dict[str, Any]:
    result: dict[str, Any] = capt.train_captioner(
        store="store",
        run_dir="run",
        model="nic",
        hyperparameters={"units": 8, "embedding_dim": 8, "epochs": 1, "batch_size": 4},
    )
    return result


def other_splits() -> None:
    """Make the dataset anew, as if its directory had been lost, so that its splits are others."""
    shutil.rmtree("store/datasets/csv")
    features(**VECTORS, split_ratios="0,0.5,0.5")


@pytest.mark.slow
def test_training_refuses_captions_in_another_split_than_their_images() -> None:
    rows(*rows_of(range(COUNT)))
    captions(split_ratios="1,0,0")
    features(**VECTORS)
    other_splits()
    with pytest.raises(StoreError) as caught:
        train()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_is_not_evaluated_where_captions_and_images_are_in_different_splits() -> None:
    rows(*rows_of(range(6), "train"), *rows_of(range(6, COUNT), "val"))
    captions()
    features(**VECTORS)
    train()
    assert capt.evaluate(runs="run", split="val")["task"] == "captioner"
    other_splits()
    with pytest.raises(StoreError):
        capt.evaluate(runs="run", split="val")


# === Two jobs at once ===


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "directory":
        yield "store"
        return
    with bucket(request.param, tmp_path / "mirror"):
        yield f"s3://{BUCKET}/{request.node.callspec.id}"


@pytest.mark.parametrize(
    ("slow", "quick"),
    [("features", "features"), ("features", "captions"), ("captions", "features"), ("captions", "captions")],
)
def test_a_job_that_commits_while_another_is_about_to_keeps_its_splits(
    store: str, slow: str, quick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: dict[str, Job] = {"features": features, "captions": captions}
    rows(*rows_of(range(5)), file="slow.csv")
    rows(*rows_of(range(3, COUNT)), file="quick.csv")
    put, met = commit_log.put_if_absent, []

    def interrupted(path: Path, data: bytes) -> bool:
        if f"/{DATASETS}/" in str(path) and not met:
            met.append(path)
            jobs[quick](store, annotations=["quick.csv"], split_ratios="1,0,0")
        return put(path, data)

    monkeypatch.setattr(commit_log, "put_if_absent", interrupted)
    jobs[slow](store, annotations=["slow.csv"], split_ratios="0.5,0.5,0")
    assert met
    splits = assigned(store)
    assert {splits[f"a{number}.png"] for number in range(3, COUNT)} == {"train"}
    assert len(splits) == COUNT
    for table in capt.open_store(store).caption_tables():
        assert all(splits[row["image_id"]] == row["split"] for row in table.captions().to_pylist())
    for dataset in capt.open_store(store).datasets():
        assert all(splits[row["image_id"]] == row["split"] for row in dataset.catalog().to_pylist())


def test_a_record_that_is_not_an_image_gets_no_split(here: Path) -> None:
    """An ID that one file gives to two images is none of them; later it is one, with the split of its file."""

    def annotate(split: str, **images: int) -> None:
        named = [{"id": number, "file_name": f"{name}.png"} for name, number in images.items()]
        captions = [{"id": number, "image_id": number, "caption": f"word {number}"} for number in set(images.values())]
        Path(f"c/captions_{split}2017.json").write_text(json.dumps({"images": named, "annotations": captions}))

    def prepare() -> dict[str, Any]:
        return capt.prepare_captions(store="S", dataset_type="coco", annotations=["c"], max_failures="100%")

    Path("c").mkdir()
    annotate("train", a0=1, a1=5)
    annotate("val", a2=2, a3=5, a4=5)
    assert prepare()["splits"] == {"hashed": 0, "kept": 0}
    annotate("val", a2=2, a3=5)
    assert prepare()["splits"] == {"hashed": 0, "kept": 0}
    (table,) = capt.open_store("S").caption_tables()
    assert {one["image_id"]: one["split"] for one in table.captions().to_pylist()}["5@a3.png"] == "val"
