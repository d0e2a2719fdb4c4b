"""A look-up of one key reads one index, a few keys and one row."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.io import atomic_files
from features.store import FeatureTable, feature_table, open_store
from features.store.random_access import first_row
from schemas.errors import CorruptFileError, MissingKeyError, StoreError, UsageError
from tests.features.store.stores import (
    SHAPE,
    add_captions,
    add_dataset,
    add_features,
    expected_features,
    feature_config,
    key_of,
    keys_of,
    new_store,
)

EVERY_CONFIG = [
    feature_config(file_format, dtype, compression)  # type: ignore[arg-type]
    for file_format in ("tfrecord", "parquet")
    for dtype in ("float32", "float16", "bfloat16", "int8")
    for compression in ("none", "zstd")
]


def table_of(path: Path, table_config: Any = None, rows: int = 64, shards: int = 8) -> FeatureTable:
    """A table whose rows came in two commits of different shard counts."""
    table_config, store = table_config or feature_config(), new_store(path)
    add_features(store, table_config, range(rows // 2), shards=shards)
    add_features(store, table_config, range(rows // 2, rows), shards=shards // 2)
    return open_store(path).feature_table(table_config.fingerprint)


class CountedKeys:
    """Keys that count how often they are looked at."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys
        self.looks = 0

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> Any:
        self.looks += 1
        return self.keys[row]


@pytest.mark.parametrize("table_config", EVERY_CONFIG, ids=lambda r: f"{r.format}-{r.dtype}-{r.compression}")
def test_get_returns_the_features_of_one_image(tmp_path: Path, table_config: Any) -> None:
    table = table_of(tmp_path, table_config)
    for number in (0, 31, 32, 63):
        features = table.get(key_of(number))
        assert features.shape == SHAPE
        assert np.array_equal(features, expected_features([number], table_config.dtype)[0])
        assert np.array_equal(table.get(key_of(number).hex()), features)


@pytest.mark.parametrize("table_config", EVERY_CONFIG, ids=lambda r: f"{r.format}-{r.dtype}-{r.compression}")
def test_rows_are_aligned_so_that_tensorflow_does_not_copy_them(tmp_path: Path, table_config: Any) -> None:
    table = table_of(tmp_path, table_config)
    assert all(table.read(table.lookup(keys_of(range(rows)))).ctypes.data % 64 == 0 for rows in (1, 3, 64))


def test_get_opens_only_the_shard_of_the_key(tmp_path: Path) -> None:
    table_config, store = feature_config(), new_store(tmp_path)
    manifest = add_features(store, table_config, range(64), shards=8)
    wanted = key_of(5)
    others = [shard for shard in manifest.shards if shard.number != wanted[0] >> 5]
    assert len(others) == 7
    for shard in others:
        assert shard.index is not None
        (store.feature_table_root(table_config) / shard.data.path).unlink()
        (store.feature_table_root(table_config) / shard.index.path).unlink()
    table = open_store(tmp_path).feature_table(table_config.fingerprint)
    assert np.array_equal(table.get(wanted), expected_features([5])[0])
    with pytest.raises(CorruptFileError, match="missing"):
        table.get(next(key_of(number) for number in range(64) if key_of(number)[0] >> 5 == others[0].number))


@pytest.mark.parametrize("rows", [1, 2, 1000, 65536])
def test_a_look_up_reads_about_log2_of_the_keys(rows: int) -> None:
    numbers = np.arange(rows, dtype=">u4").view(np.uint8).reshape(rows, 4)
    keys = CountedKeys(np.pad(numbers, ((0, 0), (0, 28))))
    for row in {0, rows // 3, rows - 1}:
        keys.looks = 0
        assert first_row(keys, keys.keys[row].tobytes()) == row  # type: ignore[arg-type]
        assert keys.looks <= math.log2(rows) + 1
    assert first_row(keys, b"\xff" * 32) == rows  # type: ignore[arg-type]


def test_the_checksum_of_a_shard_is_verified_once_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, hashed = table_of(tmp_path), list[str]()
    original = atomic_files.hash_file
    monkeypatch.setattr(atomic_files, "hash_file", lambda path: (hashed.append(path.name), original(path))[1])
    for _ in range(3):
        table.get(key_of(1))
    assert len(hashed) == len(set(hashed)) <= 3
    table.get_many(keys_of(range(64)))
    assert len(hashed) == len(set(hashed)) == 2 * len(table.shards)


def test_more_shards_than_may_be_open_at_once_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_table, "MAX_OPEN", 2)
    table, numbers = table_of(tmp_path), list(range(64)) * 5
    np.random.default_rng(0).shuffle(numbers)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: table.get(key_of(number)), numbers))
    assert np.array_equal(np.stack(found), expected_features(numbers))
    descriptors = [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in _target(link)]
    assert len(descriptors) <= 4


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_the_older_commit_provides_a_repeated_row(tmp_path: Path) -> None:
    table_config, store = feature_config(), new_store(tmp_path)
    add_features(store, table_config, range(10))
    add_features(store, table_config, range(5, 12), shards=2)
    table = open_store(tmp_path).feature_table(table_config.fingerprint)
    assert all(np.array_equal(table.get(key_of(n)), expected_features([n])[0]) for n in range(12))
    assert table.get_many(keys_of(range(12))).shape == (12, *SHAPE)


def test_get_many_accepts_arrays_bytes_and_hexadecimal_digits(tmp_path: Path) -> None:
    table, numbers = table_of(tmp_path), [7, 40, 7]
    expected = expected_features(numbers)
    assert np.array_equal(table.get_many(keys_of(numbers)), expected)
    assert np.array_equal(table.get_many([key_of(number) for number in numbers]), expected)
    assert np.array_equal(table.get_many([key_of(number).hex() for number in numbers]), expected)
    assert table.get_many([]).shape == (0, *SHAPE)


def test_a_missing_key_is_a_store_error_and_a_key_error(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    for call in (lambda: table.get(key_of(99)), lambda: table.get_many(keys_of([3, 99]))):
        with pytest.raises(MissingKeyError, match=f"no row has the key {key_of(99).hex()}") as caught:
            call()
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, StoreError)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingKeyError):
        table.get(b"\xff" * 32)


def test_positions_of_missing_keys_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    with pytest.raises(MissingKeyError, match="did not find its key"):
        table.read(table.lookup(keys_of([3, 99])))


@pytest.mark.parametrize("key", [b"short", "abc", "x" * 64, ""])
def test_an_invalid_key_is_refused(tmp_path: Path, key: Any) -> None:
    with pytest.raises(UsageError, match="invalid key"):
        table_of(tmp_path).get(key)


def test_a_truncated_shard_is_corrupt(tmp_path: Path) -> None:
    table = table_of(tmp_path, shards=2)
    table.get(key_of(3))
    for shard in table.shards:
        path = table.root / shard.data.path
        with path.open("r+b") as file:
            file.truncate(10)
    with pytest.raises(CorruptFileError, match="ends within a row"):
        table.get(key_of(3))


def test_captions_and_images_are_found_by_key(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_dataset(store, "some", range(20))
    add_captions(store, "some", range(20))
    add_features(store, feature_config(), range(20))
    dataset, text, features = store.dataset("some"), store.caption_tables()[0], store.feature_tables()[0]
    assert text.get(key_of(7))["caption"] == "caption 7"
    assert text.get(key_of(7).hex())["tokens"] == [2, 11, 3]
    assert np.array_equal(features.get(dataset.get("7")["key"]), expected_features([7])[0])
    with pytest.raises(MissingKeyError, match="no caption has the key"):
        text.get(key_of(99))
    with pytest.raises(MissingKeyError, match="has no image '99'"):
        dataset.get("99")
