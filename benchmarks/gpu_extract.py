"""The extraction core on an accelerator: images a second, the share of its peak, the best batch, and running out of it.

    KERAS_BACKEND=jax python benchmarks/gpu_extract.py [--precision bfloat16|float32] [--rounds N] [--peak-tflops X]
    KERAS_BACKEND=torch python benchmarks/gpu_extract.py --images DIR…

Needs Keras with one backend, Pillow and what declares a row (pydantic, pyarrow, google-crc32c); neither TensorFlow,
where that is not the backend, nor Beam. First the batch doubles until that makes nothing faster or the memory ends;
the smallest that is nearly as fast as the fastest is the best. Then, in turn: the network alone, its pixels on the
device already and its features left there; the network with both ways; decoding alone; the whole core, from encoded
images to Parquet shards of float16 features, several units side by side, as a worker has them; and the core of a
network that has its features at once, which is what the host allows. Last, the batch doubles until it does not fit, and
the core is given that size: it must halve it and go on. A processor's memory ends there only where `--memory` limits
it.
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
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from flops import flops_of
from photographs import photographs
from rounds import in_turn, print_rounds, ratio

from features.extractors.compiled_model import CompiledModel, compile_extractor
from features.extractors.extraction import EncodedImage, ExtractedRow, ExtractionCore, is_out_of_memory
from features.extractors.factory import open_extractor
from features.extractors.output_layers import ModelFunction
from features.images.decode import decode
from features.images.resizer import Resizer
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

ALONE, MOVED, DECODED, WHOLE = "network alone", "network, both ways", "decoding alone", "the whole core"
HOST = "the core, its network at once"
_BETTER = 1.03
_CALLS_A_WAIT = 4


@dataclass(frozen=True)
class Tried:
    """The network alone at one batch size, in images a second."""

    batch: int
    rate: float


@dataclass(frozen=True)
class BackedOff:
    """A run that was given a batch that does not fit: the size it settled at, and what became of its images."""

    batch: int
    settled: int
    images: int
    extracted: int


@dataclass(frozen=True)
class Instant:
    """A network that has the features of a batch already."""

    features: np.ndarray

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Features of as many pixels, whatever they show."""
        return self.features[: len(pixels)].copy()


@dataclass(frozen=True)
class Core:
    """The extraction core on this device, and the images that it is given.

    Args:
        table_config: FeatureTableConfig. What a row means.
        shape: tuple of int. Of one image's features.
        network: CompiledModel or Instant. The first is on the device.
        encoded: sequence of bytes. Images, taken over and over.
        units: int. Shards that are made at a time.
        threads: int. Decoding threads of a unit.
        calls: int. Calls of the network at a time, of a unit.
    """

    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    network: CompiledModel | Instant
    encoded: Sequence[bytes]
    units: int
    threads: int
    calls: int

    def extractor(self, batch: int) -> ExtractionCore:
        """The core at a batch size."""
        return ExtractionCore(
            self.table_config, self.network, batch_size=batch, threads=self.threads, parallel_calls=self.calls
        )

    def sources(self, count: int) -> list[EncodedImage]:
        """So many encoded images, in the order of their keys."""
        keys = sorted(hashlib.sha256(str(number).encode()).digest() for number in range(count))
        return [EncodedImage(key, lambda data=data: data) for key, data in zip(keys, cycle(self.encoded), strict=False)]  # type: ignore[misc]

    def pixels(self, batch: int) -> np.ndarray:
        """Decoded images."""
        return np.stack(
            [decode(data, Resizer.from_table_config(self.table_config)) for data in islice(cycle(self.encoded), batch)]
        )

    def write(self, batch: int, count: int, work: Path | None) -> int:
        """Extract so many images into as many shards as there are units; how many rows these have."""
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
    """Measure and print."""
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
    best = best_of(tried)
    rates = in_turn(_works(core, best, options), options.rounds)
    flops = flops_of(function.model)
    figures = {
        "backend": keras.backend.backend(),
        "device": core.network.device.chip,
        "numerics": core.network.numerics,
        "best_batch": best,
        "flops_an_image": flops,
        "tflops": median(rates[ALONE]) * flops / 1e12,
        "product_tflops": product_flops(core.network, options.product, options.precision, options.seconds) / 1e12,
        "peak_tflops": options.peak_tflops or peak_of(core.network.device.chip, options.precision),
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
    parser.add_argument("--side", type=int, help="height and width; default: the network's own")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--images", nargs="*", type=Path, help="directories of images; default: photographs are made")
    parser.add_argument("--photographs", type=int, default=64, help="how many to make, taken over and over")
    parser.add_argument("--count", type=int, default=4096, help="images a round of decoding and of the whole core")
    parser.add_argument("--units", type=int, default=4, help="shards that are made at a time")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="decoding threads, of all units")
    parser.add_argument("--calls", type=int, default=2, help="calls of the network at a time, of a unit")
    parser.add_argument("--first-batch", type=int, default=32)
    parser.add_argument("--max-batch", type=int, default=16384)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measure of the network alone")
    parser.add_argument("--product", type=int, default=8192, help="rows of the matrix product that it is held against")
    parser.add_argument("--peak-tflops", type=float, help="the device's, where it is not known by name")
    parser.add_argument("--memory", type=float, help="GiB that this process may take for the batch that does not fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="directory for shards; default: the system's for temporary files")
    return parser.parse_args()


def build(options: Any) -> tuple[ModelFunction, FeatureTableConfig]:
    """The network as capt builds it, and what its rows mean."""
    is_custom = options.extractor.startswith("custom:")
    weights = options.weights or (None if is_custom else "random:7")
    asked = ExtractorOptions(extractor=options.extractor, weights=weights, height=options.side, width=options.side)
    extractor = open_extractor(asked)
    table_config = FeatureTableConfig(
        **{**vars(extractor.resolve_config()), "precision": options.precision, "format": "parquet"}
    )
    return extractor.build_function(table_config), table_config


def read_images(directories: Sequence[Path] | None, count: int) -> list[bytes]:
    """The encoded images of directories, or so many that are made."""
    if not directories:
        return list(islice(photographs(), count))
    return [path.read_bytes() for root in directories for path in sorted(root.iterdir())]


def limit_memory(gibibytes: float) -> None:
    """Let this process take so much address space beyond what it holds."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    most = held + int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def sweep(core: Core, first: int, most: int, seconds: float) -> list[Tried]:
    """The network alone at one batch size after another, each twice the one before."""
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


def best_of(tried: Sequence[Tried]) -> int:
    """The smallest batch that is nearly as fast as the fastest."""
    fastest = max(one.rate for one in tried)
    return min(one.batch for one in tried if one.rate * _BETTER >= fastest)


def alone(core: Core, batch: int, seconds: float) -> float:
    """Images a second of the network, its pixels on the device and its features left there."""
    network = core.network
    pixels = network.put(core.pixels(batch))
    return batch * calls_a_second(network, lambda: network.compute(pixels), seconds)


def calls_a_second(network: CompiledModel, call: Callable[[], Any], seconds: float) -> float:
    """Calls a second, a few of them on their way at once, after one that does not count."""
    network.wait(call())
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(_CALLS_A_WAIT):
            result = call()
        network.wait(result)
        calls += _CALLS_A_WAIT
    return calls / (time.perf_counter() - started)


def product_flops(network: CompiledModel, rows: int, precision: str, seconds: float) -> float:
    """Operations a second of a square matrix product in a precision."""
    values = np.random.default_rng(0).standard_normal((2, rows, rows), dtype=np.float32)
    one, other = (keras.ops.convert_to_tensor(value, dtype=precision) for value in values)
    return 2.0 * rows**3 * calls_a_second(network, lambda: keras.ops.matmul(one, other), seconds)


def peak_of(device: str, precision: str) -> float | None:
    """The peak of a device in TFLOP/s, None where it is not known."""
    known = (peak for name, peak in PEAK_TFLOPS.items() if name.lower() in device.lower())
    return next(known, None) if precision == "bfloat16" else None


def _works(core: Core, batch: int, options: Any) -> dict[str, Callable[[], float]]:
    pixels, fitting = core.pixels(batch), Resizer.from_table_config(core.table_config)
    instant = replace(core, network=Instant(core.network.predict(pixels)))
    encoded = list(islice(cycle(core.encoded), options.count))

    def decode_all() -> int:
        with ThreadPoolExecutor(options.threads) as pool:
            return sum(1 for _ in pool.map(lambda data: decode(data, fitting), encoded))

    return {
        ALONE: lambda: alone(core, batch, options.seconds),
        MOVED: lambda: batch * calls_a_second(core.network, lambda: core.network.predict(pixels), options.seconds),
        DECODED: lambda: _rate(decode_all),
        WHOLE: lambda: _rate(lambda: core.write(batch, options.count, options.work)),
        HOST: lambda: _rate(lambda: instant.write(batch, options.count, options.work)),
    }


def _rate(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def back_off(core: Core, batch: int, most: int) -> BackedOff | None:
    """What the core does with a batch that does not fit; None where all up to `most` do."""
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
    print(f"{figures['device']}, Keras on {figures['backend']}, {figures['flops_an_image'] / 1e9:.3g} GFLOP an image\n")
    print("| batch | images/s, network alone |\n|---|---|")
    for one in tried:
        print(f"| {one.batch} | {one.rate:,.4g} |")
    print(f"\nnetwork alone, batch {figures['best_batch']}: {figures['tflops']:.4g} TFLOP/s,", end=" ")
    print(f"{figures['tflops'] / figures['product_tflops']:.1%} of a matrix product's", end="")
    peak = figures["peak_tflops"]
    print(f", {figures['tflops'] / peak:.1%} of the device's peak" if peak else "; the device's peak is not known")
    if backed_off:
        print(f"a batch of {backed_off.batch} does not fit: the core went on with {backed_off.settled}, and extracted")
        print(f"{backed_off.extracted} of {backed_off.images} images")
    else:
        print("every batch tried fits the memory")
    print()


if __name__ == "__main__":
    main()
