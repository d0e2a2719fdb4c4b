"""A run with nothing new: images a second through the stat cache, with 100,000 images that the store has.

    python benchmarks/nothing_new.py [--images 100000] [--rounds 5]

The images are files of a few bytes and the store's rows are made to match, so what is measured is what every run does
before it extracts: walking the folder, recalling keys, settling statuses, writing the catalog and the report. The
figure to beat is 10,000 images a second.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import capt
from features.extractors.opening import open_extractor
from features.store import create_store
from features.store.log import CommitLog
from features.store.shards import ShardWriter
from pipelines.frozen import frozen_network
from pipelines.prepare_features import FeatureOptions, recipe_of
from schemas.manifests import FeatureFacts, Manifest

OPTIONS: dict[str, Any] = {
    "dataset": "folder",
    "extractor": "mobilenet_v3_small",
    "weights": "random:7",
    "precision": "float32",
}
OLD = 1_000_000_000


def make_images(root: Path, count: int) -> None:
    """Files of a few bytes each, a thousand a folder, old enough for the stat cache to trust."""
    for number in range(count):
        path = root / f"{number // 1000:04d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(number).encode())
        os.utime(path, (OLD, OLD))


def make_store(path: Path, images: Path, count: int) -> None:
    """A store whose feature table has a row for every image, of two numbers each."""
    store = create_store(path)
    options = FeatureOptions(store=str(path), images=(str(images),), **OPTIONS)
    recipe = recipe_of(options, store)
    root = store.feature_root(recipe)
    writer = ShardWriter(root, "made", recipe.table((2,)), recipe.format, 0, 1)
    for key in sorted(hashlib.sha256(str(number).encode()).digest() for number in range(count)):
        writer.append({"key": key, "value": np.zeros(2, np.float16)})
    shard = writer.close()
    assert shard is not None
    network = frozen_network(root, store.path / "networks", recipe, open_extractor(options.asked))
    facts = FeatureFacts(shape=(2,), network=network.sha256, numerics="made", toolchain={})
    CommitLog(root).append(Manifest(table=recipe.fingerprint, shards=(shard,), facts=facts))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        images, store = Path(directory) / "images", Path(directory) / "store"
        make_images(images, arguments.images)
        make_store(store, images, arguments.images)
        rates = []
        for number in range(arguments.rounds + 1):
            started = time.perf_counter()
            result = capt.prepare_features(store=str(store), images=[str(images)], **OPTIONS)
            seconds = time.perf_counter() - started
            assert result["cached"] == arguments.images
            if number:
                rates.append(arguments.images / seconds)
            print(f"{'first, hashing' if not number else 'again'}: {seconds:.2f} s")
    print(f"images a second: median {statistics.median(rates):,.0f}, {min(rates):,.0f} to {max(rates):,.0f}")


if __name__ == "__main__":
    main()
