"""How memory, time and disk grow with the references that a run plans, on a catalog made up for it.

    python benchmarks/planning.py --references 100000000 [--out DIR]

The ledger of `capt prepare features` is filled as a run fills it, from a walk to the catalog and the report: every
second image is in the table already. No image is read: its hash is that of its name. Prints one line of JSON.
"""

import argparse
import hashlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from features.references import Found, Reference
from pipelines.extracting import EXTRACT_UNIT
from pipelines.hashing import HASH_UNIT, HASH_UNIT_ROWS
from pipelines.ledger import Ledger, Record
from pipelines.splits import Splitter, rank_of
from pipelines.units import read_unit, write_unit

_STORED_STEP = 2


def plan(references: int, root: Path) -> dict[str, object]:
    """Plan so many references in a directory; seconds by step, bytes on disk and the most memory held."""
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[name] = round(time.monotonic() - started, 1)

    ledger = Ledger(root / "ledger.sqlite", root / "stat.sqlite")
    splitter = Splitter(own=True)
    with step("walk"):
        ledger.add_found(
            Found(f"{n:010d}.jpg", Reference(f"/images/{n:010d}.jpg"), n, str(n), 0) for n in range(references)
        )
    with step("records"):
        ledger.add_records(
            Record(name, name, splitter.split_of(name, None), rank_of(0, name)) for name in ledger.found_images()
        )
        ledger.limit(None, None)
    with step("locate"):
        ledger.locate()
        ledger.recall_keys()
    with step("hash"):
        unhashed = ledger.unhashed()
        while some := list(islice(unhashed, HASH_UNIT_ROWS)):
            write_unit(root / "hash", some[0]["image_id"], some, HASH_UNIT)
        for unit in sorted((root / "hash" / "units").iterdir()):
            ledger.enter_hashes(
                [row["image_id"], _key_of(row["image_id"]).hex(), None, None, None] for row in read_unit(unit)
            )
    with step("settle"):
        ledger.settle((_key_of(f"{n:010d}.jpg") for n in range(0, references, _STORED_STEP)), {})
        planned = ledger.count_planned()
    with step("units"):
        write_unit(root / "plan", "00000", ledger.planned(), EXTRACT_UNIT)
    with step("finish"):
        ledger.finish()
        counts = ledger.counts()
        ledger.write_catalog(root / "catalog.parquet")
        ledger.write_report(root / "report.parquet")
    sizes = {path.name: path.stat().st_size for path in root.glob("*.*") if path.is_file()}
    return {
        "references": references,
        "planned": planned,
        **counts,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "files": sizes,
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
    }


def _key_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def main() -> None:
    """Plan and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="an empty directory on a roomy disk [a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        os.environ["SQLITE_TMPDIR"] = directory
        print(json.dumps(plan(options.references, Path(directory))))


if __name__ == "__main__":
    main()
