"""Made tables: seeded features and captions in a store, committed as `capt prepare` does, without a network.

An image is a name here, and its content key the name's SHA-256. Its features follow from the key: half of their values
are zero, as after a ReLU.
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
from features.store.shards import ShardWriter, choose_shard_count, find_shard, tensor_fields
from schemas.choices import Compression, Format, StorageDtype
from schemas.manifests import DatasetMetadata, FeatureMetadata, Manifest
from schemas.records import to_arrow
from schemas.table_config import FeatureTableConfig, canonical_json
from schemas.tables import CATALOG

PLACES = (64, 2048)

_NETWORK = b"no network made these rows"
_COMMIT = "0123456789abcdef"


def key_of(name: str) -> bytes:
    """The content key of an image, which its name stands for."""
    return hashlib.sha256(name.encode()).digest()


def features_of(key: bytes, shape: tuple[int, ...] = PLACES) -> NDArray[np.float32]:
    """The features of an image, float32 array of `shape`, as a network would give them."""
    values = np.random.default_rng(list(key)).standard_normal(shape, dtype=np.float32)
    return np.maximum(values, 0)


def feature_table(
    store: Store,
    names: Sequence[str],
    shape: tuple[int, ...] = PLACES,
    dtype: StorageDtype = "float16",
    file_format: Format = "tfrecord",
    compression: Compression = "none",
) -> FeatureTable:
    """A table of the features of images, as a run of `capt prepare features` leaves it."""
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
    sha256 = hashlib.sha256(_NETWORK).hexdigest()
    write(store.extractor_path(sha256), _NETWORK)
    put_if_absent(root / "network.json", canonical_json({"network": sha256, "shape": list(shape)}))
    count = choose_shard_count(len(names), sum(field.nbytes for field in tensor_fields(table)))
    shards = []
    for prefix, keys in groupby(sorted(map(key_of, names)), lambda key: find_shard(key, count)):
        writer = ShardWriter(root, _COMMIT, table, file_format, prefix, count)
        for key in keys:
            writer.append({"key": key, **storage_dtypes.encode(features_of(key, shape), table_config.dtype)})
        shards.append(writer.close())
    facts = FeatureMetadata(shape=shape, network=sha256, numerics="none", toolchain={})
    written = tuple(shard for shard in shards if shard)
    CommitLog(root).append(Manifest(table=table_config.fingerprint, shards=written, facts=facts))
    return store.feature_table(table_config.fingerprint)


def catalog(store: Store, dataset: str, names: Sequence[str]) -> None:
    """A dataset whose images are these, all of them to learn from."""
    root = store.dataset_root(dataset)
    rows = [
        {"image_id": name, "key": key_of(name), "split": "train", "location": "", "member": "", "bytes": len(name)}
        for name in names
    ]
    path = root / _COMMIT / "catalog.parquet"
    with atomic_write(path) as temporary:
        pq.write_table(to_arrow(CATALOG, rows), temporary)
    facts = DatasetMetadata(source=dataset, images={"train": len(rows)})
    CommitLog(root).append(Manifest(table=dataset, files={"catalog": describe_file(path, root)}, facts=facts))


def train_images(text: CaptionTable) -> list[str]:
    """The names of the images whose captions are to learn from, by name."""
    captions = text.captions().select(["image_id", "split"])
    return sorted(set(captions.filter(pc.equal(captions["split"], "train"))["image_id"].to_pylist()))


def save_arrays(directory: Path, table: FeatureTable) -> list[str]:
    """The rows of a table, each in a `.npy` file of float32, as the reference notebooks keep features.

    Returns:
        list of str: the files' paths, by content key.
    """
    directory.mkdir(parents=True)
    paths = []
    for key in sorted(key.tobytes() for keys in table.key_blocks() for key in keys):
        paths.append(str(directory / f"{key.hex()}.npy"))
        np.save(paths[-1], table.get(key).astype(np.float32))
    return paths
