"""Benchmark: memory, time and disk space per reference that a run plans, on a synthetic catalog.

    python benchmarks/planning.py --references 100000000 [--out DIR]

The job database of `capt prepare features` is filled as by a run, from listing to catalog and report; every second
image is in the table. Then it is filled as by the next run, with all images in the table, the previous catalog and the
hash cache. No image is read. The key of an image is its number with reversed bits: keys are scattered like hashes, and
can be generated in sorted order. Prints one line of JSON: seconds per step, bytes on disk, and peak memory.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from features.inputs import FileReference, ListedFile
from pipelines.beam.work_plans import read_unit, write_unit
from pipelines.datasets.limits import Limits
from pipelines.datasets.splits import Splitter, compute_rank
from pipelines.ingest.hash_images import HASH_UNIT_ROWS, HASH_UNIT_SCHEMA, UNITS_PER_INSERT
from pipelines.ingest.image_database import HASH_CACHE, ImageDatabase
from pipelines.ingest.job_database import JOB_DATABASE, InputRecord
from pipelines.jobs.extract_shard import EXTRACT_UNIT_SCHEMA

_STORED_STEP = 2
_KEY_BITS = 32
_KEY_TAIL = bytes(28)
_REVERSED = [int(f"{byte:08b}"[::-1], 2) for byte in range(256)]


class Planning:
    """The planning of a number of references in a directory.

    Args:
        references: Number of listed images.
        root: The directory.
    """

    def __init__(self, references: int, root: Path) -> None:
        self.references = references
        self.root = root
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}

    def first(self) -> dict[str, int]:
        """Plans the run that finds every second image in the table, and returns the counts by status."""
        database = self._open_database("first")
        with self._step("first: hash"):
            self._hash(database)
        self._classify(database, "first", _STORED_STEP)
        return self._finish(database, "first")

    def again(self) -> dict[str, int]:
        """Plans the next run, which finds nothing new, and returns the counts by status."""
        database = self._open_database("again", self.root / "first.catalog.parquet")
        self._classify(database, "again", 1)
        return self._finish(database, "again")

    def _open_database(self, run: str, catalog: Path | None = None) -> ImageDatabase:
        database = ImageDatabase(self.root / f"{run}.{JOB_DATABASE}", self.root / HASH_CACHE)
        if catalog:
            with self._step(f"{run}: catalog before"), pq.ParquetFile(catalog) as file:
                database.insert_assigned(file.iter_batches(), has_images=True)
        with self._step(f"{run}: walk"):
            files = (
                ListedFile(_name(n), FileReference(f"/images/{_name(n)}"), n, str(n), 0) for n in range(self.references)
            )
            database.files.insert_files({"/images": files})
        splitter = Splitter(own=True)
        with self._step(f"{run}: records"):
            database.insert_records(
                InputRecord(name, name, splitter.assign(name, None), compute_rank(0, name))
                for name, *_ in database.files.list_images()
            )
            database.limit(Limits())
            database.apply_assigned()
        with self._step(f"{run}: locate"):
            database.find_files()
            database.look_up_hashes()
        return database

    def _hash(self, database: ImageDatabase) -> None:
        unhashed, plan = database.list_unhashed(), self.root / "hash"
        while some := list(islice(unhashed, HASH_UNIT_ROWS)):
            write_unit(plan, some[0]["image_id"], some, HASH_UNIT_SCHEMA)
        units = iter(sorted((plan / "units").iterdir()))
        while paths := list(islice(units, UNITS_PER_INSERT)):
            database.insert_hashes(
                [row["image_id"], hash_name(int(row["image_id"][:-4])).hex(), None, None, None]
                for unit in paths
                for row in read_unit(unit)
            )
            for unit in paths:
                unit.unlink()

    def _classify(self, database: ImageDatabase, run: str, step: int) -> None:
        with self._step(f"{run}: classify"):
            database.classify(ordered_keys(self.references, step), {})
        with self._step(f"{run}: units"):
            write_unit(self.root / run, "00000", database.list_planned(), EXTRACT_UNIT_SCHEMA)

    def _finish(self, database: ImageDatabase, run: str) -> dict[str, int]:
        with self._step(f"{run}: finish"):
            database.insert_results()
            database.write_catalog(self.root / f"{run}.catalog.parquet")
            database.write_report(self.root / f"{run}.report.parquet")
        counts = database.count_by_status()
        database.close()
        path = self.root / f"{run}.{JOB_DATABASE}"
        self.bytes = {one.name: one.stat().st_size for one in self.root.glob("*.*")}
        path.unlink()
        return counts

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"{name}: {self.seconds[name]:,} s, {_peak() >> 20:,} MiB peak memory", file=sys.stderr)


def hash_name(number: int) -> bytes:
    """Returns the key of an image."""
    return bytes(_REVERSED[byte] for byte in number.to_bytes(4, "little")) + _KEY_TAIL


def ordered_keys(references: int, step: int) -> Iterator[bytes]:
    """Yields the keys of every `step`-th image in ascending order; `step` is a power of two."""
    bits = max(1, (references - 1).bit_length())
    for prefix in range(1 << bits):
        head = (prefix << (_KEY_BITS - bits)).to_bytes(4, "big")
        number = int.from_bytes((_REVERSED[byte] for byte in head), "little")
        if number < references and number % step == 0:
            yield head + _KEY_TAIL


def _name(number: int) -> str:
    return f"{number:010d}.jpg"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Plans and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument(
        "--out", type=Path, help="directory on a disk with enough space; default: a temporary directory"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        os.environ["SQLITE_TMPDIR"] = directory
        planning = Planning(options.references, Path(directory))
        first, sizes = planning.first(), planning.bytes
        again = planning.again()
    print(
        json.dumps(
            {
                "references": options.references,
                "first": first,
                "again": again,
                "peak_memory": _peak(),
                "files": sizes,
                "seconds": planning.seconds,
                "total_seconds": round(sum(planning.seconds.values()), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
