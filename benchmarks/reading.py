"""How fast tables are read: Parquet against TFRecord, compressed against bare, ours against other readers alone.

    python benchmarks/reading.py [--rows N] [--shape 64,2048] [--dtype float16] [--batch N] [--rounds N]

Makes one table a format with the same seeded rows, half of their values zero as after a ReLU, and reads each whole, in
turn, round by round, so that what else the machine does falls on all alike. The tables fit the page cache: this
compares the formats, not disks. Each ratio is of two readers of one round; printed are its median and its range.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from rounds import Work, in_turn, print_rounds, ratio

from features import quantize
from features.files import put_if_absent, write
from features.store import FeatureTable, Store, create_store, open_store
from features.store.log import CommitLog
from features.store.shards import ShardWriter, shard_count, shard_of, tensor_fields
from schemas.compression import Compression
from schemas.manifests import FeatureFacts, Manifest
from schemas.recipes import FeatureRecipe, Format, canonical_json
from schemas.records import parsing_spec

Reader = Callable[[], int]

_NETWORK = b"no network made these rows"
_RATIOS = (
    ("random, Parquet", "random, TFRecord"),
    ("random, TFRecord, zstd", "random, TFRecord"),
    ("tf.data, Parquet", "tf.data, TFRecord"),
    ("tf.data, TFRecord", "TFRecordDataset alone"),
    ("tf.data, Parquet", "pyarrow alone"),
)


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        store = create_store(Path(work) / "store")
        bare = {name: _table(store, options, name) for name in ("tfrecord", "parquet")}
        packed = {name: _table(store, options, name, "zstd") for name in ("tfrecord", "parquet")}
        readers = {
            "random, TFRecord": _random(bare["tfrecord"], options.batch),
            "random, Parquet": _random(bare["parquet"], options.batch),
            "random, TFRecord, zstd": _random(packed["tfrecord"], options.batch),
            "random, Parquet, zstd": _random(packed["parquet"], options.batch),
            "tf.data, TFRecord": _streamed(bare["tfrecord"], options.batch),
            "tf.data, Parquet": _streamed(bare["parquet"], options.batch),
            "tf.data, TFRecord, zstd": _streamed(packed["tfrecord"], options.batch),
            "TFRecordDataset alone": _tensorflow_alone(bare["tfrecord"], options.batch),
            "pyarrow alone": _pyarrow_alone(bare["parquet"], options.batch),
        }
        rates = in_turn({name: _rate(read) for name, read in readers.items()}, options.rounds)
    print_rounds("images", rates, [ratio(rates, one, other) for one, other in _RATIOS])


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(64, 2048))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", help="directory for the tables; default: the system's for temporary files")
    return parser.parse_args()


# === Tables ===


def _table(store: Store, options: Any, file_format: Format, compression: Compression = "none") -> FeatureTable:
    """A table of seeded rows, committed as a run of `capt prepare features` does."""
    recipe = FeatureRecipe(
        extractor="inception_v3",
        weights="random:0",
        layer="mixed10",
        height=299,
        width=299,
        precision="float32",
        dtype=options.dtype,
        format=file_format,
        compression=compression,
    )
    root, table = store.feature_root(recipe), recipe.table(options.shape)
    sha256 = hashlib.sha256(_NETWORK).hexdigest()
    write(store.network_path(sha256), _NETWORK)
    put_if_absent(root / "network.json", canonical_json({"network": sha256, "shape": list(options.shape)}))
    count = shard_count(options.rows, sum(field.nbytes for field in table.fields))
    keys = sorted((hashlib.sha256(str(number).encode()).digest(), number) for number in range(options.rows))
    shards = []
    for prefix, some in groupby(keys, lambda pair: shard_of(pair[0], count)):
        writer = ShardWriter(root, "0123456789abcdef", table, file_format, prefix, count)
        for key, number in some:
            values = np.random.default_rng(number).standard_normal(options.shape, dtype=np.float32)
            writer.append({"key": key, **quantize.encode(np.maximum(values, 0), recipe.dtype)})
        shards.append(writer.close())
    facts = FeatureFacts(shape=options.shape, network=sha256, numerics="none", toolchain={})
    written = tuple(shard for shard in shards if shard)
    CommitLog(root).append(Manifest(table=recipe.fingerprint, shards=written, facts=facts))
    return open_store(store.path).features(recipe.fingerprint)


# === Readers: each reads every row once and says how many those were ===


def _random(table: FeatureTable, batch: int) -> Reader:
    generator = np.random.default_rng(0)

    def read() -> int:
        order = generator.permutation(table.rows)
        return sum(len(table.read(order[start : start + batch])) for start in range(0, len(order), batch))

    return read


def _streamed(table: FeatureTable, batch: int) -> Reader:
    return lambda: _drain(table.dataset(batch))


def _tensorflow_alone(table: FeatureTable, batch: int) -> Reader:
    """What a TensorFlow program makes of the TFRecords with nothing but the published parsing spec."""
    fields, spec = tensor_fields(table.table), parsing_spec(table.table)

    def parse(records: Any) -> Any:
        rows = tf.io.parse_example(records, spec)
        raw = {field: tf.io.decode_raw(rows[field.name], tf.as_dtype(field.numpy_dtype)) for field in fields}
        columns = {field.name: tf.reshape(value, (-1, *field.shape)) for field, value in raw.items()}
        if "scale" in columns:
            columns["value"] = tf.cast(columns["value"], tf.float32) * columns["scale"][..., tf.newaxis]
        return {"key": rows["key"], "value": columns["value"]}

    files = [str(table.root / shard.data.path) for shard in table.shards]
    return lambda: _drain(tf.data.TFRecordDataset(files).batch(batch).map(parse).prefetch(2))


def _pyarrow_alone(table: FeatureTable, batch: int) -> Reader:
    """What a program makes of the Parquet files with nothing but pyarrow and the documented NumPy view, as stored."""
    field = table.table.field("value")

    def read() -> int:
        rows = 0
        for shard in table.shards:
            with pq.ParquetFile(table.root / shard.data.path) as file:
                for some in file.iter_batches(batch):
                    column = some.column("value")
                    data = column.buffers()[1].slice(column.offset * field.nbytes, len(column) * field.nbytes)
                    rows += len(np.frombuffer(data, field.numpy_dtype).reshape(-1, *field.shape))
        return rows

    return read


def _drain(dataset: Iterable[Any]) -> int:
    return sum(int(tf.shape(batch["value"])[0]) for batch in dataset)


def _rate(read: Reader) -> Work:
    def work() -> float:
        started = time.perf_counter()
        return read() / (time.perf_counter() - started)

    return work


if __name__ == "__main__":
    main()
