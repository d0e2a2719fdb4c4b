"""Identity: an id is one image within one annotation file, and no caption reaches another image."""

import hashlib
import itertools
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capt
from pipelines.datasets.base import ImageEntry
from pipelines.ingest.image_identity import ImageIdentities
from schemas.errors import CaptError, RecordError, StoreError
from tests.conftest import noise_image

PIXELS: dict[str, Any] = {"extractor": "pixels", "height": 8, "width": 8, "max_failures": "100%"}
STATUSES = ("ok", "cached", "duplicate", "failed")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*paths: str) -> list[str]:
    """Images whose bytes differ; the folder that holds them all."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(int(hashlib.sha256(str(path).encode()).hexdigest()[:6], 16), 12, 9).save(path)
    return [Path(paths[0]).parts[0]]


def coco(name: str, images: Sequence[tuple[Any, str]], captions: Sequence[tuple[int, Any, str]]) -> str:
    data = {
        "images": [{"id": number, "file_name": file} for number, file in images],
        "annotations": [{"id": own, "image_id": image, "caption": text} for own, image, text in captions],
    }
    Path(name).write_text(json.dumps(data))
    return name


def karpathy(name: str, images: Sequence[tuple[int, str, int]]) -> str:
    listed = [
        {"filename": file, "imgid": number, "split": "train", "sentences": [{"raw": f"of {file}", "sentid": own}]}
        for number, file, own in images
    ]
    Path(name).write_text(json.dumps({"images": listed}))
    return name


def features(store: str, dataset: str, images: Sequence[str], annotations: Sequence[str] = ()) -> dict[str, Any]:
    options = {"dataset_type": dataset, "images": list(images), "annotations": list(annotations), **PIXELS}
    result: dict[str, Any] = capt.prepare_features(store=store, **options)
    assert sum(result[status] for status in STATUSES) == result["input"] == len(report(result))
    return result


def captions(store: str, dataset: str, annotations: Sequence[str], **options: Any) -> dict[str, Any]:
    given = {"dataset_type": dataset, "annotations": list(annotations), "max_failures": "100%", **options}
    result: dict[str, Any] = capt.prepare_captions(store=store, **given)
    assert sum(result[status] for status in STATUSES) == result["input"] == len(report(result))
    return result


def report(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(result["report"]).to_pylist()
    return rows


def failures(result: dict[str, Any]) -> dict[str, str]:
    return {row["record"]: row["reason"] for row in report(result) if row["status"] == "failed"}


def catalog(store: str, name: str) -> dict[str, str]:
    """The file of each image, by id; its bytes are those of the key."""
    rows = capt.open_store(store).dataset(name).catalog().to_pylist()
    for row in rows:
        if not row["member"]:
            assert hashlib.sha256(Path(row["location"]).read_bytes()).digest() == row["key"]
    return {row["image_id"]: str(Path(row["location"]).relative_to(Path.cwd())) for row in rows}


def captioned(store: str, name: str) -> dict[str, str]:
    """The file of the image of each caption, as training joins them."""
    files = catalog(store, name)
    (text,) = (one for one in capt.open_store(store).caption_tables() if one.table_config.dataset == name)
    return {row["caption"]: files[row["image_id"]] for row in text.captions().to_pylist() if row["image_id"] in files}


# === One id in several annotation files ===


def test_ids_that_begin_anew_in_each_coco_file_are_images_of_their_own() -> None:
    images = draw("ph/t1.jpg", "ph/t2.jpg", "ph/v1.jpg", "ph/v2.jpg")
    train = coco("captions_train2017.json", [(1, "t1.jpg"), (2, "t2.jpg")], [(1, 1, "train one"), (2, 2, "train two")])
    val = coco("captions_val2017.json", [(1, "v1.jpg"), (2, "v2.jpg")], [(11, 1, "val one"), (12, 2, "val two")])
    result = features("store", "coco", images, [train, val])
    assert (result["input"], result["ok"], result["unannotated"], result["shared_ids"]) == (4, 4, 0, 2)
    assert captions("store", "coco", [val, train])["shared_ids"] == 2
    expected = {"train one": "ph/t1.jpg", "train two": "ph/t2.jpg", "val one": "ph/v1.jpg", "val two": "ph/v2.jpg"}
    assert captioned("store", "coco") == expected
    splits = {row["image_id"]: row["split"] for row in capt.open_store("store").dataset("coco").catalog().to_pylist()}
    assert splits == {"1@t1.jpg": "train", "2@t2.jpg": "train", "1@v1.jpg": "val", "2@v2.jpg": "val"}
    assert features("other", "coco", images, [val, train])["ok"] == 4
    assert catalog("other", "coco") == catalog("store", "coco")


def test_two_karpathy_files_whose_ids_begin_at_zero_are_images_of_their_own() -> None:
    files = [
        karpathy("dataset_flickr8k.json", [(0, "a.jpg", 0)]),
        karpathy("dataset_flickr30k.json", [(0, "b.jpg", 0)]),
    ]
    assert features("store", "karpathy", draw("ph/a.jpg", "ph/b.jpg"), files)["ok"] == 2
    assert captions("store", "karpathy", files)["ok"] == 2
    assert captioned("store", "karpathy") == {"of a.jpg": "ph/a.jpg", "of b.jpg": "ph/b.jpg"}


def test_an_id_that_names_one_file_in_two_annotation_files_is_one_image() -> None:
    one = coco("captions_one.json", [(7, "a.jpg")], [(1, 7, "first words")])
    other = coco("captions_other.json", [(7, "a.jpg")], [(2, 7, "other words")])
    result = features("store", "coco", draw("ph/a.jpg"), [one, other])
    assert (result["input"], result["ok"], result["shared_ids"]) == (1, 1, 0)
    assert captions("store", "coco", [one, other], split_ratios="1,0,0")["ok"] == 2
    assert captioned("store", "coco") == {"first words": "ph/a.jpg", "other words": "ph/a.jpg"}


def test_a_caption_of_an_image_of_another_annotation_file_fails() -> None:
    one = coco("captions_one.json", [(1, "a.jpg")], [(1, 1, "right"), (2, 5, "stray")])
    other = coco("captions_other.json", [(5, "b.jpg")], [])
    result = captions("store", "coco", [one, other], split_ratios="1,0,0")
    assert (result["ok"], result["reasons"]) == (1, {"unknown image": 1})


# === One id twice in one annotation file ===


def test_an_id_of_two_files_in_one_annotation_file_fails_with_its_captions() -> None:
    file = coco(
        "captions_train2017.json",
        [(4, "a.jpg"), (4, "b.jpg"), (5, "c.jpg")],
        [(1, 4, "of a"), (2, 4, "of b"), (3, 5, "of c")],
    )
    result = features("store", "coco", draw("ph/a.jpg", "ph/b.jpg", "ph/c.jpg"), [file])
    assert (result["input"], result["ok"], result["reasons"]) == (3, 1, {"duplicate id": 2})
    assert set(failures(result)) == {"4@a.jpg", "4@b.jpg"}
    result = captions("store", "coco", [file])
    assert (result["ok"], result["reasons"]) == (1, {"duplicate id": 2})
    assert captioned("store", "coco") == {"of c": "ph/c.jpg"}


@pytest.mark.parametrize("kind", ["coco", "karpathy"])
def test_an_image_that_a_format_of_one_entry_per_image_lists_again_is_a_duplicate(kind: str) -> None:
    file = (
        coco("captions_train2017.json", [(4, "a.jpg"), (4, "a.jpg")], [])
        if kind == "coco"
        else karpathy("dataset_some.json", [(4, "a.jpg", 0), (4, "a.jpg", 1)])
    )
    result = features("store", kind, draw("ph/a.jpg"), [file])
    assert (result["input"], result["ok"], result["duplicate"]) == (2, 1, 1)


def test_two_ids_of_one_file_are_two_images_and_the_second_is_a_duplicate() -> None:
    file = coco("captions_train2017.json", [(4, "a.jpg"), (5, "a.jpg")], [])
    result = features("store", "coco", draw("ph/a.jpg"), [file])
    assert (result["input"], result["ok"], result["duplicate"]) == (2, 1, 1)
    assert catalog("store", "coco") == {"4": "ph/a.jpg", "5": "ph/a.jpg"}


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("csv", "c.csv", "image,caption\na.png,one\na.png,two\n"),
        ("jsonl", "c.jsonl", '{"image": "a.png", "caption": "one"}\n{"image": "a.png", "caption": "two"}\n'),
        ("flickr8k", "Flickr8k.token.txt", "a.png#0\tone\na.png#1\ttwo\n"),
        ("flickr30k", "results_20130124.token", "a.png#0\tone\na.png#1\ttwo\n"),
    ],
)
def test_an_image_that_a_format_names_with_each_caption_is_one_image(kind: str, name: str, text: str) -> None:
    for folder in ("one", "other"):
        Path(folder).mkdir()
        (Path(folder) / name).write_text(text)
    result = features("store", kind, draw("ph/a.png"), [f"one/{name}", f"other/{name}"])
    assert (result["input"], result["ok"], result["duplicate"], result["shared_ids"]) == (1, 1, 0, 0)


def test_two_iapr_documents_of_one_image_are_one_image() -> None:
    for number in range(2):
        path = Path(f"annotations_complete_eng/0{number}/1.eng")
        path.parent.mkdir(parents=True)
        path.write_text("<DOC><DESCRIPTION>a dog</DESCRIPTION><IMAGE>images/00/1.jpg</IMAGE></DOC>")
    draw("images/00/1.jpg")
    result = features("store", "iapr", ["images"], ["annotations_complete_eng"])
    assert (result["input"], result["ok"], result["unannotated"]) == (1, 1, 0)


# === Two roots ===


def test_files_of_one_name_in_two_roots_are_two_images_whatever_their_order() -> None:
    draw("x/p/a.png", "y/p/a.png", "x/p/b.png")
    result = features("store", "folder", ["x/p", "y/p"])
    assert (result["input"], result["ok"], result["unannotated"], result["shared_ids"]) == (3, 3, 0, 1)
    assert catalog("store", "folder") == {"a.png@x/p": "x/p/a.png", "a.png@y/p": "y/p/a.png", "b.png": "x/p/b.png"}
    features("other", "folder", ["y/p", "x/p"])
    assert catalog("other", "folder") == catalog("store", "folder")


def test_a_root_that_is_named_twice_is_one_root() -> None:
    draw("p/a.png")
    result = features("store", "folder", ["p", "./p/", str(Path("p").absolute())])
    assert (result["input"], result["ok"], result["shared_ids"]) == (1, 1, 0)


def test_a_captcha_of_two_roots_fails_and_its_label_reaches_neither_file() -> None:
    draw("p/a0.png", "q/a0.png", "p/a1.png", "p/other.png", "q/other.png")
    Path("labels.txt").write_text("a0 dog\na1 cat\n")
    result = capt.prepare_captcha(store="store", images=["p", "q"], labels="labels.txt", max_failures="100%")
    assert (result["input"], result["ok"], result["reasons"]) == (4, 1, {"name": 2, "two files": 1})
    assert capt.open_store("store").dataset("captcha").labels().to_pylist() == [{"image_id": "a1", "word": "cat"}]


# === The rule itself ===


def identities_of(entries: Sequence[ImageEntry]) -> ImageIdentities:
    identities = ImageIdentities(sqlite3.connect(":memory:", isolation_level=None))
    identities.insert(entries)
    return identities


ENTRIES = st.lists(
    st.builds(
        ImageEntry,
        image_id=st.sampled_from("12"),
        file_name=st.sampled_from(["a.jpg", "b.jpg", "x/a.jpg"]),
        document=st.sampled_from(["one.json", "other.json"]),
        **{name: st.just(default) for name, default in ImageEntry._field_defaults.items() if name != "document"},
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(entries=ENTRIES)
def test_ids_are_a_function_of_the_set_of_entries_and_distinct(entries: list[ImageEntry]) -> None:
    images = sorted(identities_of(entries).list_images())
    assert sorted(identities_of(entries[::-1]).list_images()) == images
    assert len({image.image_id for image in images}) == len(images)
    files = {(entry.image_id, entry.file_name) for entry in entries}
    assert sorted(image.file_name for image in images) == sorted(file for _, file in files)
    identities = identities_of(entries)
    by_id = {image.image_id: image for image in images}
    for document, image_id in itertools.product(["one.json", "other.json"], "12"):
        named = {one.file_name for one in entries if (one.document, one.image_id) == (document, image_id)}
        if len(named) == 1:
            image = by_id[identities.look_up(document, image_id)]
            assert ({image.file_name}, image.reason) == (named, "")
        else:
            with pytest.raises(RecordError) as caught:
                identities.look_up(document, image_id)
            assert caught.value.reason == ("duplicate id" if named else "unknown image")


def test_an_id_that_is_another_made_distinct_is_refused() -> None:
    entries = [ImageEntry("1", "a"), ImageEntry("1", "b", document="other"), ImageEntry("1@a", "c")]
    with pytest.raises(CaptError):
        list(identities_of(entries).list_images())


# === Annotations of one run and of another ===


@pytest.mark.parametrize("order", ["features first", "captions first"])
def test_captions_of_another_annotation_file_than_the_datasets_are_refused(order: str) -> None:
    images = draw("ph/t1.jpg", "ph/v1.jpg")
    train = coco("captions_train2017.json", [(1, "t1.jpg")], [(1, 1, "a train caption")])
    other = coco("captions_other2017.json", [(1, "v1.jpg")], [(2, 1, "another caption")])
    jobs = [
        lambda: features("store", "coco", images, [train]),
        lambda: captions("store", "coco", [other], split_ratios="1,0,0"),
    ]
    for job in jobs if order == "features first" else jobs[::-1]:
        job()
    with pytest.raises(StoreError):
        capt.store_show(store="store", dataset="coco")


@pytest.mark.slow
def test_training_refuses_captions_of_other_images() -> None:
    train = coco("captions_train2017.json", [(1, "t1.jpg")], [(1, 1, "a train caption")])
    other = coco("captions_other2017.json", [(1, "v1.jpg")], [(2, 1, "another caption")])
    capt.prepare_features(
        store="store",
        dataset_type="coco",
        images=draw("ph/t1.jpg", "ph/v1.jpg"),
        annotations=[train],
        extractor="mobilenet_v3_small",
        pooling="avg",
        weights="random:7",
    )
    captions("store", "coco", [other], split_ratios="1,0,0")
    with pytest.raises(StoreError):
        capt.train_captioner(
            store="store", run_dir="run", model="nic", hyperparameters={"units": 8, "embedding_dim": 8, "epochs": 1}
        )


def test_captions_under_a_path_and_images_under_its_end_belong_together() -> None:
    images = draw("val2014/a.jpg")
    file = coco("captions_val2014.json", [(9, "a.jpg")], [])
    features("store", "coco", images, [file])
    text = {
        "filepath": "val2014",
        "filename": "a.jpg",
        "cocoid": 9,
        "imgid": 0,
        "split": "val",
        "sentences": [{"raw": "a dog", "sentid": 1}],
    }
    train = text | {"filename": "b.jpg", "cocoid": 10, "split": "train", "sentences": [{"raw": "a cat", "sentid": 2}]}
    Path("dataset_coco.json").write_text(json.dumps({"images": [text, train]}))
    captions("store", "karpathy", ["dataset_coco.json"], dataset_name="coco")
    assert captioned("store", "coco") == {"a dog": "val2014/a.jpg"}
    assert capt.store_show(store="store", dataset="coco")["examples"]


# === Images that change between runs ===


def test_images_that_were_replaced_under_their_id_are_counted() -> None:
    Path("c.csv").write_text("image,caption,split\n1.png,a flower,train\n2.png,another flower,train\n")
    flowers, dogs = draw("flowers/1.png", "flowers/2.png"), draw("dogs/1.png", "dogs/3.png")
    assert features("store", "csv", flowers, ["c.csv"])["replaced"] == 0
    assert features("store", "csv", flowers, ["c.csv"])["replaced"] == 0
    Path("d.csv").write_text("image,caption,split\n1.png,a dog,train\n3.png,another dog,train\n")
    given = {"dataset_type": "csv", "images": dogs, "annotations": ["d.csv"], **PIXELS}
    assert capt.prepare_features(store="store", dry_run=True, **given)["replaced"] == 1
    assert features("store", "csv", dogs, ["d.csv"])["replaced"] == 1
    assert features("store", "csv", dogs, ["d.csv"])["replaced"] == 0
