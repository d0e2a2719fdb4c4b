"""Benchmark: cosine similarity between bfloat16 or int8 features of an extractor and those in float32.

    python benchmarks/precisions.py                                             InceptionV3, random weights, scenes
    python benchmarks/precisions.py --precision int8                            in int8, with the extra openvino
    python benchmarks/precisions.py --extractor custom:MODEL.keras --layer NAME --images DIR…

Prepares one table per precision with `capt prepare features`, stored as float32, and compares them image by image.
`benchmarks/scenes.py` writes a trained model, `network.keras`, with the layers `locations` and `scene`.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray
from storage import cosines, flat, scene_images

import capt
from features.runtime.numerics import read_cpu_flags, resolve_onednn_precision
from features.store import open_store
from schemas.choices import Precision


def main() -> None:
    """Prepares, compares and prints."""
    logging.getLogger("capt").setLevel(logging.ERROR)
    options = _options()
    precision: Precision = options.precision
    if precision == "bfloat16" and resolve_onednn_precision(precision, read_cpu_flags()) != precision:
        sys.exit("This processor computes bfloat16 in float32, so there is nothing to compare.")
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        images = options.images or [scene_images(Path(work) / "scenes", options.scenes)]
        near = cosines(*(_features(Path(work) / "store", images, options, one) for one in (precision, "float32")))
    print(f"{len(near)} images, {options.extractor}, {options.weights or 'its own weights'}, {precision} to float32:")
    print(f"cosine {near.mean():.6f} in the mean, {near.min():.6f} at worst")


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", help="directories or archives of images; default: generated scenes")
    parser.add_argument("--scenes", type=int, default=64, help="number of generated scenes")
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--layer", help="default: the extractor's own")
    parser.add_argument("--weights", help="default: random:7, and a custom network's own")
    parser.add_argument("--precision", choices=("bfloat16", "int8"), default="bfloat16")
    parser.add_argument("--work", help="directory for the tables; default: the system's temporary directory")
    options = parser.parse_args()
    if not (options.weights or options.extractor.startswith("custom:")):
        options.weights = "random:7"
    return options


def _features(store: Path, images: list[str], options: Any, precision: Precision) -> NDArray[np.float64]:
    asked = {name: value for name in ("layer", "weights") if (value := getattr(options, name))}
    result = capt.prepare_features(
        store=str(store),
        dataset_type="folder",
        images=images,
        extractor=options.extractor,
        precision=precision,
        storage_dtype="float32",
        **asked,
    )
    table = open_store(store).feature_table(result["fingerprint"])
    return flat(table, np.concatenate(list(table.key_blocks())))


if __name__ == "__main__":
    main()
