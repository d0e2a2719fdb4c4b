"""Creates tables of seeded features in a store, committed as by `capt prepare`, without an extractor.

An image is only a name; its content hash is the SHA-256 of the name. The features depend on the hash. Half of their
values are zero, as after a ReLU.
"""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.io.atomic_files import atomic_write, describe_file, put_if_absent, write
from features.store import CaptionTable, FeatureTable, Store, storage_dtypes
from features.store.commit_log import CommitLog
from features.store.layout import EXTRACTOR_RECORD
from features.store.shards import ShardWriter, choose_shard_count, find_shard, tensor_fields
from schemas.choices import Compression, Format, StorageDtype
from schemas.manifests import DatasetMetadata, FeatureMetadata, Manifest
from schemas.records import to_arrow
from schemas.table_config import FeatureTableConfig, canonical_json
from schemas.tables import CATALOG

SHAPE = (64, 2048)

_EXTRACTOR = b"no network made these rows"
_COMMIT = "0123456789abcdef"


def hash_name(name: str) -> bytes:
    """Returns the content hash of an image name."""
    return hashlib.sha256(name.encode()).digest()


def make_features(key: bytes, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    """Returns the float32 features of an image."""
    values = np.random.default_rng(list(key)).standard_normal(shape, dtype=np.float32)
    return np.maximum(values, 0)


def feature_table(
    store: Store,
    names: Sequence[str],
    shape: tuple[int, ...] = SHAPE,
    dtype: StorageDtype = "float16",
    file_format: Format = "tfrecord",
    compression: Compression = "none",
) -> FeatureTable:
    """Creates a feature table of images, as `capt prepare features` does."""
    table_config = FeatureTableConfig(
        extractor="inception_v3",
        weights="random:0",
        layer="mixed10",
        height=299,
        width=299,
        precision="float32",
        dtype=dtype,
        format=file_format,
        compression=compression,
    )
    root, table = store.feature_table_root(table_config), table_config.table(shape)
    sha256 = hashlib.sha256(_EXTRACTOR).hexdigest()
    write(store.extractor_path(sha256), _EXTRACTOR)
    put_if_absent(root / EXTRACTOR_RECORD, canonical_json({"network": sha256, "shape": list(shape)}))
    count = choose_shard_count(len(names), sum(field.nbytes for field in tensor_fields(table)))
    shards = []
    for prefix, keys in groupby(sorted(map(hash_name, names)), lambda key: find_shard(key, count)):
        writer = ShardWriter(root, _COMMIT, table, file_format, prefix, count)
        for key in keys:
            writer.append({"key": key, **storage_dtypes.encode(make_features(key, shape), table_config.dtype)})
        shards.append(writer.close())
    facts = FeatureMetadata(shape=shape, network=sha256, numerics="none", toolchain={})
    written = tuple(shard for shard in shards if shard)
    CommitLog(root).append(Manifest(table=table_config.fingerprint, shards=written, facts=facts))
    return store.feature_table(table_config.fingerprint)


def catalog(store: Store, dataset: str, names: Sequence[str]) -> None:
    """Creates a dataset of images, all of them in the training split."""
    root = store.dataset_root(dataset)
    rows = [
        {"image_id": name, "key": hash_name(name), "split": "train", "location": "", "member": "", "bytes": len(name)}
        for name in names
    ]
    path = root / _COMMIT / "catalog.parquet"
    with atomic_write(path) as temporary:
        pq.write_table(to_arrow(CATALOG, rows), temporary)
    facts = DatasetMetadata(source=dataset, images={"train": len(rows)})
    CommitLog(root).append(Manifest(table=dataset, files={"catalog": describe_file(path, root)}, facts=facts))


def train_images(text: CaptionTable) -> list[str]:
    """Returns the sorted names of the images with training captions."""
    captions = text.captions().select(["image_id", "split"])
    return sorted(set(captions.filter(pc.equal(captions["split"], "train"))["image_id"].to_pylist()))


def save_arrays(directory: Path, table: FeatureTable) -> list[str]:
    """Writes each row to a float32 `.npy` file, as the reference notebooks do, and returns the paths by key."""
    directory.mkdir(parents=True)
    paths = []
    for key in sorted(key.tobytes() for keys in table.key_blocks() for key in keys):
        paths.append(str(directory / f"{key.hex()}.npy"))
        np.save(paths[-1], table.get(key).astype(np.float32))
    return paths
