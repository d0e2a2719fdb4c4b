"""A pixel table stores the resized images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import capt
from features.extractors.factory import open_extractor
from features.images.decode import decode
from features.images.resize import Resizer
from schemas.errors import UsageError
from schemas.options.extractor import ExtractorOptions


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_pixel_table_returns_the_resized_images(
    tmp_path: Path, photos: Callable[..., Path], file_format: str, compression: str
) -> None:
    images = photos(5)
    summary = capt.prepare_features(
        store=str(tmp_path / "store"),
        dataset_type="folder",
        images=[str(images)],
        extractor="pixels",
        height=24,
        width=32,
        format=file_format,
        compression=compression,
    )
    assert (summary["ok"], summary["precision"]) == (5, "float32")
    store = capt.open_store(tmp_path / "store")
    table = store.feature_table(summary["fingerprint"])
    assert (table.shape, table.table_config.dtype, table.table_config.weights) == ((24, 32, 3), "uint8", "none")
    catalog = store.dataset("folder").catalog()
    for name, key in zip(catalog["image_id"].to_pylist(), catalog["key"].to_pylist(), strict=True):
        row = table.get(key)
        assert row.dtype == np.uint8
        assert np.array_equal(row, decode((images / Path(name).name).read_bytes(), Resizer(24, 32)))


def test_float_pixels_are_rounded(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(values).save(tmp_path / "images" / "a.png")
    summary = capt.prepare_features(
        store=str(tmp_path / "store"), dataset_type="folder", images=[str(tmp_path / "images")], extractor="pixels",
        height=24, width=32, resize_method="tf",
    )  # fmt: skip
    table = capt.open_store(tmp_path / "store").feature_table(summary["fingerprint"])
    floats = decode((tmp_path / "images" / "a.png").read_bytes(), Resizer(24, 32, "tf-bilinear"))
    assert np.array_equal(table.read(np.array([0]))[0], np.rint(floats).astype(np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "imagenet"}, "--weights: the option does not apply"),
        ({"layer": "output"}, "--layer: the option does not apply"),
        ({"pooling": "avg"}, "--pooling: the option does not apply"),
        ({"preprocess": "unit"}, "--preprocess: the option does not apply"),
        ({"precision": "bfloat16"}, "--precision: the option does not apply"),
        ({"storage_dtype": "float16"}, "--storage-dtype: pixels are stored as uint8"),
    ],
)
def test_options_that_do_not_apply_to_pixels_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_extractor(ExtractorOptions(extractor="pixels", **options))
