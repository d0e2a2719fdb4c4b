"""Benchmark: the extraction core on an accelerator: speed, fraction of the peak, best batch size, out-of-memory.

    KERAS_BACKEND=jax python benchmarks/gpu_extract.py [--precision bfloat16|float32] [--rounds N] [--peak-tflops X]
    KERAS_BACKEND=torch python benchmarks/gpu_extract.py --images DIR…

Requires Keras with one backend, Pillow, pydantic, pyarrow and google-crc32c. Beam is not needed, and TensorFlow only as
the backend.

1. The batch size doubles until the speed stops growing or the memory is full. The best size is the smallest one that is
   nearly as fast as the fastest.
2. In turn: the model alone, with pixels and features on the device; the model with both transfers; decoding alone; the
   whole core, from encoded images to Parquet shards of float16 features, with several work units in parallel as in a
   worker; and the core with a model that returns at once, which is the limit of the host.
3. The batch size doubles until it does not fit into memory. The core starts with this size and must halve it. On a CPU
   only `--memory` sets such a limit.
"""

import argparse
import hashlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from flops import count_flops
from photographs import photographs
from timing import measure_in_turn, print_rounds, ratio

from features.extractors.compiled_model import CompiledModel, compile_extractor
from features.extractors.extraction import EncodedImage, ExtractedRow, ExtractionCore, is_out_of_memory
from features.extractors.factory import open_extractor
from features.extractors.output_layers import ModelFunction
from features.images.decode import decode
from features.images.resize import Resizer
from features.store.shards import ShardWriter
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

# Dense bfloat16, by the makers' data sheets; the first whose name is part of the device's counts.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H100 PCIe": 756.0,
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
}

ALONE, MOVED, DECODED, WHOLE = "model alone", "model, both transfers", "decoding alone", "the whole core"
HOST = "the core, model returns at once"
_BETTER = 1.03
_CALLS_PER_WAIT = 4


@dataclass(frozen=True)
class Tried:
    """Images per second of the model alone at one batch size."""

    batch: int
    rate: float


@dataclass(frozen=True)
class BackedOff:
    """A run with a batch size that did not fit: the final size, and the numbers of images and extracted images."""

    batch: int
    settled: int
    images: int
    extracted: int


@dataclass(frozen=True)
class Instant:
    """A model that returns stored features."""

    features: np.ndarray

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Returns one stored feature per image of the batch."""
        return self.features[: len(pixels)].copy()


@dataclass(frozen=True)
class Core:
    """The extraction core on this device, and its images.

    Args:
        table_config: Table config of the features.
        shape: Shape of one image's features.
        network: The model on the device, or a model that returns at once.
        encoded: Encoded images, used repeatedly.
        units: Number of parallel shards.
        threads: Decoding threads per work unit.
        calls: Parallel forward passes per work unit.
    """

    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    network: CompiledModel | Instant
    encoded: Sequence[bytes]
    units: int
    threads: int
    calls: int

    @property
    def compiled(self) -> CompiledModel:
        """The model on the device."""
        return cast(CompiledModel, self.network)

    def extractor(self, batch: int) -> ExtractionCore:
        """Returns the core with a batch size."""
        return ExtractionCore(
            self.table_config, self.network, batch_size=batch, threads=self.threads, parallel_calls=self.calls
        )

    def sources(self, count: int) -> list[EncodedImage]:
        """Returns a number of encoded images in the order of their keys."""
        keys = sorted(hashlib.sha256(str(number).encode()).digest() for number in range(count))
        return [EncodedImage(key, lambda data=data: data) for key, data in zip(keys, cycle(self.encoded), strict=False)]  # type: ignore[misc]

    def pixels(self, batch: int) -> np.ndarray:
        """Returns decoded images."""
        return np.stack(
            [decode(data, Resizer.from_table_config(self.table_config)) for data in islice(cycle(self.encoded), batch)]
        )

    def write(self, batch: int, count: int, work: Path | None) -> int:
        """Extracts images into one shard per work unit and returns the number of rows."""
        with tempfile.TemporaryDirectory(dir=work) as root, ThreadPoolExecutor(self.units) as pool:
            shards = [Path(root) / str(number) for number in range(self.units)]
            return sum(pool.map(lambda shard: self._write_unit(batch, count // self.units, shard), shards))

    def _write_unit(self, batch: int, count: int, root: Path) -> int:
        writer = ShardWriter(root, "made", self.table_config.table(self.shape), self.table_config.format, 0, 1)
        for result in self.extractor(batch).run(self.sources(count)):
            assert isinstance(result, ExtractedRow), result
            writer.append({"key": result.key, **result.values})
        shard = writer.close()
        return shard.rows if shard else 0


def main() -> None:
    """Measures and prints."""
    options = _options()
    function, table_config = build(options)
    core = Core(
        table_config,
        function.shape,
        compile_extractor(replace(function, dtype="float16"), options.precision),
        read_images(options.images, options.photographs),
        options.units,
        max(1, options.threads // options.units),
        options.calls,
    )
    tried = sweep(core, options.first_batch, options.max_batch, options.seconds)
    best = find_best(tried)
    rates = measure_in_turn(_works(core, best, options), options.rounds)
    flops = count_flops(function.model)
    figures = {
        "backend": keras.backend.backend(),
        "device": core.compiled.device.chip,
        "numerics": core.compiled.numerics,
        "best_batch": best,
        "flops_per_image": flops,
        "tflops": median(rates[ALONE]) * flops / 1e12,
        "product_tflops": product_flops(core.compiled, options.product, options.precision, options.seconds) / 1e12,
        "peak_tflops": options.peak_tflops or find_peak(core.compiled.device.chip, options.precision),
    }
    if options.memory:
        limit_memory(options.memory)
    backed_off = back_off(core, best, options.max_batch)
    _print_figures(figures, tried, backed_off)
    pairs = ((WHOLE, DECODED), (HOST, DECODED), (WHOLE, ALONE), (MOVED, ALONE))
    ratios = [ratio(rates, one, other) for one, other in pairs]
    more = {"tried": [asdict(one) for one in tried], "backed_off": asdict(backed_off) if backed_off else None}
    print_rounds("images", rates, ratios, **figures, **more)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extractor", default="inception_v3")
    parser.add_argument("--weights", help="default: random:7")
    parser.add_argument("--side", type=int, help="height and width; default: the extractor's own")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--images", nargs="*", type=Path, help="directories of images; default: generated photographs")
    parser.add_argument("--photographs", type=int, default=64, help="number of generated photographs, used repeatedly")
    parser.add_argument("--count", type=int, default=4096, help="images per round of decoding and of the whole core")
    parser.add_argument("--units", type=int, default=4, help="number of parallel shards")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="decoding threads of all units")
    parser.add_argument("--calls", type=int, default=2, help="parallel forward passes per unit")
    parser.add_argument("--first-batch", type=int, default=32)
    parser.add_argument("--max-batch", type=int, default=16384)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per measurement of the model alone")
    parser.add_argument("--product", type=int, default=8192, help="rows of the matrix product")
    parser.add_argument("--peak-tflops", type=float, help="peak of a device that is not listed")
    parser.add_argument("--memory", type=float, help="GiB of additional memory for the batch that does not fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="directory for shards; default: the system's temporary directory")
    return parser.parse_args()


def build(options: Any) -> tuple[ModelFunction, FeatureTableConfig]:
    """Returns the extractor as capt builds it, and its table config."""
    is_custom = options.extractor.startswith("custom:")
    weights = options.weights or (None if is_custom else "random:7")
    extractor = open_extractor(
        ExtractorOptions(extractor=options.extractor, weights=weights, height=options.side, width=options.side)
    )
    table_config = FeatureTableConfig(
        **{**vars(extractor.resolve_config()), "precision": options.precision, "format": "parquet"}
    )
    function = extractor.build_function(table_config)
    assert isinstance(function, ModelFunction)
    return function, table_config


def read_images(directories: Sequence[Path] | None, count: int) -> list[bytes]:
    """Returns the encoded images of directories, or generated ones."""
    if not directories:
        return list(islice(photographs(), count))
    return [path.read_bytes() for root in directories for path in sorted(root.iterdir())]


def limit_memory(gibibytes: float) -> None:
    """Limits the address space of this process to its current size and the given GiB."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    most = held + int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def sweep(core: Core, first: int, most: int, seconds: float) -> list[Tried]:
    """Measures the model alone at batch sizes that double."""
    tried: list[Tried] = []
    batch = first
    while batch <= most:
        try:
            tried.append(Tried(batch, alone(core, batch, seconds)))
        except Exception as error:
            if not (is_out_of_memory(error) and tried):
                raise
            break
        print(f"batch {batch}: {tried[-1].rate:,.4g} images/s", file=sys.stderr)
        if len(tried) > 1 and tried[-1].rate < _BETTER * tried[-2].rate:
            break
        batch *= 2
    return tried


def find_best(tried: Sequence[Tried]) -> int:
    """Returns the smallest batch size that is nearly as fast as the fastest."""
    fastest = max(one.rate for one in tried)
    return min(one.batch for one in tried if one.rate * _BETTER >= fastest)


def alone(core: Core, batch: int, seconds: float) -> float:
    """Returns images per second of the model with pixels and features on the device."""
    network = core.compiled
    pixels = network.put(core.pixels(batch))
    return batch * count_calls_per_second(network, lambda: network.compute(pixels), seconds)


def count_calls_per_second(network: CompiledModel, call: Callable[[], Any], seconds: float) -> float:
    """Returns calls per second with a few calls in flight, after one warm-up call."""
    network.wait(call())
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(_CALLS_PER_WAIT):
            result = call()
        network.wait(result)
        calls += _CALLS_PER_WAIT
    return calls / (time.perf_counter() - started)


def product_flops(network: CompiledModel, rows: int, precision: str, seconds: float) -> float:
    """Returns the operations per second of a square matrix product in a precision."""
    values = np.random.default_rng(0).standard_normal((2, rows, rows), dtype=np.float32)
    one, other = (keras.ops.convert_to_tensor(value, dtype=precision) for value in values)
    return 2.0 * rows**3 * count_calls_per_second(network, lambda: keras.ops.matmul(one, other), seconds)


def find_peak(device: str, precision: str) -> float | None:
    """Returns the peak of a device in TFLOP/s, or None if it is unknown."""
    known = (peak for name, peak in PEAK_TFLOPS.items() if name.lower() in device.lower())
    return next(known, None) if precision == "bfloat16" else None


def _works(core: Core, batch: int, options: Any) -> dict[str, Callable[[], float]]:
    pixels, fitting = core.pixels(batch), Resizer.from_table_config(core.table_config)
    instant = replace(core, network=Instant(core.network.predict(pixels)))
    encoded = list(islice(cycle(core.encoded), options.count))

    def decode_all() -> int:
        with ThreadPoolExecutor(options.threads) as pool:
            return sum(1 for _ in pool.map(lambda data: decode(data, fitting), encoded))

    def predict() -> Any:
        return core.network.predict(pixels)

    return {
        ALONE: lambda: alone(core, batch, options.seconds),
        MOVED: lambda: batch * count_calls_per_second(core.compiled, predict, options.seconds),
        DECODED: lambda: _rate(decode_all),
        WHOLE: lambda: _rate(lambda: core.write(batch, options.count, options.work)),
        HOST: lambda: _rate(lambda: instant.write(batch, options.count, options.work)),
    }


def _rate(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def back_off(core: Core, batch: int, most: int) -> BackedOff | None:
    """Returns how the core handles a batch that does not fit, or None if all sizes up to `most` fit."""
    while _fits(core, batch):
        batch *= 2
        if batch > most:
            return None
    extractor = core.extractor(batch)
    results = list(extractor.run(core.sources(batch)))
    return BackedOff(batch, extractor.batch_size, len(results), sum(isinstance(one, ExtractedRow) for one in results))


def _fits(core: Core, batch: int) -> bool:
    try:
        core.network.predict(np.zeros((batch, core.table_config.height, core.table_config.width, 3), np.uint8))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _print_figures(figures: dict[str, Any], tried: Sequence[Tried], backed_off: BackedOff | None) -> None:
    print(
        f"{figures['device']}, Keras on {figures['backend']}, {figures['flops_per_image'] / 1e9:.3g} GFLOP per image\n"
    )
    print("| batch | images/s, model alone |\n|---|---|")
    for one in tried:
        print(f"| {one.batch} | {one.rate:,.4g} |")
    print(f"\nmodel alone, batch {figures['best_batch']}: {figures['tflops']:.4g} TFLOP/s,", end=" ")
    print(f"{figures['tflops'] / figures['product_tflops']:.1%} of a matrix product", end="")
    peak = figures["peak_tflops"]
    print(f", {figures['tflops'] / peak:.1%} of the device's peak" if peak else "; the peak of the device is unknown")
    if backed_off:
        print(f"a batch of {backed_off.batch} does not fit: the core continued with {backed_off.settled} and extracted")
        print(f"{backed_off.extracted} of {backed_off.images} images")
    else:
        print("all batch sizes fit into memory")
    print()


if __name__ == "__main__":
    main()
