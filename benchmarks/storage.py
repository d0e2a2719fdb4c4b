"""What storage dtypes, formats and compression cost and save: bytes an image on disk, error and cosine to float32.

    python benchmarks/storage.py                     on scenes that it makes
    python benchmarks/storage.py --images DIR…       on images of yours

Prepares one table a combination with `capt prepare features`, reads each back and prints a Markdown table.
"""

import argparse
import logging
import os
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

import capt
from features.store import FeatureTable, open_store
from schemas.compression import Compression
from schemas.recipes import Format, StorageDtype

DTYPES = [dtype for dtype in get_args(StorageDtype) if dtype != "uint8"]  # which keeps pixels alone
FORMATS, COMPRESSIONS = get_args(Format), get_args(Compression)


def main() -> None:
    """Measure and print."""
    options = _options()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        images = options.images or [_scenes(Path(work) / "scenes", options.scenes)]
        tables = {}
        for dtype, file_format, compression in product(DTYPES, FORMATS, COMPRESSIONS):
            chosen = {"dtype": dtype, "format": file_format, "compression": compression}
            tables[dtype, file_format, compression] = _prepared(Path(work) / "store", images, options, chosen)
        _print(tables)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", help="directories or archives of images; default: scenes are made")
    parser.add_argument("--scenes", type=int, default=64, help="how many scenes to make")
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--weights", default="random:7")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--work", help="directory for the tables; default: the system's for temporary files")
    return parser.parse_args()


def _scenes(out: Path, count: int) -> str:
    capt.synth_scenes(out=str(out), count=count, seed=0)
    return str(out / "images")


def _prepared(store: Path, images: list[str], options: Any, chosen: dict[str, str]) -> FeatureTable:
    result = capt.prepare_features(
        store=str(store),
        dataset="folder",
        images=images,
        extractor=options.extractor,
        weights=options.weights,
        precision=options.precision,
        **chosen,
    )
    return open_store(store).features(result["fingerprint"])


def _print(tables: dict[tuple[str, str, str], FeatureTable]) -> None:
    exact = tables["float32", "tfrecord", "none"]
    keys = np.concatenate(list(exact.key_blocks()))
    original = _flat(exact, keys)
    shape = "×".join(map(str, exact.shape))
    print(f"{len(keys)} images, {exact.recipe.extractor}, {exact.recipe.weights}, {shape} values an image,")
    print(f"{(original == 0).mean():.0%} of them zero.\n")
    print("| dtype | format | compression | KiB an image | relative error, mean | worst | cosine to float32, worst |")
    print("|---|---|---|---|---|---|---|")
    for (dtype, file_format, compression), table in tables.items():
        values = _flat(table, keys)
        errors = np.linalg.norm(values - original, axis=1) / np.linalg.norm(original, axis=1)
        size = sum(shard.data.bytes + (shard.index.bytes if shard.index else 0) for shard in table.shards)
        print(
            f"| {dtype} | {file_format} | {compression} | {size / len(keys) / 1024:.1f} | {errors.mean():.2g} "
            f"| {errors.max():.2g} | {_cosines(values, original).min():.7f} |"
        )


def _flat(table: FeatureTable, keys: NDArray[np.uint8]) -> NDArray[np.float64]:
    return table.get_many(keys).astype(np.float64).reshape(len(keys), -1)


def _cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float64] = (one * other).sum(axis=1) / norms
    return cosines


if __name__ == "__main__":
    main()
