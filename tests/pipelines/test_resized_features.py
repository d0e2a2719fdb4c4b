"""Features equal those that Keras computes from images resized in the same way."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import capt
from features.store import create_store
from pipelines.prepare_features import build_table_config
from schemas.errors import UsageError
from schemas.options.prepare import PrepareFeatures
from tests.conftest import noise_image

SIDE = 224


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A Keras model with random weights, and its weights file."""
    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    path = tmp_path_factory.mktemp("weights") / "random.weights.h5"
    model.save_weights(path)
    return model, str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images wider and taller than the input size, and one smaller."""
    root = tmp_path_factory.mktemp("images")
    for number, size in enumerate([(500, 333), (301, 407), (90, 70)]):
        noise_image(number, *size).save(root / f"{number}.png")
    return root


def prepare(store: Path, images: Path, weights: str, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = capt.prepare_features(
        store=str(store), dataset_type="folder", images=[str(images)], extractor="mobilenet_v3_small", weights=weights,
        precision="float32", storage_dtype="float32", **options
    )  # fmt: skip
    return result


def cropped(pixels: np.ndarray, shorter: int) -> np.ndarray:
    """The middle of the picture that tf.image.resize makes in its own proportions."""
    height, width = (round(side * shorter / min(pixels.shape[:2])) for side in pixels.shape[:2])
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return tf.image.resize(pixels, (height, width)).numpy()[top : top + SIDE, left : left + SIDE]


@pytest.mark.parametrize("options", [{}, {"resize_mode": "crop", "shortest_edge": 256}], ids=["stretch", "crop"])
def test_tf_rows_are_those_of_a_direct_keras_call(
    network: tuple[Any, str], images: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    model, weights = network
    assert prepare(tmp_path / "store", images, weights, resize_method="tf", **options)["ok"] == 3
    (table,) = capt.open_store(tmp_path / "store").feature_tables()
    dataset = capt.open_store(tmp_path / "store").dataset("folder")
    keys = {row["image_id"]: row["key"] for row in dataset.catalog().to_pylist()}
    for path in images.iterdir():
        pixels = np.asarray(Image.open(path))
        resized = cropped(pixels, 256) if options else tf.image.resize(pixels, (SIDE, SIDE)).numpy()
        direct = np.asarray(model(resized[None], training=False)).reshape(table.shape)
        (row,) = table.read(table.lookup(np.frombuffer(keys[path.name], np.uint8)[None]))
        assert np.linalg.norm(row - direct) / np.linalg.norm(direct) < 1e-4


def test_each_resize_setting_has_its_own_table(network: tuple[Any, str], images: Path, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"resize_method": "tf"},
        {"resize_method": "draft"},
        {"resize_mode": "crop"},
        {"resize_mode": "crop", "shortest_edge": 256},
        {"resize_mode": "pad"},
        {"resize_mode": "pad-border"},
    ]
    store = create_store(tmp_path / "store")
    asked = {"store": str(store.path), "dataset_type": "folder", "images": (str(images),), "weights": network[1]}
    table_configs = [
        build_table_config(PrepareFeatures(**asked, extractor="mobilenet_v3_small", **way), store) for way in ways
    ]
    assert len({table_config.fingerprint for table_config in table_configs}) == len(ways)


def test_draft_rows_are_close_to_pillow_rows_but_not_equal(network: tuple[Any, str], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    noise_image(1, 900, 700).save(tmp_path / "images" / "large.jpg")
    for resize in ("pillow", "draft"):
        assert prepare(tmp_path / "store", tmp_path / "images", network[1], resize_method=resize)["ok"] == 1
    whole, draft = (
        next(
            table for table in capt.open_store(tmp_path / "store").feature_tables() if table.table_config.resize == rule
        )
        for rule in ("pillow-bilinear", "draft-bilinear")
    )
    one, other = (table.read(np.arange(1))[0].ravel() for table in (whole, draft))
    assert 0.99 < one @ other / np.sqrt((one @ one) * (other @ other)) < 1
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("options", [{"shortest_edge": 256}, {"resize_mode": "crop", "shortest_edge": 223}])
def test_a_shortest_edge_without_effect_is_wrong_usage(
    network: tuple[Any, str], images: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="--shortest-edge"):
        prepare(tmp_path / "store", images, network[1], **options)


def test_invalid_options_are_refused_before_the_images_are_listed(network: tuple[Any, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--shortest-edge"):
        prepare(tmp_path / "store", tmp_path / "missing", network[1], shortest_edge=256)
