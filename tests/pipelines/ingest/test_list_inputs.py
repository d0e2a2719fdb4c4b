"""The location of the images does not affect their rows."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from schemas.errors import CaptError
from tests.conftest import zip_of
from tests.features.buckets import BUCKET, put_s3, s3_server

PIXELS = {"extractor": "pixels", "storage_dtype": "uint8", "height": 64, "width": 64, "dataset_type": "folder"}

Prepare = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepares images into a store, `prepare(images, store)`."""

    def run(images: Path | str, store: str, **options: Any) -> dict[str, Any]:
        root = str(tmp_path / store)
        return capt.prepare_features(store=root, images=[str(images)], **{**PIXELS, **options})  # type: ignore[no-any-return]

    return run


def tar_of(directory: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(directory, directory.name)
    return path


def tables_of(store: Path) -> dict[str, bytes]:
    """The feature tables' files; the dataset beside them tells where its images lie, so it differs."""
    root = store / "features"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_directory_an_archive_and_a_bucket_give_the_same_table(
    prepare: Prepare, bucket: dict[str, str], photos: Any, tmp_path: Path
) -> None:
    images = photos(6)
    archive = zip_of(images, tmp_path / "images.zip")
    tar = tar_of(images, tmp_path / "images.tar")
    for path in sorted(images.iterdir()):
        put_s3(bucket, f"images/{path.name}", path.read_bytes())
    places = {
        "folder": images,
        "zip": archive,
        "tar": tar,
        "objects": f"s3://{BUCKET}/images",
        "zipped": put_s3(bucket, "images.zip", archive.read_bytes()),
        "tarred": put_s3(bucket, "images.tar", tar.read_bytes()),
    }
    for store, place in places.items():
        assert prepare(place, store)["ok"] == 6
    tables = {store: tables_of(tmp_path / store) for store in places}
    assert len(list((tmp_path / "folder").rglob("*.tfrecord"))) == 1
    assert all(table == tables["folder"] for table in tables.values())


def test_images_are_found_by_name_in_a_tar_and_cached_without_reading(
    prepare: Prepare, photos: Any, coco: Any, tmp_path: Path
) -> None:
    tar = tar_of(photos(3), tmp_path / "images.tar")
    options = {"dataset_type": "coco", "annotations": [str(coco(range(4)))], "max_failures": "50%"}
    first = prepare(tar, "store", **options)
    assert (first["ok"], first["failed"]) == (3, 1)
    rows = pq.read_table(first["report"]).to_pylist()
    assert {row["record"]: row["reason"] for row in rows if row["status"] == "failed"} == {"3": "missing"}
    assert prepare(tar, "store", **options)["cached"] == 3


def test_a_missing_bucket_is_one_line_before_extraction(prepare: Prepare, bucket: dict[str, str]) -> None:
    with pytest.raises(CaptError, match="the bucket is missing, or contains nothing") as caught:
        prepare("s3://no-such-bucket/images", "store")
    assert "\n" not in str(caught.value)
