"""Features that a user computed elsewhere become a table like any other."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from pipelines.jobs import extraction_job
from schemas.errors import CaptError, TooManyFailuresError, UsageError
from tests.pipelines.test_prepare_features import files_of, prepare, statuses

SHAPE = (4, 3)


def name_of(number: int) -> str:
    return f"{number:012d}.jpg"


def row_of(number: int) -> Any:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def arrays(tmp_path: Path) -> Any:
    """Writes one file per number: `arrays(numbers, name)`."""

    def write(numbers: range | list[int], name: Any = name_of, folder: str = "arrays") -> Path:
        directory = tmp_path / folder
        directory.mkdir(exist_ok=True)
        for number in numbers:
            np.save(directory / f"{name(number)}.npy", row_of(number))
        return directory

    return write


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def bring(store: Path, images: Path, annotations: Path, arrays: Path, **options: Any) -> dict[str, Any]:
    """Imports arrays for a COCO dataset."""
    result: dict[str, Any] = capt.prepare_features(
        store=store,
        dataset_type="coco",
        images=images,
        annotations=annotations,
        **{"from_arrays": arrays, "storage_dtype": "float32", "format": "parquet", **options},
    )
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def rows_by_image(store: Path) -> dict[str, Any]:
    opened = capt.open_store(store)
    (table,), (dataset,) = opened.feature_tables(), opened.datasets()
    keys = {row["image_id"]: row["key"] for row in dataset.catalog().to_pylist()}
    return {image_id: table.get(key) for image_id, key in keys.items()}


@pytest.mark.parametrize("name", [name_of, str, lambda number: f"{number:012d}", lambda n: f"x_{n}"])
def test_names_are_ids_or_file_names(store, photos, coco, arrays, name):
    images, annotations, directory = photos(5), coco(range(5)), arrays(range(5), name)
    if name(1) == "x_1":
        with pytest.raises(UsageError, match=r"no array has the name of an image; an array is named 'x_0', and an im"):
            bring(store, images, annotations, directory)
        return
    assert bring(store, images, annotations, directory)["ok"] == 5
    rows = rows_by_image(store)
    for number in range(5):
        np.testing.assert_array_equal(rows[str(number)], row_of(number))


def test_the_same_arrays_again_import_nothing(store, photos, coco, arrays):
    given = photos(5), coco(range(5)), arrays(range(5))
    first, again = bring(store, *given), bring(store, *given)
    assert (first["ok"], again["cached"], again["shards"]) == (5, 5, 0)
    assert first["fingerprint"] == again["fingerprint"]


def test_other_values_are_another_table(store, photos, coco, arrays):
    images, annotations, directory = photos(3), coco(range(3)), arrays(range(3))
    one = bring(store, images, annotations, directory)
    np.save(directory / f"{name_of(0)}.npy", row_of(9))
    other = bring(store, images, annotations, directory)
    assert (other["ok"], other["cached"]) == (3, 0)
    assert one["fingerprint"] != other["fingerprint"]
    assert len(capt.open_store(store).feature_tables()) == 2


def test_a_new_file_at_the_path_of_an_imported_array_has_its_own_rows(store, tmp_path, photos, coco):
    images, annotations = photos(3), coco(range(3))
    path, names = tmp_path / "all.npy", tmp_path / "names.txt"
    names.write_text("0\n1\n2\n")
    for first in (0, 7):
        path.unlink(missing_ok=True)
        np.save(path, np.stack([row_of(first + number) for number in range(3)]))
        assert bring(tmp_path / str(first), images, annotations, path, array_names=names)["ok"] == 3
        for image_id, row in rows_by_image(tmp_path / str(first)).items():
            np.testing.assert_array_equal(row, row_of(first + int(image_id)))


def test_rows_of_an_array_that_changed_during_the_job_are_not_used_later(store, tmp_path, photos, coco, monkeypatch):
    given = photos(2), coco(range(2)), tmp_path / "all.npy"
    (tmp_path / "names.txt").write_text("0\n1\n")
    run_units = extraction_job.run_units

    def change_and_run(*args: Any) -> None:
        np.save(given[2], np.stack([row_of(8), row_of(9)]))
        run_units(*args)

    np.save(given[2], np.stack([row_of(0), row_of(1)]))
    with monkeypatch.context() as patch:
        patch.setattr(extraction_job, "run_units", change_and_run)
        with pytest.raises(CaptError, match="the file changed during the job"):
            bring(store, *given, array_names=tmp_path / "names.txt")
    np.save(given[2], np.stack([row_of(0), row_of(1)]))
    assert bring(store, *given, array_names=tmp_path / "names.txt")["ok"] == 2
    for image_id, row in rows_by_image(store).items():
        np.testing.assert_array_equal(row, row_of(int(image_id)))


def test_imported_rows_equal_extracted_ones(tmp_path, photos, coco):
    images, annotations = photos(6), coco(range(6))
    prepare(tmp_path / "one", images, annotations)
    extracted = rows_by_image(tmp_path / "one")
    names = [name_of(int(image_id)) for image_id in extracted]
    np.save(tmp_path / "all.npy", np.stack(list(extracted.values())))
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = {"array_names": tmp_path / "names.txt", "storage_dtype": None, "format": "tfrecord"}
    result = bring(tmp_path / "other", images, annotations, tmp_path / "all.npy", **options)
    assert result["ok"] == 6
    imported = rows_by_image(tmp_path / "other")
    for image_id, row in extracted.items():
        assert imported[image_id].dtype == row.dtype
        np.testing.assert_array_equal(imported[image_id], row)


def test_what_does_not_fit_fails_alone(store, tmp_path, photos, coco, arrays, caplog):
    images, annotations, directory = photos(9), coco(range(9)), arrays(range(2, 10))
    np.save(directory / f"{name_of(2)}.npy", np.full(SHAPE, np.nan))
    np.save(directory / f"{name_of(3)}.npy", np.zeros(7))
    np.save(directory / f"{name_of(4)}.npy", np.array([None]), allow_pickle=True)
    options = {"from_arrays": [directory, arrays([5], folder="again")], "max_failures": "100%"}
    with caplog.at_level(logging.WARNING):
        result = bring(store, images, annotations, directory, **options)
    found = {record: status for record, status in statuses(result).items() if status[0] != "ok"}
    assert found == {
        "0": ("failed", "no features"),
        "1": ("failed", "no features"),
        "2": ("failed", "not finite"),
        "3": ("failed", "other shape"),
        "4": ("failed", "pickle"),
        "5": ("failed", "ambiguous"),
    }
    assert (result["ok"], result["unknown_arrays"]) == (3, 1)
    assert "1 of 9 arrays have names that no image of this run has, such as '000000000009.jpg'" in caplog.text
    again = bring(store, images, annotations, directory, **options)
    assert (again["cached"], again["failed"], again["shards"]) == (3, 6, 0)


def test_a_name_that_stands_twice_fails_that_image_alone(store, tmp_path, photos, coco):
    np.save(tmp_path / "all.npy", np.stack([row_of(number) for number in (0, 1, 1)]))
    (tmp_path / "names.txt").write_text("0\n1\n1\n")
    options = {"array_names": tmp_path / "names.txt", "max_failures": "100%"}
    result = bring(store, photos(2), coco(range(2)), tmp_path / "all.npy", **options)
    assert (result["ok"], result["reasons"]) == (1, {"ambiguous": 1})


def test_names_that_fit_ids_and_files_with_different_arrays_are_refused(store, tmp_path, photos, arrays):
    images, annotations = photos(2), tmp_path / "captions_train2017.json"
    crossed = [{"id": name_of(1 - number), "file_name": name_of(number)} for number in range(2)]
    annotations.write_text(json.dumps({"images": crossed, "annotations": []}))
    message = "--from-arrays: the names fit image IDs and file names, with different arrays. Name the arrays after the"
    with pytest.raises(UsageError, match=message):
        bring(store, images, annotations, arrays(range(2)))


def test_images_without_features_count_as_failures(store, photos, coco, arrays):
    with pytest.raises(TooManyFailuresError, match="2 of 4 records failed \\(2 no features\\)"):
        bring(store, photos(4), coco(range(4)), arrays(range(2)))
    assert len(rows_by_image(store)) == 2


def test_a_dry_run_changes_nothing(store, photos, coco, arrays):
    result = bring(store, photos(4), coco(range(4)), arrays(range(4)), dry_run=True)
    assert (result["misses"], result["shape"]) == (4, list(SHAPE))
    assert not store.exists()


def test_the_table_is_verified_compacted_and_repaired_like_any_other(store, tmp_path, photos, coco, arrays):
    images, annotations, directory = photos(8), coco(range(8)), arrays(range(8))
    bring(store, images, annotations, directory, limit_images=3)
    bring(store, images, annotations, directory)
    before = rows_by_image(store)
    assert capt.store_verify(store=store)["damaged"] == []
    capt.store_compact(store=store)
    capt.store_gc(store=store, older_than="0s")
    bring(tmp_path / "at once", images, annotations, directory)
    (table,) = capt.open_store(store).feature_tables()
    assert len(table.manifests) == 1
    one, other = (files_of(root / "features") for root in (store, tmp_path / "at once"))
    assert {data for name, data in one.items() if name.endswith(".parquet")} >= {
        data for name, data in other.items() if name.endswith(".parquet")
    }
    shard = table.root / table.shards[0].data.path
    shard.write_bytes(shard.read_bytes()[:-9] + b"corrupted")
    with pytest.raises(capt.CaptError):
        capt.store_verify(store=store)
    assert bring(store, images, annotations, directory)["ok"] == 8
    assert capt.store_verify(store=store)["damaged"] == []
    for image_id, row in rows_by_image(store).items():
        np.testing.assert_array_equal(row, before[image_id])
    (described,) = capt.store_ls(store=store)["feature_tables"]
    assert described["extractor"] == "arrays"
    (described,) = capt.store_stats(store=store)["feature_tables"]
    assert set(described["numerics"]) == {"imported"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "x"}, "--layer: the option does not apply to imported features. Omit the option."),
        ({"extractor": "vgg16"}, "--extractor: the option does not apply"),
        ({"resize_mode": "crop"}, "--resize-mode: the option does not apply"),
        ({"max_image_pixels": 9}, "--max-image-pixels: the option does not apply"),
        ({"allow_mixed_numerics": True}, "--allow-mixed-numerics: the option does not apply"),
        ({"storage_dtype": "uint8"}, "--storage-dtype: uint8 is only for pixels"),
        ({"from_arrays": (), "array_names": "x"}, "--array-names: the option belongs to --from-arrays"),
    ],
)
def test_options_of_extraction_are_refused(store, photos, coco, arrays, options, message):
    with pytest.raises(UsageError, match=message):
        bring(store, photos(1), coco(range(1)), arrays(range(1)), **options)
