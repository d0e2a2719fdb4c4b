"""Benchmark: images of a list of URLs downloaded to WebDataset shards, with img2dataset as peer.

    python benchmarks/url_downloads.py [--peer PATH] [--images N] [--hosts N] [--rounds N]

A server in this process sends JPEGs of about 20 kB from many loopback addresses, each a host of its own, because capt
requests at most ten images per second from a host. `capt fetch urls` and img2dataset run in turn as processes, with 32
threads, shards of equal size, SHA-256 and without resizing. The rate is that from the first request to the end of the
process. Memory is the largest sum of the proportional set sizes of the program's processes.

Then each program is killed (SIGKILL to all its processes) after half of the requests, and runs again. Requests beyond
one per URL are downloads that ran again. `--peer` is the program `img2dataset` of an environment with
`requirements-peers.txt`; without it, capt is measured alone.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from timing import Work, measure_in_turn, print_rounds, ratio

_THREADS = 32
_POLL_SECONDS = 0.05
_SIZE = (200, 150)  # a JPEG of noise of about 20 kB


class _Server(ThreadingHTTPServer):
    """Sends one of some JPEGs for each path, and counts the requests by path."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("", 0), _Handler)
        random = np.random.default_rng(0)
        self.images = [_encode(random.integers(0, 256, (*_SIZE, 3), np.uint8)) for _ in range(64)]
        self.requests: Counter[str] = Counter()
        self.first = 0.0
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A killed program hangs up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.first = self.server.first or time.monotonic()
            self.server.requests[self.path] += 1
        body = self.server.images[hash(self.path) % len(self.server.images)]
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _encode(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return file.getvalue()


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work, _Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = Path(work) / "list.parquet"
        _write_list(path, options.images, options.hosts, server.server_port)
        commands = {"capt": _capt_command(path, options.images)}
        if options.peer:
            commands["img2dataset"] = _peer_command(options.peer, path, options.images)
        else:
            print("img2dataset is skipped: name its program with --peer.", file=sys.stderr)
        peaks: dict[str, list[float]] = {name: [] for name in commands}
        works = {
            name: _measure(command, Path(work) / name, server, options.images, peaks[name])
            for name, command in commands.items()
        }
        rates = measure_in_turn(works, options.rounds)
        again = {
            name: _count_again(command, Path(work) / name, server, options.images) for name, command in commands.items()
        }
    ratios = [ratio(rates, "capt", "img2dataset")] if options.peer else []
    memory = {name: round(median(seen[1:]) / 1e6) for name, seen in peaks.items()}
    print_rounds("images", rates, ratios, memory_mb=memory, downloaded_again=again)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", default=shutil.which("img2dataset"), help="program img2dataset")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="directory of the temporary files")
    return parser.parse_args()


def _write_list(path: Path, images: int, hosts: int, port: int) -> None:
    names = [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(hosts)]
    urls = [f"http://{names[number % hosts]}:{port}/{number}.jpg" for number in range(images)]
    pq.write_table(pa.table({"url": urls, "text": [f"caption {number}" for number in range(images)]}), path)


def _capt_command(path: Path, images: int) -> list[str]:
    program = [sys.executable, "-c", "import capt; capt.main()", "fetch", "urls", str(path), "OUT"]
    limits = ["--num-threads", str(_THREADS), "--shard-size", str(images // 4)]
    return [*program, *limits, "--allow-private-addresses", "--quiet"]


def _peer_command(program: str, path: Path, images: int) -> list[str]:
    given = {
        "url_list": path,
        "output_folder": "OUT",
        "input_format": "parquet",
        "output_format": "webdataset",
        "url_col": "url",
        "caption_col": "text",
        "processes_count": 1,
        "thread_count": _THREADS,
        "number_sample_per_shard": images // 4,
        "resize_mode": "no",
        "compute_hash": "sha256",
        "retries": 2,
        "incremental_mode": "incremental",
    }
    return [program, *(f"--{name}={value}" for name, value in given.items())]


def _start(command: Sequence[str], out: Path) -> "subprocess.Popen[bytes]":
    words = [str(out) if word == "OUT" else word.replace("=OUT", f"={out}") for word in command]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, stdout=quiet, stderr=quiet, env=environment, start_new_session=True)


def _measure(command: Sequence[str], out: Path, server: _Server, images: int, peaks: list[float]) -> Work:
    """Returns a function that downloads all images into a new directory, and appends the peak memory in bytes."""

    def work() -> float:
        shutil.rmtree(out, ignore_errors=True)
        server.first = 0.0
        process, peak = _start(command, out), 0
        while process.poll() is None:
            peak = max(peak, _sum_memory(process.pid))
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - server.first
        if process.returncode or _count_images(out) != images:
            raise SystemExit(f"{command[0]}: exit code {process.returncode}, {_count_images(out)} of {images} images")
        peaks.append(peak)
        return images / seconds

    return work


def _sum_memory(session: int) -> int:
    """Returns the proportional set sizes of the processes of a session, in bytes."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
        except (OSError, StopIteration):
            continue
    return total


def _count_images(out: Path) -> int:
    return sum(sum(status == "success" for status in _statuses(path)) for path in out.glob("*.parquet"))


def _statuses(path: Path) -> list[str]:
    return list(pq.read_table(path, columns=["status"]).column("status").to_pylist())


def _count_again(command: Sequence[str], out: Path, server: _Server, images: int) -> int:
    """Kills a program after half of the requests, and runs it to the end. Returns the requests beyond one per URL."""
    shutil.rmtree(out, ignore_errors=True)
    server.requests.clear()
    process = _start(command, out)
    _wait_for(lambda: server.requests.total() >= images // 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if _start(command, out).wait() or _count_images(out) != images:
        raise SystemExit(f"{command[0]}: the second run has {_count_images(out)} of {images} images")
    return server.requests.total() - images


def _wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


if __name__ == "__main__":
    main()
