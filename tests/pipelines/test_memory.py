"""Memory does not grow with the number of images: the ledger sorts on disk, extraction streams."""

import subprocess
import sys
from pathlib import Path

import pytest

PLANNER = """
import hashlib, resource, sys
from itertools import islice
from pathlib import Path

from features.references import Found, Reference
from pipelines.extracting import EXTRACT_UNIT
from pipelines.ledger import Ledger
from pipelines.splits import Splitter, rank_of
from pipelines.hashing import HASH_UNIT, HASH_UNIT_ROWS
from pipelines.units import read_unit, write_unit

count, root = int(sys.argv[1]), Path(sys.argv[2])
ledger = Ledger(root / "ledger.sqlite", root / "stat.sqlite")
ledger.add_found(
    Found(f"{n:09d}.jpg", Reference(f"/images/{n:09d}.jpg"), n, str(n), 0) for n in range(count)
)
splitter = Splitter(own=True)
ledger.add_records(
    (name, name, splitter.split_of(name, None), rank_of(0, name)) for name in ledger.found_images()
)
ledger.limit(None, None)
ledger.locate()
ledger.recall_keys()
unhashed = ledger.unhashed()
units = 0
while some := list(islice(unhashed, HASH_UNIT_ROWS)):
    write_unit(root / "hash", f"{units:07d}", some, HASH_UNIT)
    units += 1
for unit in sorted((root / "hash" / "units").iterdir()):
    ledger.enter_hashes(
        [row["image_id"], hashlib.sha256(row["image_id"].encode()).hexdigest(), None, None, None]
        for row in read_unit(unit)
    )
ledger.settle((hashlib.sha256(f"{n:09d}.jpg".encode()).digest() for n in range(0, count, 2)), {})
assert ledger.count_planned() == count // 2
write_unit(root / "plan", "00000", ledger.planned(), EXTRACT_UNIT)
ledger.finish()
assert ledger.counts() == {"ok": count // 2, "cached": count // 2}
ledger.write_catalog(root / "catalog.parquet")
ledger.write_report(root / "report.parquet")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(count: int, root: Path) -> int:
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PLANNER, str(count), str(root)], capture_output=True, text=True, check=True, timeout=900
    )
    return int(done.stdout)


@pytest.mark.slow
def test_planning_grows_by_at_most_fifty_bytes_an_image(tmp_path: Path) -> None:
    small, large = peak(100_000, tmp_path / "small"), peak(1_000_000, tmp_path / "large")
    assert (large - small) / 900_000 <= 50
