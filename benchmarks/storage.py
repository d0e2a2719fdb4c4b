"""Benchmark: bytes per image on disk, and the error to float32, by storage dtype, format and compression.

    python benchmarks/storage.py                     on generated scenes
    python benchmarks/storage.py --images DIR…       on your images

Prepares one table per combination with `capt prepare features`, reads it back and prints a Markdown table. The peer is
`tf.data.Dataset.save` of the same features as float32, repeated for each of an image's five captions.
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import capt
from features.store import FeatureTable, open_store
from schemas.choices import Compression, Format, StorageDtype

CAPTIONS_PER_IMAGE, TOKENS = 5, 16
DTYPES = [dtype for dtype in get_args(StorageDtype) if dtype != "uint8"]  # which keeps pixels alone
FORMATS, COMPRESSIONS = get_args(Format), get_args(Compression)


def main() -> None:
    """Measures and prints."""
    options = _options()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        images = options.images or [scene_images(Path(work) / "scenes", options.scenes)]
        tables = {}
        for dtype, file_format, compression in product(DTYPES, FORMATS, COMPRESSIONS):
            chosen = {"storage_dtype": dtype, "format": file_format, "compression": compression}
            tables[dtype, file_format, compression] = _prepared(Path(work) / "store", images, options, chosen)
        _print(tables)
        _print_saved(tables, saved(tables["float32", "tfrecord", "none"], Path(work) / "saved"))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", help="directories or archives of images; default: generated scenes")
    parser.add_argument("--scenes", type=int, default=64, help="number of generated scenes")
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--weights", default="random:7")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--work", help="directory for the tables; default: the system's temporary directory")
    return parser.parse_args()


def scene_images(out: Path, count: int) -> str:
    """Generates scenes and returns the directory of their images."""
    capt.synth_scenes(out=str(out), num_images=count, seed=0)
    return str(out / "images")


def _prepared(store: Path, images: list[str], options: Any, chosen: dict[str, str]) -> FeatureTable:
    result = capt.prepare_features(
        store=str(store),
        dataset_type="folder",
        images=images,
        extractor=options.extractor,
        weights=options.weights,
        precision=options.precision,
        **chosen,
    )
    return open_store(store).feature_table(result["fingerprint"])


def _print(tables: dict[tuple[str, str, str], FeatureTable]) -> None:
    exact = tables["float32", "tfrecord", "none"]
    keys = np.concatenate(list(exact.key_blocks()))
    original = flat(exact, keys)
    shape = "×".join(map(str, exact.shape))
    print(
        f"{len(keys)} images, {exact.table_config.extractor}, {exact.table_config.weights}, {shape} values per image,"
    )
    print(f"{(original == 0).mean():.0%} of them zero.\n")
    print("| dtype | format | compression | KiB per image | relative error, mean | worst | cosine to float32, worst |")
    print("|---|---|---|---|---|---|---|")
    for (dtype, file_format, compression), table in tables.items():
        values = flat(table, keys)
        errors = np.linalg.norm(values - original, axis=1) / np.linalg.norm(original, axis=1)
        print(
            f"| {dtype} | {file_format} | {compression} | {bytes_per_image(table) / 1024:.1f} | {errors.mean():.2g} "
            f"| {errors.max():.2g} | {cosines(values, original).min():.7f} |"
        )


def _print_saved(tables: dict[tuple[str, str, str], FeatureTable], peer: float) -> None:
    print(f"\n`tf.data.Dataset.save`, float32, {CAPTIONS_PER_IMAGE} captions: {peer / 1024:.1f} KiB per image\n")
    print("| dtype | format | relative size |\n|---|---|---|")
    for (dtype, file_format, compression), table in tables.items():
        if compression == "none":
            print(f"| {dtype} | {file_format} | 1/{peer / bytes_per_image(table):.2f} |")


def bytes_per_image(table: FeatureTable) -> float:
    """Returns the size of a table's shards and indexes per image."""
    files = [file for shard in table.shards for file in (shard.data, shard.index) if file]
    return sum(file.bytes for file in files) / table.rows


def saved(table: FeatureTable, path: Path) -> float:
    """Returns the bytes per image of `tf.data.Dataset.save` for features that are repeated for each caption."""

    def captioned() -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
        for keys in table.key_blocks():
            for key in keys:
                features = table.get(key.tobytes()).astype(np.float32)
                yield from ((features, np.zeros(TOKENS, np.int32)) for _ in range(CAPTIONS_PER_IMAGE))

    signature = (tf.TensorSpec(table.shape, tf.float32), tf.TensorSpec((TOKENS,), tf.int32))
    tf.data.Dataset.from_generator(captioned, output_signature=signature).save(str(path))
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / table.rows


def flat(table: FeatureTable, keys: NDArray[np.uint8]) -> NDArray[np.float64]:
    return table.get_many(keys).astype(np.float64).reshape(len(keys), -1)


def cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float64] = (one * other).sum(axis=1) / norms
    return cosines


if __name__ == "__main__":
    main()
