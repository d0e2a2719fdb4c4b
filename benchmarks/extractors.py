"""Benchmark: bit stability, standard deviation and speed of each extractor with seeded random weights.

    python benchmarks/extractors.py                     all extractors with at most 1 GB of weights
    python benchmarks/extractors.py vgg16 vgg16:fc2     these, the second with another output layer

Each extractor is built, frozen and run on 1/f noise in a process of its own, and run again in a process with a single
thread. The features of an image are compared across batches of 16, of 8, and of 3 padded with zeros to 8, and across
positions in the batch. Prints a Markdown table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from features.extractors.alexnet import NAME as ALEXNET
from features.extractors.application import APPLICATIONS
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import freeze, load_frozen_graph
from features.extractors.weights import generate_noise_images
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

WEIGHTS = "random:7"
SEED = 11
PRECISIONS = ("float32", "bfloat16")
LEFT_OUT = ("convnext_xlarge",)  # 1.4 GB of weights, and as much again for every copy on the way
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
HEADER = (
    "| extractor | layer | input | features | bits, float32 | bits, bfloat16 | deviation | images/s, float32 "
    "| images/s, bfloat16 |\n|---|---|---|---|---|---|---|---|---|"
)

Arrays = dict[str, NDArray[np.float32]]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for name in (*APPLICATIONS, ALEXNET) if name not in LEFT_OUT]
    parser.add_argument("networks", nargs="*", default=every, metavar="NAME[:LAYER]")
    parser.add_argument("--within", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.within:
        _measure(options.networks[0], Path(options.within))
        return
    print(HEADER)
    for network in options.networks:
        print(_row(network), flush=True)


def _row(network: str) -> str:
    """Returns an extractor's table row, measured in processes of its own."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, __file__, network, "--within", work]
        for threads in ({}, ONE_THREAD):
            done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"| `{network}` | {done.stderr.strip().splitlines()[-1][:200]} |"
        facts = json.loads((Path(work) / "facts.json").read_text())
        together, alone = ({p: np.load(Path(work) / f"{p}-{n}.npz") for p in PRECISIONS} for n in (0, 1))
        bits = [_agreement({**together[p]}, {**alone[p]}) for p in PRECISIONS]
    name, layer = network.partition(":")[0], facts["layer"]
    shape = "×".join(map(str, facts["shape"]))
    speeds = " | ".join(f"{facts[p]:.3g}" for p in PRECISIONS)
    deviation = f"{facts['deviation']:.2g}"
    return f"| `{name}` | `{layer}` | {facts['side']} | {shape} | {' | '.join(bits)} | {deviation} | {speeds} |"


def _agreement(together: Arrays, alone: Arrays) -> str:
    """Returns `stable`, or the largest relative error between runs of the same images."""
    whole = together["sixteen"]
    pairs = [(whole[8:], together["eight"]), (whole[2::-1], together["padded"]), (together["eight"], alone["eight"])]
    if all(np.array_equal(a, b) for a, b in pairs):
        return "stable"
    errors = [np.linalg.norm(x - y) / np.linalg.norm(x) for a, b in pairs for x, y in zip(a, b, strict=True)]
    return f"{max(errors):.1e}"


def _measure(network: str, work: Path) -> None:
    """Builds and runs an extractor; if its graph exists, only runs it again with the threads of this process."""
    name, _, layer = network.partition(":")
    graph, facts_file = work / "graph.pb", work / "facts.json"
    again = facts_file.exists()
    facts: dict[str, Any] = json.loads(facts_file.read_text()) if again else {}
    if not again:
        extractor = open_extractor(ExtractorOptions(extractor=name, weights=WEIGHTS, layer=layer or None))
        choice = extractor.resolve_config()
        fields = {**vars(choice), "precision": "float32"}
        graph.write_bytes(freeze(extractor.build_function(FeatureTableConfig(**fields)), choice.height, choice.width))
        facts |= {"layer": choice.layer, "side": choice.height}
    for precision in PRECISIONS:
        _call(graph, precision, work, again, facts)
    facts_file.write_text(json.dumps(facts))


def _call(graph: Path, precision: Any, work: Path, again: bool, facts: dict[str, Any]) -> None:
    frozen = load_frozen_graph(graph, precision)
    images = generate_noise_images(16, facts["side"], facts["side"], SEED)
    arrays = {"eight": frozen.predict(images[8:])}
    if not again:
        started = time.monotonic()
        arrays["sixteen"] = frozen.predict(images)
        facts[precision] = 16 / (time.monotonic() - started)
        padding = np.zeros((5, *images.shape[1:]), np.uint8)
        arrays["padded"] = frozen.predict(np.concatenate([images[2::-1], padding]))[:3]
        facts |= {"shape": list(frozen.shape)}
        if precision == "float32":
            facts["deviation"] = float(arrays["sixteen"].std())
    np.savez(work / f"{precision}-{int(again)}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
