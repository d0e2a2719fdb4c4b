"""Stored rows: fingerprints of table configs and checksums of shards stay the same."""

from pathlib import Path
from typing import Any

import pytest

import capt
from schemas.table_config import CaptionTableConfig, FeatureTableConfig
from tests.golden.data import CAPTIONS, SIDE, write_images, write_network
from tests.golden.expected import EXPECTED

INCEPTION = FeatureTableConfig(
    extractor="inception_v3", weights="imagenet:00", layer="mixed10", height=299, width=299, precision="float32"
)
CAPTION_TABLE = CaptionTableConfig(dataset="coco", vocabulary="train:00")
CONFIGS = {
    "inception_v3": INCEPTION,
    "random weights": INCEPTION.model_copy(update={"weights": "random:7"}),
    "averaged int8": INCEPTION.model_copy(update={"pooling": "avg", "dtype": "int8"}),
    "bfloat16 parquet": INCEPTION.model_copy(update={"precision": "bfloat16", "format": "parquet"}),
    "zstd": INCEPTION.model_copy(update={"compression": "zstd", "dtype": "float32"}),
    "cropped": INCEPTION.model_copy(update={"fit": "crop", "shorter_side": 320}),
    "draft": INCEPTION.model_copy(update={"resize": "draft-bilinear", "fit": "pad"}),
    "tf": INCEPTION.model_copy(update={"resize": "tf-bilinear", "dtype": "bfloat16"}),
    "custom": INCEPTION.model_copy(
        update={"extractor": "custom", "weights": "sha256:00", "layer": "out", "preprocess": "torch"}
    ),
    "pixels": INCEPTION.model_copy(
        update={"extractor": "pixels", "weights": "none", "layer": "pixels", "dtype": "uint8"}
    ),
    "captions": CAPTION_TABLE,
    "captions bounded": CAPTION_TABLE.model_copy(update={"vocab_size": 0, "min_count": 5, "max_length": 20}),
    "captions reused": CAPTION_TABLE.model_copy(
        update={"vocabulary": "given:00", "standardizer": "punctuation", "format": "tfrecord"}
    ),
}
DTYPES = ("float16", "float32", "bfloat16", "int8")


@pytest.mark.parametrize("name", CONFIGS)
def test_fingerprints_of_table_configs(name: str) -> None:
    assert CONFIGS[name].fingerprint == EXPECTED["fingerprints"][name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    write_images(root / "images", 12)
    write_network(root / "network.keras")
    return root


def checksums(data: Path, tmp_path: Path, **options: Any) -> list[str]:
    """Prepares a table and returns the SHA-256 of its shards, in the order of their keys."""
    capt.prepare_features(
        store=str(tmp_path),
        images=[str(data / "images")],
        dataset_type="folder",
        precision="float32",
        num_shards=2,
        **options,
    )
    (table,) = capt.open_store(tmp_path).feature_tables()
    return [shard.data.sha256 for shard in table.shards]


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("form", ["tfrecord", "parquet"])
def test_shards_of_pixels(data: Path, tmp_path: Path, form: str, compression: str) -> None:
    found = checksums(data, tmp_path, extractor="pixels", height=SIDE, width=SIDE, format=form, compression=compression)
    assert found == EXPECTED["shards"]["pixels"][form][compression]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["tfrecord", "parquet"])
def test_shards_of_a_network(data: Path, tmp_path: Path, form: str, dtype: str) -> None:
    found = checksums(data, tmp_path, extractor=f"custom:{data / 'network.keras'}", format=form, storage_dtype=dtype)
    assert found == EXPECTED["shards"]["network"][form][dtype]


@pytest.mark.parametrize("standardizer", ["keras", "alnum", "punctuation"])
def test_tokens_of_captions(tmp_path: Path, standardizer: str) -> None:
    lines = "".join(f"{number}.jpg#0\t{caption}\n" for number, caption in enumerate(CAPTIONS))
    (tmp_path / "train.token.txt").write_text(lines)
    capt.prepare_captions(
        store=str(tmp_path / "store"),
        dataset_type="flickr8k",
        annotations=[str(tmp_path / "train.token.txt")],
        standardize=standardizer,
        split_ratios="1,0,0",
        max_length=12,
        vocab_size=20,
    )
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    rows = sorted(table.captions().to_pylist(), key=lambda row: row["image_id"])
    expected = EXPECTED["tokens"][standardizer]
    assert table.vocabulary() == expected["vocabulary"]
    assert [row["tokens"] for row in rows] == expected["tokens"]
