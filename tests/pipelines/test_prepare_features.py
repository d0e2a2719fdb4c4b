"""Features are computed once, reused, and every input has a status."""

import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import capt
from schemas.errors import CaptError, TooManyFailuresError, UsageError
from tests.conftest import noise_image, zip_of

SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7"}


def prepare(store: Path, images: Path, annotations: Path | None = None, **options: Any) -> dict[str, Any]:
    kind = {"dataset_type": "coco", "annotations": [str(annotations)]} if annotations else {"dataset_type": "folder"}
    result: dict[str, Any] = capt.prepare_features(
        store=str(store), images=[str(images)], **{**SMALL, **kind, **options}
    )
    statuses = ("ok", "cached", "duplicate", "failed")
    assert sum(result[status] for status in statuses) == result["input"]
    return result


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def statuses(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(result["report"]).to_pylist()
    return {row["record"]: (row["status"], row["reason"]) for row in rows}


def test_every_image_is_extracted_once_and_then_cached(store: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(10), coco(range(10))
    first = prepare(store, images, annotations)
    assert (first["input"], first["ok"], first["shards"]) == (10, 10, 1)
    again = prepare(store, images, annotations)
    assert (again["cached"], again["shards"], again["bytes"]) == (10, 0, 0)


def test_an_image_with_several_captions_has_one_row(store: Path, photos: Any, coco: Any) -> None:
    prepare(store, photos(6), coco(range(6), captions=7))
    (table,) = capt.open_store(store).feature_tables()
    assert table.rows == 6
    assert sum(shard.rows for shard in table.shards) == 6


def test_a_run_with_nothing_new_imports_neither_tensorflow_nor_beam(
    store: Path, photos: Any, coco: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.name_matching._DISTRUST_NS", 0)  # The hashes of new images are kept, too.
    images, annotations = photos(4), coco(range(4))
    prepare(store, images, annotations)
    program = (
        "import capt, sys;"
        f"r = capt.prepare_features(store={str(store)!r}, dataset_type='coco', images=[{str(images)!r}],"
        f" annotations=[{str(annotations)!r}], extractor='mobilenet_v3_small', weights='random:7');"
        "assert r['cached'] == 4, r;"
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_images_in_a_zip_give_the_same_bytes_as_images_in_a_folder(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(9), coco(range(9))
    prepare(tmp_path / "one", images, annotations)
    prepare(tmp_path / "other", zip_of(images, tmp_path / "images.zip"), annotations)
    one, other = (files_of(tmp_path / name / "features") for name in ("one", "other"))
    assert one == other
    assert any(name.endswith(".tfrecord") for name in one)


def test_a_folder_needs_no_annotations_and_its_paths_are_the_ids(store: Path, photos: Any) -> None:
    images = photos(3)
    (images / "deeper").mkdir()
    shutil.move(images / f"{0:012d}.jpg", images / "deeper" / "x.jpg")
    (images / "notes.txt").write_text("not an image")
    result = prepare(store, images)
    assert set(statuses(result)) == {"deeper/x.jpg", f"{1:012d}.jpg", f"{2:012d}.jpg"}


def test_new_images_alone_are_extracted(store: Path, photos: Any, coco: Any) -> None:
    prepare(store, photos(5), coco(range(5)))
    result = prepare(store, photos(8), coco(range(8)))
    assert (result["ok"], result["cached"]) == (3, 5)
    (table,) = capt.open_store(store).feature_tables()
    assert [shard.rows for shard in table.shards] == [5, 3]


def test_renamed_and_removed_images_extract_nothing(store: Path, photos: Any) -> None:
    images = photos(5)
    prepare(store, images)
    shutil.move(images / f"{0:012d}.jpg", images / "renamed.jpg")
    (images / f"{1:012d}.jpg").unlink()
    result = prepare(store, images)
    assert (result["input"], result["cached"], result["ok"]) == (4, 4, 0)


def test_images_that_leave_the_dataset_are_counted(store: Path, photos: Any, caplog: Any) -> None:
    images = photos(6)
    assert prepare(store, images)["removed"] == 0
    (images / f"{0:012d}.jpg").write_bytes(b"damaged")
    given = {"limit_images": 3, "max_failures": "100%"}
    assert prepare(store, images, dry_run=True, **given)["removed"] == 3
    result = prepare(store, images, **given)
    assert (result["input"], result["removed"]) == (3, 3 + result["failed"])
    assert capt.open_store(store).dataset("folder").catalog().num_rows == 6 - result["removed"]
    assert f"{result['removed']} images of the last commit are not in this run, or failed." in caplog.text
    assert prepare(store, images, **given)["removed"] == 0
    assert prepare(store, images, max_failures="100%")["removed"] == 0


def test_a_second_dataset_extracts_only_its_own(store: Path, photos: Any) -> None:
    prepare(store, photos(4), dataset_name="first")
    result = prepare(store, photos(6, folder="others", first=2), dataset_name="second")
    assert (result["cached"], result["ok"]) == (2, 4)
    assert [dataset.name for dataset in capt.open_store(store).datasets()] == ["first", "second"]


def test_two_ids_of_one_content_share_a_row(store: Path, photos: Any) -> None:
    images = photos(3)
    shutil.copy(images / f"{0:012d}.jpg", images / "copy.jpg")
    result = prepare(store, images)
    assert (result["ok"], result["duplicate"]) == (3, 1)
    assert statuses(result)["copy.jpg"] == ("duplicate", "")
    assert capt.open_store(store).dataset("folder").catalog().num_rows == 4


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[: len(data) // 2], "truncated"),
    "text": (lambda data: b"this is text, whatever its name says", "unsupported"),
    "zero": (lambda data: b"", "empty"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_unusable_image_fails_alone(store: Path, photos: Any, coco: Any, fault: str) -> None:
    images, annotations = photos(5), coco(range(5))
    path = images / f"{2:012d}.jpg"
    change, reason = BROKEN[fault]
    path.write_bytes(change(path.read_bytes()))
    result = prepare(store, images, annotations, max_failures="1")
    assert (result["ok"], result["failed"], result["reasons"]) == (4, 1, {reason: 1})
    assert statuses(result)["2"] == ("failed", reason)


def test_a_missing_image_is_a_failed_row(store: Path, photos: Any, coco: Any) -> None:
    result = prepare(store, photos(4), coco(range(5)), max_failures="20%")
    assert (result["ok"], result["reasons"]) == (4, {"missing": 1})


def test_unannotated_images_are_counted_separately(store: Path, photos: Any, coco: Any) -> None:
    result = prepare(store, photos(5), coco(range(3)))
    assert (result["input"], result["unannotated"]) == (3, 2)


def test_too_many_failures_are_an_error_after_the_good_rows_are_committed(store: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(4), coco(range(5))
    with pytest.raises(TooManyFailuresError, match="1 of 5 records failed \\(1 missing\\)"):
        prepare(store, images, annotations)
    assert prepare(store, images, annotations, max_failures="20%")["cached"] == 4


def test_permanent_failures_are_recorded_and_retried_on_request(store: Path, photos: Any) -> None:
    images = photos(3)
    (images / "bad.jpg").write_bytes(b"text")
    assert prepare(store, images, max_failures="50%")["failed"] == 1
    assert prepare(store, images, max_failures="50%")["shards"] == 0
    (table,) = capt.open_store(store).feature_tables()
    assert [reason for _, reason, _ in table.failures().values()] == ["unsupported"]
    retried = prepare(store, images, max_failures="50%", retry_failed=True)
    assert (retried["cached"], retried["failed"]) == (3, 1)


def test_a_repaired_image_is_extracted(store: Path, photos: Any) -> None:
    images = photos(3)
    path = images / f"{1:012d}.jpg"
    good = path.read_bytes()
    path.write_bytes(good[:100])
    assert prepare(store, images, max_failures="50%")["failed"] == 1
    path.write_bytes(good)
    result = prepare(store, images)
    assert (result["ok"], result["cached"], result["failed"]) == (1, 2, 0)


def test_a_larger_limit_adds_images_to_those_of_a_smaller_one(store: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(10), coco(range(10))
    assert prepare(store, images, annotations, limit_images=4)["ok"] == 4
    assert prepare(store, images, annotations, limit_images=7)["cached"] == 4
    result = prepare(store, images, annotations, limit_captions=5 * 7 + 4)
    assert (result["input"], result["cached"]) == (7, 7)


def test_another_seed_selects_other_images(tmp_path: Path, photos: Any, coco: Any) -> None:
    images, annotations = photos(10), coco(range(10))
    chosen = [set(statuses(prepare(tmp_path / "s", images, annotations, limit_images=5, seed=seed))) for seed in (1, 2)]
    assert chosen[0] != chosen[1]


def test_the_split_comes_from_the_annotation_file(store: Path, photos: Any, coco: Any) -> None:
    train, val = coco(range(4), "captions_train2017.json"), coco(range(4, 6), "captions_val2017.json")
    capt.prepare_features(
        store=str(store), dataset_type="coco", images=[str(photos(6))], annotations=[str(train), str(val)], **SMALL
    )
    assert capt.open_store(store).dataset("coco").facts.images == {"train": 4, "val": 2}


def test_two_fractions_are_those_of_train_and_val(store: Path, photos: Any) -> None:
    prepare(store, photos(12), split_ratios="0.5,0.5")
    images = capt.open_store(store).dataset("folder").facts.images
    assert images.keys() == {"train", "val"}
    assert sum(images.values()) == 12


def test_a_split_once_assigned_stays(store: Path, photos: Any) -> None:
    images = photos(12)
    prepare(store, images, split_ratios="0.5,0.25,0.25")
    before = capt.open_store(store).dataset("folder").catalog().to_pylist()
    prepare(store, images, split_ratios="0,0,1")
    assert capt.open_store(store).dataset("folder").catalog().to_pylist() == before


@pytest.mark.parametrize(
    "options", [{"format": "parquet"}, {"storage_dtype": "int8"}, {"pooling": "avg"}, {"num_shards": 4}]
)
def test_formats_dtypes_poolings_and_shard_counts_store_the_same_features(
    tmp_path: Path, photos: Any, options: dict[str, Any]
) -> None:
    images = photos(6)
    prepare(tmp_path / "s", images, storage_dtype="float32", precision="float32")
    prepare(
        tmp_path / "s", images, **{"storage_dtype": "float32", "precision": "float32", **options}, dataset_name="other"
    )
    store = capt.open_store(tmp_path / "s")
    tables = {
        len(table.shape) - 1 if "pooling" in options else table.fingerprint: table for table in store.feature_tables()
    }
    keys = np.array([list(key) for key in store.dataset("folder").catalog()["key"].to_pylist()], np.uint8)
    values = [table.read(table.lookup(keys)).astype(np.float32) for table in tables.values()]
    if "pooling" in options:
        values = [value.mean(axis=1) if value.ndim == 3 else value for value in values]
    for value in values[1:]:
        assert np.linalg.norm(value - values[0]) <= 0.02 * np.linalg.norm(values[0])


def test_a_dry_run_reports_hits_and_misses_and_changes_nothing(store: Path, photos: Any, coco: Any) -> None:
    prepare(store, photos(4), coco(range(4)))
    before = files_of(store)
    plan = prepare(store, photos(9), coco(range(9)), dry_run=True)
    assert (plan["hits"], plan["misses"]) == (4, 5)
    assert plan["bytes"] >= 5 * 49 * 576 * 2
    assert files_of(store) == before


def test_a_dry_run_of_another_table_changes_nothing(store: Path, photos: Any) -> None:
    pixels = {"extractor": "pixels", "weights": None, "height": 8, "width": 8}
    prepare(store, photos(2), **pixels)
    before = files_of(store)
    assert prepare(store, photos(2), dry_run=True, **{**pixels, "format": "parquet"})["misses"] == 2
    assert files_of(store) == before


def test_a_dry_run_does_not_create_a_store(store: Path, photos: Any) -> None:
    assert prepare(store, photos(2), dry_run=True)["misses"] == 2
    assert not store.exists()


def test_nothing_is_left_in_the_work_directory(store: Path, photos: Any) -> None:
    prepare(store, photos(3))
    assert list((store / "work").iterdir()) == []


# === Wrong usage and wrong input: one line each ===


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"extractor": "resnet_9000"}, "--extractor: unknown extractor 'resnet_9000'"),
        ({"layer": "nowhere"}, "--layer: mobilenet_v3_small has no layer 'nowhere'"),
        ({"dataset_type": "cocoa"}, "--dataset-type: "),
        ({"weights": "random:x"}, "--weights: 'random:x' has no seed"),
        ({"weights": "nowhere.h5"}, "nowhere.h5: the weights file does not exist"),
        ({"num_shards": 3}, "--num-shards: 3 is not a power of two"),
        ({"split_ratios": "0.5,0.1"}, "--split-ratios: the fractions 0.5,0.1 are negative, or their sum is not 1"),
        ({"split_ratios": "0.5,0.1,0.1"}, "sum is not 1"),
        ({"storage_dtype": "float8"}, "--storage-dtype: "),
        ({"max_failures": "many"}, "--max-failures: cannot parse 'many'"),
        ({"dataset_name": "../escape"}, "invalid dataset name"),
        ({"beam_options": ["--no_such_option=1"]}, "'--no_such_option' is not an option of Beam"),
        ({"beam_options": ["stray"]}, "'stray' is not an option of Beam"),
    ],
)
def test_wrong_usage_is_one_line(store: Path, photos: Any, options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        prepare(store, photos(1), **options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "not JSON"),
        ("{}", "the list 'images' is missing"),
        ('{"images": {}, "annotations": []}', "the list 'images' is missing"),
        ('{"images": [], "annotations": []}', "there are no images"),
    ],
)
def test_an_invalid_annotation_file_is_one_line_with_its_location(
    store: Path, photos: Any, tmp_path: Path, text: str, line: str
) -> None:
    path = tmp_path / "captions_train2017.json"
    path.write_text(text)
    with pytest.raises(CaptError) as caught:
        prepare(store, photos(1), path)
    assert line in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_annotation_file_or_image_folder_is_one_line(store: Path, photos: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.json: no such annotation file"):
        prepare(store, photos(1), tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match="no such directory or archive"):
        prepare(store, tmp_path / "nowhere")


def test_a_directory_that_is_no_store_is_refused(tmp_path: Path, photos: Any) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(CaptError, match="not a capt store"):
        prepare(tmp_path / "other", photos(1))


def test_a_store_of_a_newer_format_is_refused(store: Path, photos: Any) -> None:
    store.mkdir()
    (store / "capt-store.json").write_text('{"format": "capt-store", "version": 99}')
    with pytest.raises(CaptError, match="format version 99"):
        prepare(store, photos(1))


def test_weights_that_do_not_fit_are_one_line(store: Path, photos: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.weights.h5").write_bytes(b"no weights")
    with pytest.raises(CaptError, match=r"bad\.weights\.h5: the weights do not fit mobilenet_v3_small"):
        prepare(store, photos(1), weights=str(tmp_path / "bad.weights.h5"))


def test_without_a_connection_the_imagenet_error_has_a_hint(
    store: Path, photos: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(CaptError) as caught:
        prepare(store, photos(1), weights="imagenet")
    assert "--weights FILE" in str(caught.value)
    assert "--weights random:SEED" in str(caught.value)


def test_an_image_with_a_wrong_cached_hash_is_extracted_by_the_next_run(store: Path, photos: Any) -> None:
    images = photos(3)
    for path in images.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    prepare(store, images)
    other = noise_image(99)
    path = images / f"{1:012d}.jpg"
    with sqlite3.connect(store / "cache" / "stat.sqlite") as cache:
        other.save(path)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        status = path.stat()
        stamp = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
        cache.execute(
            "INSERT OR REPLACE INTO seen VALUES (?, '', ?, ?, ?)", (str(path), status.st_size, stamp, bytes(32))
        )
    assert prepare(store, images, max_failures="50%")["reasons"] == {"changed": 1}
    assert prepare(store, images)["ok"] == 1


def test_images_may_be_in_several_roots_and_annotations_in_a_zip(
    store: Path, tmp_path: Path, photos: Any, coco: Any
) -> None:
    train, val = photos(3, folder="train2017"), photos(2, folder="val2017", first=3)
    with zipfile.ZipFile(tmp_path / "annotations_trainval2017.zip", "w") as archive:
        archive.write(coco(range(3), "captions_train2017.json"), "annotations/captions_train2017.json")
        archive.write(coco(range(3, 5), "captions_val2017.json"), "annotations/captions_val2017.json")
        archive.writestr("annotations/instances_val2017.json", "{}")
    result = capt.prepare_features(
        store=str(store),
        dataset_type="coco",
        images=[str(train), str(zip_of(val, tmp_path / "val2017.zip"))],
        annotations=[str(tmp_path / "annotations_trainval2017.zip")],
        **SMALL,
    )
    assert (result["input"], result["ok"], result["unannotated"]) == (5, 5, 0)
    assert capt.open_store(store).dataset("coco").facts.images == {"train": 3, "val": 2}


@pytest.mark.slow
def test_eighty_real_photographs_are_prepared_then_cached_and_the_same_from_a_zip(
    tmp_path: Path, real_data: Path
) -> None:
    images = real_data / "coco-mini" / "train2017"
    common = {
        "dataset_type": "coco",
        "annotations": [str(real_data / "coco-mini" / "annotations" / "captions_train2017.json")],
        "weights": "random:7",
    }
    one = {**common, "store": str(tmp_path / "one"), "images": [str(images)]}
    first, again = capt.prepare_features(**one), capt.prepare_features(**one)
    assert (first["input"], first["ok"], again["cached"]) == (80, 80, 80)
    archive = zip_of(images, tmp_path / "train2017.zip")
    capt.prepare_features(**common, store=str(tmp_path / "other"), images=[str(archive)])
    assert files_of(tmp_path / "one" / "features") == files_of(tmp_path / "other" / "features")
