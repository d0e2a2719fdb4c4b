"""Benchmark: a run with nothing new, and the notebooks' loop, which computes all features again.

    python benchmarks/unchanged_dataset.py [--images 10000] [--photographs 48] [--rounds 5]

capt's images are files of a few bytes whose rows are in the store. So the benchmark measures what every run does before
it extracts: listing the directory, looking up hashes, classifying records, and writing the catalog and the report. The
loop gets photographs, InceptionV3 and random weights; its time per image is constant. The goals are 10,000 images per
second and 250 times the speed of the loop.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from extraction_baselines import notebook_loop
from photographs import write_photographs
from timing import Work, measure_in_turn, print_rounds, ratio

import capt
from features.extractors.factory import open_extractor
from features.store import create_store
from features.store.commit_log import CommitLog
from features.store.shards import ShardWriter
from pipelines.jobs.frozen_extractor import find_or_freeze_extractor
from pipelines.prepare_features import build_table_config
from schemas.manifests import FeatureMetadata, Manifest
from schemas.options.prepare import PrepareFeatures

OPTIONS: dict[str, Any] = {
    "dataset_type": "folder",
    "extractor": "mobilenet_v3_small",
    "weights": "random:7",
    "precision": "float32",
}
OLD = 1_000_000_000
OURS, PEER = "nothing new", "the notebooks' loop"


def make_images(root: Path, count: int) -> None:
    """Writes files of a few bytes, a thousand per directory, old enough for the hash cache."""
    for number in range(count):
        path = root / f"{number // 1000:04d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(number).encode())
        os.utime(path, (OLD, OLD))


def make_store(path: Path, images: Path, count: int) -> None:
    """Creates a store whose feature table has a row of two values for every image."""
    store = create_store(path)
    options = PrepareFeatures(store=str(path), images=(str(images),), **OPTIONS)
    table_config = build_table_config(options, store)
    root = store.feature_table_root(table_config)
    writer = ShardWriter(root, "made", table_config.table((2,)), table_config.format, 0, 1)
    for key in sorted(hashlib.sha256(str(number).encode()).digest() for number in range(count)):
        writer.append({"key": key, "value": np.zeros(2, np.float16)})
    shard = writer.close()
    assert shard is not None
    extractor = find_or_freeze_extractor(root, store.path, table_config, open_extractor(options))
    facts = FeatureMetadata(shape=(2,), network=extractor.sha256, numerics="made", toolchain={})
    CommitLog(root).append(Manifest(table=table_config.fingerprint, shards=(shard,), facts=facts))


def rerun(store: Path, images: Path) -> Work:
    """Returns a run over a directory whose images are all in the store."""

    def work() -> float:
        started = time.perf_counter()
        result = capt.prepare_features(store=str(store), images=[str(images)], **OPTIONS)
        assert result["cached"] == result["input"]
        return float(result["input"]) / (time.perf_counter() - started)

    return work


def again(model: Path, photographs: Sequence[Path], out: Path) -> Work:
    """Returns the notebooks' loop over photographs whose features exist in `out`."""
    out.mkdir()

    def work() -> float:
        started = time.perf_counter()
        notebook_loop(str(model), photographs, out)
        return len(photographs) / (time.perf_counter() - started)

    return work


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--photographs", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        make_images(work / "images", options.images)
        make_store(work / "store", work / "images", options.images)
        keras.utils.set_random_seed(7)
        keras.applications.InceptionV3(include_top=False, weights=None).save(work / "model.keras")
        photographs = write_photographs(work / "photographs", options.photographs)
        works = {
            OURS: rerun(work / "store", work / "images"),
            PEER: again(work / "model.keras", photographs, work / "arrays"),
        }
        rates = measure_in_turn(works, options.rounds)
    print_rounds("images", rates, [ratio(rates, OURS, PEER)], images=options.images)


if __name__ == "__main__":
    main()
