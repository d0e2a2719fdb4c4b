"""Storage dtypes, compression and shard counts keep the features."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.store import FeatureTable
from features.synthetic.scenes.dataset import make_scenes

ERRORS = {"float32": 0.0, "float16": 5e-4, "bfloat16": 4e-3, "int8": 1e-2}
SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7"}
LARGE = {"extractor": "inception_v3", "weights": "random:7"}


def prepare(store: Path, images: Path, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = capt.prepare_features(
        store=str(store), images=[str(images)], dataset_type="folder", precision="float32", **options
    )
    return result


def table_of(store: Path, images: Path, like: FeatureTable | None = None, **options: Any) -> FeatureTable:
    """The table of a prepared folder; with the network of the table `like`, so that it need not be built again."""
    if like:
        names = {"storage_dtype": "dtype", "format": "format", "compression": "compression"}
        changed = {names[option]: value for option, value in options.items() if option in names}
        root = capt.open_store(store).feature_table_root(like.table_config.model_copy(update=changed))
        shutil.copy(like.root / "network.json", root)
    fingerprint = prepare(store, images, **options)["fingerprint"]
    table: FeatureTable = capt.open_store(store).feature_table(fingerprint)
    assert like is None or table.extractor_path == like.extractor_path
    return table


def flat(table: FeatureTable, keys: Any) -> Any:
    return table.get_many(keys).astype(np.float64).reshape(len(keys), -1)


def keys_of(store: Path) -> list[bytes]:
    keys: list[bytes] = capt.open_store(store).dataset("folder").catalog()["key"].to_pylist()
    return keys


def cosines(one: Any, other: Any) -> Any:
    return (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def bytes_an_image(table: FeatureTable) -> float:
    return sum(shard.data.bytes + shard.index.bytes for shard in table.shards if shard.index) / table.rows


def test_every_storage_dtype_keeps_features_within_its_error(tmp_path: Path, photos: Any) -> None:
    images, store = photos(5), tmp_path / "store"
    exact = table_of(store, images, storage_dtype="float32", **SMALL)
    keys, compared = keys_of(store), flat(exact, keys_of(store))
    for dtype, error in ERRORS.items():
        values = flat(table_of(store, images, exact, storage_dtype=dtype, format="parquet", **SMALL), keys)
        assert (np.linalg.norm(values - compared, axis=1) <= error * np.linalg.norm(compared, axis=1)).all()
        assert cosines(values, compared).min() >= 0.999


def check_int8(store: Path, images: Path) -> None:
    """int8 rows of 64×2048 values take at most 132 KiB and point where float32 rows do."""
    exact = table_of(store, images, storage_dtype="float32", **LARGE)
    small = table_of(store, images, exact, storage_dtype="int8", **LARGE)
    assert exact.shape == small.shape == (64, 2048)
    assert bytes_an_image(small) <= 132 * 1024
    keys = keys_of(store)
    assert cosines(flat(small, keys), flat(exact, keys)).min() >= 0.999


@pytest.mark.slow
def test_int8_uses_132_kib_per_image_and_keeps_its_direction(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", 5, 0)
    check_int8(tmp_path / "store", tmp_path / "scenes" / "images")


@pytest.mark.slow
def test_int8_uses_132_kib_per_real_image_and_keeps_its_direction(tmp_path: Path, real_data: Path) -> None:
    check_int8(tmp_path / "store", real_data / "coco-mini" / "val2017")


def test_compression_has_its_own_table_and_changes_no_value(tmp_path: Path, photos: Any) -> None:
    images, store = photos(5), tmp_path / "store"
    bare = table_of(store, images, **SMALL)
    assert bare.table_config.compression == "none"
    keys = keys_of(store)
    for file_format in ("tfrecord", "parquet"):
        packed = table_of(store, images, bare, format=file_format, compression="zstd", **SMALL)
        assert packed.fingerprint != bare.fingerprint
        assert np.array_equal(packed.get_many(keys), bare.get_many(keys))
        assert bytes_an_image(packed) < bytes_an_image(bare)


def test_compaction_changes_the_shard_count_without_extraction(tmp_path: Path, photos: Any) -> None:
    images, store = photos(12), tmp_path / "store"
    table = table_of(store, images, num_shards=1, **SMALL)
    keys = keys_of(store)
    before = table.get_many(keys)
    again = prepare(store, images, num_shards=4, **SMALL)
    assert (again["ok"], again["cached"], again["shards"]) == (0, 12, 0)
    done = capt.store_compact(store=str(store), num_shards=4)
    assert (done["rows"], done["dropped"]) == (12, 0)
    (table,) = capt.open_store(store).feature_tables()
    assert {shard.count for shard in table.shards} == {4}
    assert np.array_equal(table.get_many(keys), before)
    assert prepare(store, images, **SMALL)["ok"] == 0
