"""Benchmark: rows read per second, by format, with other readers and the limit of the machine.

    python benchmarks/reading.py [--rows N] [--shape 64,2048] [--dtype float16] [--batch N] [--rounds N]

Creates one table per format with the same seeded rows, half of their values zero as after a ReLU. Reads each one in
turn, round by round, so that other load affects all alike. Tables and files fit into the page cache: this compares
readers, not disks.

`training` reads in random order as training does: `trainer.data.caption_batches` from the TFRecord table, one caption
per image. Its peer is the reader of the reference notebooks: a float32 `.npy` file per image, shuffled and batched by
tf.data. Its limit is `readinto` of the same rows in random order into one buffer and a copy of it, with one thread and
with two, as many as tf.data uses for `training`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from notebook_captioner import reader
from numpy.typing import NDArray
from synthetic_tables import feature_table, save_arrays
from timing import Work, measure_in_turn, print_rounds, ratio

from features.store import FeatureTable, create_store
from features.store.shards import read_index, tensor_fields, value_span
from schemas.choices import Format
from schemas.records import build_parsing_spec
from schemas.table_config import END, START
from trainer.data.caption_batches import BatchReader
from trainer.data.caption_data import Captions
from trainer.data.caption_order import shuffle_captions

Reader = Callable[[], int]

_FORMATS: tuple[Format, ...] = ("tfrecord", "parquet")
PASSES = 4  # in a round, of what reads a table in a tenth of a second
_RATIOS = (
    ("random, Parquet", "random, TFRecord"),
    ("random, TFRecord, zstd", "random, TFRecord"),
    ("tf.data, Parquet", "tf.data, TFRecord"),
    ("tf.data, TFRecord", "TFRecordDataset alone"),
    ("tf.data, Parquet", "pyarrow alone"),
    ("training", "notebook"),
    ("training", "readinto and a copy"),
    ("training", "readinto and a copy, two threads"),
)


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        store, names = create_store(Path(work) / "store"), [str(number) for number in range(options.rows)]
        bare, packed = (
            {name: feature_table(store, names, options.shape, options.dtype, name, kind) for name in _FORMATS}
            for kind in ("none", "zstd")
        )
        captions = one_caption_each(bare["tfrecord"])
        arrays = save_arrays(Path(work) / "arrays", bare["tfrecord"])
        readers = {
            "random, TFRecord": random(bare["tfrecord"], options.batch),
            "random, Parquet": random(bare["parquet"], options.batch),
            "random, TFRecord, zstd": random(packed["tfrecord"], options.batch),
            "random, Parquet, zstd": random(packed["parquet"], options.batch),
            "tf.data, TFRecord": streamed(bare["tfrecord"], options.batch),
            "tf.data, Parquet": streamed(bare["parquet"], options.batch),
            "tf.data, TFRecord, zstd": streamed(packed["tfrecord"], options.batch),
            "TFRecordDataset alone": tensorflow_alone(bare["tfrecord"], options.batch),
            "pyarrow alone": pyarrow_alone(bare["parquet"], options.batch),
            "training": training(bare["tfrecord"], captions, options.batch),
            "notebook": notebook(arrays, options.batch),
            "readinto and a copy": readinto(bare["tfrecord"], options.batch, threads=1),
            "readinto and a copy, two threads": readinto(bare["tfrecord"], options.batch, threads=2),
        }
        rates = measure_in_turn({name: _rate(read) for name, read in readers.items()}, options.rounds)
    print_rounds("images", rates, [ratio(rates, one, other) for one, other in _RATIOS])


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(64, 2048))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", help="directory for the tables; default: the system's temporary directory")
    return parser.parse_args()


# === Readers: each reads every row, and returns the number of rows ===


def random(table: FeatureTable, batch: int) -> Reader:
    generator = np.random.default_rng(0)

    def read() -> int:
        order = generator.permutation(table.rows)
        return sum(len(table.read(order[start : start + batch])) for start in range(0, len(order), batch))

    return read


def streamed(table: FeatureTable, batch: int) -> Reader:
    return lambda: _drain(table.dataset(batch))


def tensorflow_alone(table: FeatureTable, batch: int) -> Reader:
    """Returns a reader of the TFRecords that uses only TensorFlow and the documented parsing spec."""
    fields, spec = tensor_fields(table.table), build_parsing_spec(table.table)

    def parse(records: Any) -> Any:
        rows = tf.io.parse_example(records, spec)
        raw = {field: tf.io.decode_raw(rows[field.name], tf.as_dtype(field.numpy_dtype)) for field in fields}
        columns = {field.name: tf.reshape(value, (-1, *field.shape)) for field, value in raw.items()}
        if "scale" in columns:
            columns["value"] = tf.cast(columns["value"], tf.float32) * columns["scale"][..., tf.newaxis]
        return {"key": rows["key"], "value": columns["value"]}

    files = [str(table.root / shard.data.path) for shard in table.shards]
    return lambda: _drain(tf.data.TFRecordDataset(files).batch(batch).map(parse).prefetch(2))


def pyarrow_alone(table: FeatureTable, batch: int) -> Reader:
    """Returns a reader of the Parquet files that uses only pyarrow and the documented NumPy view."""
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


def one_caption_each(table: FeatureTable) -> Captions:
    """Returns one empty caption per row, so that training reads each image once."""
    keys = np.concatenate(list(table.key_blocks()))
    images = len(keys)
    return Captions(
        tokens=np.tile(np.array([START, END], np.int32), images),
        starts=2 * np.arange(images + 1),
        image=np.arange(images, dtype=np.int32),
        keys=keys,
        rows=table.lookup(keys),
    )


def training(table: FeatureTable, captions: Captions, batch: int) -> Reader:
    feed = BatchReader(captions, table)
    order = [numbers for epoch in range(PASSES) for numbers in shuffle_captions(captions, batch, 0, epoch)]
    batches = feed.dataset(order, batch)
    return lambda: sum(int(tf.shape(inputs["features"])[0]) for inputs, _ in batches)


def notebook(arrays: Sequence[str], batch: int) -> Reader:
    batches = reader(arrays, np.zeros((len(arrays), 2), np.int32), batch)
    return lambda: sum(int(tf.shape(features)[0]) for features, _ in batches)


def readinto(table: FeatureTable, batch: int, threads: int) -> Reader:
    """Returns a reader of all values in random order into a buffer that is then copied."""
    ranges, nbytes = locate_rows(table), table.table.field("value").nbytes
    generator = np.random.default_rng(0)

    def read() -> int:
        order = np.concatenate([generator.permutation(len(ranges)) for _ in range(PASSES)])
        parts = np.array_split(order, threads)
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(read_some, parts))

    def read_some(rows: NDArray[np.int64]) -> int:
        buffer, copy = np.ones((2, batch, nbytes), np.uint8)
        files = {path: path.open("rb", buffering=0) for path in {ranges[row][0] for row in rows}}
        for start in range(0, len(rows), batch):
            for target, row in zip(buffer, rows[start : start + batch], strict=False):
                path, offset = ranges[row]
                files[path].seek(offset)
                files[path].readinto(target)
            np.copyto(copy, buffer)
        for file in files.values():
            file.close()
        return len(rows)

    return read


def locate_rows(table: FeatureTable) -> list[tuple[Path, int]]:
    """Returns the file and offset of each row's uncompressed value."""
    field = table.table.field("value")
    return [
        (table.root / shard.data.path, int(value_span(entry, field)[0]))
        for shard in table.shards
        if shard.index
        for entry in read_index(table.root / shard.index.path, table.table)
    ]


def _drain(dataset: Iterable[Any]) -> int:
    return sum(int(tf.shape(batch["value"])[0]) for batch in dataset)


def _rate(read: Reader) -> Work:
    def work() -> float:
        started = time.perf_counter()
        return read() / (time.perf_counter() - started)

    return work


if __name__ == "__main__":
    main()
