"""Benchmark: InceptionV3 features of photographs per second, with peers and upper limits.

    python benchmarks/extraction.py [--precision bfloat16|float32] [--rounds N]     on generated photographs
    python benchmarks/extraction.py --images DIR…                                   on your JPEG files

In turn, on the same files: capt's extraction core as a job runs it, to a finished shard; the whole command `capt
prepare features` without start-up; the notebooks' loop; a plain Beam pipeline without start-up; the frozen graph alone
on pixels in memory; and a matrix product of the same precision, converted to images with as many operations. Start-up
is the difference between a run over all images and one over a few. All use the same seeded random weights.

Then it measures the peak memory of capt and of the Beam pipeline, each in a process of its own, and the cosine
similarity between the features. The peers always compute in float32.
"""

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from extraction_baselines import notebook_loop, plain_beam, read_beam, read_notebook
from flops import count_flops
from numpy.typing import NDArray
from photographs import write_photographs
from prepared_store import PreparedStore, prepare_store
from timing import Work, measure_in_turn, print_rounds, ratio, run_in_process

from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import load_frozen_graph, load_shared_frozen_graph
from features.extractors.output_layers import ModelFunction
from features.images.decode import decode
from features.images.resize import Resizer
from pipelines.beam.work_plans import write_unit
from pipelines.jobs.extract_shard import EXTRACT_UNIT_SCHEMA, ExtractShard
from schemas.choices import Precision
from schemas.defaults import BATCH_SIZE
from schemas.options.extractor import ExtractorOptions

OURS, COMMAND = "ours", "ours, the whole command"
NOTEBOOK, BEAM = "notebook loop", "plain Beam"
NETWORK, PRODUCT = "bare network", "matrix product"
_RATIOS = ((OURS, NOTEBOOK), (OURS, BEAM), (COMMAND, BEAM), (OURS, NETWORK), (COMMAND, NETWORK), (NETWORK, PRODUCT))
_PRODUCT_ROWS = 2048

Features = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Given:
    """The inputs of all measured functions.

    Args:
        store: Store to copy.
        model: The model up to its last spatial layer, a `.keras` file.
        many: Directory of all images.
        few: Directory of some of them.
        work: Directory for results.
    """

    store: PreparedStore
    model: Path
    many: Path
    few: Path
    work: Path

    def paths(self) -> list[Path]:
        """Returns all images."""
        return sorted(self.many.iterdir())

    def fresh(self, name: str) -> Path:
        """Returns an empty directory."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as directory:
        given, flops = make(Path(directory), options.precision, options.images, options.photographs, options.few)
        works = {
            OURS: lambda: core(given),
            COMMAND: lambda: without_start_up(given, partial(command, given)),
            NOTEBOOK: lambda: loop(given),
            BEAM: lambda: without_start_up(given, partial(pipeline, given)),
            NETWORK: bare_network(given),
            PRODUCT: matrix_product(options.precision, flops),
        }
        rates = measure_in_turn(works, options.rounds)
        peaks = {name: run_in_process(run, given)[1] for name, run in ((COMMAND, prepare_all), (BEAM, beam_all))}
        near = compare_features(given)
    ours, beam = peaks[COMMAND], peaks[BEAM]
    print(f"{options.precision}, {flops / 1e9:.3g} GFLOP per image; in GFLOP/s:", end=" ")
    print(", ".join(f"{name} {median(rates[name]) * flops / 1e9:,.3g}" for name in (OURS, NETWORK, PRODUCT)))
    print(f"peak memory: {COMMAND} {ours / 2**20:,.0f} MiB, {BEAM} {beam / 2**20:,.0f} MiB, ratio {ours / beam:.2f}")
    print("cosine similarity of the features of an image, mean and minimum:")
    for pair, (mean, worst) in near.items():
        print(f"  {pair}: {mean:.6f}, {worst:.6f}")
    print()
    ratios = [ratio(rates, one, other) for one, other in _RATIOS]
    print_rounds("images", rates, ratios, precision=options.precision, flops=flops, peaks=peaks, cosines=near)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--images", nargs="*", type=Path, help="directories of JPEGs; default: generated photographs")
    parser.add_argument("--photographs", type=int, default=144, help="number of generated photographs")
    parser.add_argument("--few", type=int, default=16, help="number of images of the run that measures start-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="directory for stores; default: the system's temporary directory")
    return parser.parse_args()


def make(work: Path, precision: Precision, images: Sequence[Path] | None, count: int, few: int) -> tuple[Given, int]:
    """Creates the inputs in a working directory; also returns the model's operations per image."""
    given = Given(prepare_store(work, precision), work / "network.keras", work / "many", work / "few", work)
    if images:
        given.many.mkdir()
        for path in sorted(path for root in images for path in root.iterdir()):
            shutil.copy2(path, given.many)
    else:
        write_photographs(given.many, count)
    given.few.mkdir()
    for path in given.paths()[:few]:
        shutil.copy2(path, given.few)
    extractor = open_extractor(ExtractorOptions(weights="random:7"))
    function = extractor.build_function(given.store.table.table_config)
    assert isinstance(function, ModelFunction)
    function.model.save(given.model)
    return given, count_flops(function.model)


# === Measured functions: each processes all images and returns images per second ===


def core(given: Given) -> float:
    """Measures capt's extraction core as a job runs it: one work unit of references to one shard."""
    table, plan = given.store.table, given.fresh("unit")
    keyed = sorted((hashlib.sha256(path.read_bytes()).digest(), str(path)) for path in given.paths())
    write_unit(plan, "00000", ({"key": key, "location": at, "member": ""} for key, at in keyed), EXTRACT_UNIT_SCHEMA)
    network, size = (
        load_shared_frozen_graph(table.extractor_path, table.table_config.precision),
        (table.table_config.height, table.table_config.width),
    )
    network.predict(np.zeros((BATCH_SIZE, *size, 3), np.uint8))  # the first call optimizes the graph
    extract = ExtractShard(str(plan), str(table.extractor_path), table.table_config, table.shape, "made", 1)
    started = time.perf_counter()
    result = json.loads(extract(plan / "units" / "00000.parquet", lambda done, failed: None))
    seconds = time.perf_counter() - started
    assert result["shard"]["rows"] == len(keyed), result["failures"]
    return len(keyed) / seconds


def loop(given: Given) -> float:
    """Measures the notebooks' loop with its model in memory."""
    paths, out = given.paths(), given.fresh("npy")
    return len(paths) / _seconds(lambda: notebook_loop(str(given.model), paths, out))


def command(given: Given, images: Path) -> float:
    """Returns the seconds of `capt prepare features` into a copied store; it loads the graph again."""
    return given.store.copy(given.work / f"store-{images.name}").prepare(images)


def pipeline(given: Given, images: Path) -> float:
    """Returns the seconds of the plain Beam pipeline."""
    paths, out = sorted(images.iterdir()), given.fresh("records")
    return _seconds(lambda: plain_beam(str(given.model), paths, out))


def without_start_up(given: Given, run: Callable[[Path], float]) -> float:
    """Returns images per second from the difference between a run over all images and one over a few."""
    few, many = (len(list(folder.iterdir())) for folder in (given.few, given.many))
    shorter = run(given.few)
    return (many - few) / (run(given.many) - shorter)


def bare_network(given: Given) -> Work:
    """Measures the frozen graph alone on pixels in memory, in batches of the core."""
    table = given.store.table
    network, fitting = (
        load_frozen_graph(table.extractor_path, table.table_config.precision),
        Resizer.from_table_config(table.table_config),
    )
    pixels = np.stack([decode(path.read_bytes(), fitting) for path in given.paths()])

    def call() -> None:
        for start in range(0, len(pixels), BATCH_SIZE):
            network.predict(pixels[start : start + BATCH_SIZE])

    return lambda: len(pixels) / _seconds(call)


def matrix_product(precision: Precision, flops: int) -> Work:
    """Measures a square matrix product, converted to images with as many operations."""
    values = np.random.default_rng(0).standard_normal((2, _PRODUCT_ROWS, _PRODUCT_ROWS), dtype=np.float32)
    one, other = (tf.cast(value, precision) for value in values)
    product = tf.function(tf.matmul)
    products = max(1, 64 * flops // (2 * _PRODUCT_ROWS**3))

    def call() -> None:
        for _ in range(products):
            result = product(one, other)
        result.numpy()

    return lambda: products * 2 * _PRODUCT_ROWS**3 / flops / _seconds(call)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# === Memory, in processes of their own ===


def prepare_all(given: Given) -> None:
    """Runs the whole command over all images."""
    command(given, given.many)


def beam_all(given: Given) -> None:
    """Runs the Beam pipeline over all images."""
    pipeline(given, given.many)


# === Agreement of the features ===


def compare_features(given: Given) -> dict[str, tuple[float, float]]:
    """Returns the mean and the minimum cosine similarity per pair of results, image by image.

    Compares the results of the measured functions, and both precisions on the few images.
    """
    ours = read_ours(given, replace(given.store, path=given.work / f"store-{given.many.name}"))
    notebook, beam = read_notebook(given.work / "npy"), read_beam(given.work / "records")
    exact, rounded = (on_pixels(given, precision) for precision in ("float32", "bfloat16"))
    return {
        "bfloat16 to float32, the same pixels": _cosines(rounded, exact),
        f"{NOTEBOOK} to ours, which resizes with antialias": _cosines(notebook, ours),
        f"{BEAM} to {NOTEBOOK}": _cosines(beam, notebook),
    }


def read_ours(given: Given, store: PreparedStore) -> Features:
    """Returns features [64, 2048] by the stem of the image path."""
    keys = [hashlib.sha256(path.read_bytes()).digest() for path in given.paths()]
    rows = store.table.get_many(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32))
    return dict(zip((path.stem for path in given.paths()), rows.astype(np.float32), strict=True))


def on_pixels(given: Given, precision: Precision) -> Features:
    """Returns the features of the few images by the frozen graph."""
    table = given.store.table
    paths, fitting = sorted(given.few.iterdir()), Resizer.from_table_config(table.table_config)
    pixels = np.stack([decode(path.read_bytes(), fitting) for path in paths])
    features = load_frozen_graph(table.extractor_path, precision).predict(pixels)
    return dict(zip((path.stem for path in paths), features, strict=True))


def _cosines(some: Features, others: Features) -> tuple[float, float]:
    cosines = []
    for name, one in some.items():
        a, b = one.ravel().astype(np.float64), others[name].ravel().astype(np.float64)
        cosines.append(float(a @ b / np.sqrt((a @ a) * (b @ b))))
    return float(np.mean(cosines)), min(cosines)


if __name__ == "__main__":
    main()
