"""Benchmark: requests per second of `capt serve`, with requests of all clients in batches and one at a time.

    python benchmarks/serving.py RUN [--clients 32] [--requests 512] [--rounds 3] [--images DIRECTORY]

Both serve the captioner RUN, such as `demo/captioner` of `capt demo`, in this process, and answer the same requests:
one image each, of synthetic scenes or of a directory. The peer is the same server with batches of one image, as a
server without batching computes them. The clients are threads of another process; each sends its next request when the
last one is answered.

Prints the latencies (50th, 95th and 99th percentile) of the last round, and the memory of the servers after each round.
The captions of both must be equal, or the program fails.
"""

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from timing import Work, measure_in_turn, print_rounds, ratio, run_in_process

from features.synthetic.scenes.dataset import synth_scenes
from schemas.options.data import SynthScenes
from schemas.options.serving import Serve
from workflows.serving.command import start
from workflows.serving.limits import ServingLimits

BATCHED, PEER = "batches of all clients", "one image at a time"
_SCENES = 64


@dataclass(frozen=True)
class Load:
    """What the clients send: images in turn, one per request."""

    images: tuple[bytes, ...]
    clients: int
    requests: int


@dataclass
class Measured:
    """What the clients of one server saw in its last round, and the memory of this process after each round."""

    seconds: list[float]
    texts: list[str]
    memory: list[int]


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory() as work:
        load = Load(read_images(options.images or make_scenes(Path(work))), options.clients, options.requests)
    limits = ServingLimits()
    served = Serve.parse({"runs": [options.run], "port": 0})
    measured = {name: Measured([], [], []) for name in (BATCHED, PEER)}
    with start(served, limits) as batched, start(served, replace(limits, max_batch_images=1)) as single:
        works = {
            name: make_work(server["url"], load, measured[name])
            for name, server in ((BATCHED, batched), (PEER, single))
        }
        rates = measure_in_turn(works, options.rounds)
    if measured[BATCHED].texts != measured[PEER].texts:
        raise SystemExit("the captions of the two servers differ")
    print_rounds("requests", rates, [ratio(rates, BATCHED, PEER)], clients=options.clients)
    for name, one in measured.items():
        centiles = statistics.quantiles(one.seconds, n=100)
        latencies = ", ".join(f"p{centile} {1000 * centiles[centile - 1]:.0f} ms" for centile in (50, 95, 99))
        print(f"{name}: {latencies}; memory {', '.join(f'{size / 2**20:.0f}' for size in one.memory)} MiB")


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory of a captioner")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=512, help="number of requests per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=Path, help="directory of images; default: synthetic scenes")
    return parser.parse_args()


def make_scenes(directory: Path) -> Path:
    """Generates scenes and returns the directory of their images."""
    synth_scenes(SynthScenes.parse({"out": directory / "scenes", "num_images": _SCENES}))
    return directory / "scenes" / "images"


def read_images(directory: Path) -> tuple[bytes, ...]:
    """Returns the encoded images of a directory."""
    return tuple(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def make_work(url: str, load: Load, measured: Measured) -> Work:
    """Returns a function that sends all requests and returns their rate."""

    def work() -> float:
        (measured.seconds, measured.texts, rate), _ = run_in_process(send_all, url, load)
        measured.memory.append(_read_memory(url))
        return float(rate)

    return work


def send_all(url: str, load: Load) -> tuple[list[float], list[str], float]:
    """Sends the requests, and returns the seconds and the caption of each, and the requests per second."""
    address = urlsplit(url).netloc

    def send_some(client: int) -> list[tuple[int, float, str]]:
        connection = http.client.HTTPConnection(address)
        seen = []
        for number in range(client, load.requests, load.clients):
            started = time.perf_counter()
            body = load.images[number % len(load.images)]
            connection.request("POST", "/v1/caption", body, {"Content-Type": "application/octet-stream"})
            answer = json.load(connection.getresponse())
            seen.append((number, time.perf_counter() - started, answer["results"][0]["text"]))
        connection.close()
        return seen

    started = time.perf_counter()
    with ThreadPoolExecutor(load.clients) as pool:
        seen = sorted(one for each in pool.map(send_some, range(load.clients)) for one in each)
    rate = load.requests / (time.perf_counter() - started)
    return [seconds for _, seconds, _ in seen], [text for _, _, text in seen], rate


def _read_memory(url: str) -> int:
    """Returns the resident memory of a server in bytes, as its metrics have it."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(int(float(line.split()[1])) for line in lines if line.startswith("process_resident_memory_bytes "))


if __name__ == "__main__":
    main()
