"""An export to a bucket has the files of one to a directory, and resumes."""

from pathlib import Path

import pytest

import capt
from features.io.locations import parse_location
from tests.features.buckets import BUCKET, bucket
from tests.features.store import stores


@pytest.mark.slow
def test_an_export_to_a_bucket_has_the_files_of_one_to_a_directory(tmp_path: Path) -> None:
    store = stores.new_store(tmp_path / "S")
    stores.add_features(store, stores.feature_config(), range(6))
    stores.add_dataset(store, "d", range(6))
    given = {"store": str(store.path), "format": "huggingface", "shard_size": 2}
    local = capt.store_export(**given, output=str(tmp_path / "out"))
    with bucket("s3", tmp_path / "mirror"):
        address = f"s3://{BUCKET}/out"
        assert capt.store_export(**given, output=address)["files"] == local["files"]
        paths = {path.relative_to(parse_location(address)): path for path, _ in parse_location(address).list_tree()}
        for name, path in paths.items():
            assert path.read_bytes() == (tmp_path / "out" / name).read_bytes()
        assert len(paths) == local["files"] + 1
        assert capt.store_export(**given, output=address)["written"] == 0
        next(path for name, path in paths.items() if name.suffix == ".parquet").unlink()
        assert capt.store_export(**given, output=address)["written"] == 1
