"""Benchmark: time and memory of `capt prepare features` with many records of WebDataset and Hugging Face Parquet.

    python benchmarks/made_records.py --records 1000000 [--formats webdataset huggingface] [--prism PATH] [--work DIR]

A record is a JPEG of 8×8 pixels with its number in a comment, so that no two images are equal, and a caption. As
img2dataset and `datasets` write them, a file has 10,000 records, and a Parquet row group 100. The extractor is
`pixels`, 8×8, so that time and memory are those of listing, hashing, planning, reading and writing. Each run is the
whole command in a process of its own, on Beam's local runner and, with `--prism`, on Prism. Its memory is that of the
command and its processes, read five times per second. The base is the memory of a run with 100 records.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from timing import machine

FILE_RECORDS = 10_000
GROUP_RECORDS = 100
BASE_RECORDS = 100
_SIDE = 8
_POLL_SECONDS = 0.2

Record = tuple[str, bytes, str]


def make_records(count: int) -> Iterator[Record]:
    """Yields key, image and caption of records."""
    image = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), (30, 60, 90)).save(image, "JPEG")
    start, rest = image.getvalue()[:2], image.getvalue()[2:]
    for number in range(count):
        key = f"{number:09d}"
        comment = b"\xff\xfe" + (len(key) + 2).to_bytes(2, "big") + key.encode()
        yield key, start + comment + rest, f"A square with the number {number}"


def write_tar(path: Path, records: Iterator[Record]) -> None:
    """Writes a WebDataset shard."""
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        for key, image, caption in records:
            for name, data in ((f"{key}.jpg", image), (f"{key}.txt", caption.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def write_parquet(path: Path, records: Iterator[Record]) -> None:
    """Writes a Parquet file as `datasets` does."""
    rows = [{"image": {"bytes": image, "path": f"{key}.jpg"}, "text": text} for key, image, text in records]
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"), row_group_size=GROUP_RECORDS)


WRITERS: dict[str, Callable[[Path, Iterator[Record]], None]] = {
    "webdataset": write_tar,
    "huggingface": write_parquet,
}


def make_files(root: Path, dataset_type: str, count: int) -> Path:
    """Writes records, unless an earlier run did, and returns their directory."""
    directory = root / f"{dataset_type}-{count}"
    done = directory / "complete"
    if not done.exists():
        directory.mkdir(parents=True, exist_ok=True)
        records = make_records(count)
        for number in range(-(-count // FILE_RECORDS)):
            WRITERS[dataset_type](directory / f"{number:05d}", islice(records, FILE_RECORDS))
        done.touch()
    return directory


def prepare(dataset_type: str, directory: Path, beam_options: Sequence[str]) -> dict[str, Any]:
    """Prepares records into a new store, and returns counts, seconds and the peak memory in bytes."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        options = {
            "--store": f"{work}/store",
            "--dataset-type": dataset_type,
            "--images": str(directory),
            "--extractor": "pixels",
            "--height": str(_SIDE),
            "--width": str(_SIDE),
        }
        words = [word for option in options.items() for word in option]
        command = [sys.executable, "-c", "import capt; capt.main()", "prepare", "features", *words, "--json", "--quiet"]
        started = time.monotonic()
        peak, output = run_measured([*command, "--", *beam_options])
        seconds = round(time.monotonic() - started, 1)
    result = json.loads(output.splitlines()[-1])
    assert result["ok"] == result["input"], result
    return {**{name: result[name] for name in ("input", "shards")}, "seconds": seconds, "peak_memory": peak}


def run_measured(command: Sequence[str]) -> tuple[int, str]:
    """Returns the peak memory in bytes of a command with all its processes, and its output; an error if it fails."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None:
            peak = max(peak, _read_session_memory(process.pid))
            time.sleep(_POLL_SECONDS)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak, output


def _read_session_memory(session: int) -> int:
    """Returns the resident bytes of the processes in a session."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that ended
            fields = path.read_text().rpartition(")")[2].split()
            total += int(fields[21]) if int(fields[3]) == session else 0
    return total * resource.getpagesize()


def main() -> None:
    """Measures and prints."""
    options = _options()
    runners: dict[str, list[str]] = {"local": []}
    if options.prism:
        runners["Prism"] = ["--runner=PrismRunner", f"--prism_location={options.prism.absolute()}"]
    results = []
    print("| format | runner | records | seconds | peak memory, MiB | above the base, MiB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = options.work or Path(temporary)
        for one in options.formats:
            base, many = (make_files(root, one, count) for count in (BASE_RECORDS, options.records))
            for name in options.runners or runners:
                least = prepare(one, base, runners[name])
                most = prepare(one, many, runners[name])
                above = most["peak_memory"] - least["peak_memory"]
                memory = f"{most['peak_memory'] / 2**20:,.0f} | {above / 2**20:,.0f}"
                print(f"| {one} | {name} | {most['input']:,} | {most['seconds']:,} | {memory} |", flush=True)
                results.append({"format": one, "runner": name, "base": least, "run": most})
    print(f"\n{machine()}")
    print(json.dumps(results))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", choices=list(WRITERS), default=list(WRITERS))
    parser.add_argument("--runners", nargs="+", choices=("local", "Prism"), help="default: those that are there")
    parser.add_argument("--prism", type=Path, help="the program `prism`")
    parser.add_argument("--work", type=Path, help="directory for records and stores; records in it are used again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
