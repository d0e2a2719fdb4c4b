"""Memory does not grow with the number of images: the database sorts on disk, extraction streams."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import noise_image

PLANNER = """
import hashlib, resource, sys
from itertools import islice
from pathlib import Path

from features.inputs import ListedFile, FileReference
from pipelines.jobs.extract_shard import EXTRACT_UNIT_SCHEMA
from pipelines.ingest.image_database import ImageDatabase
from pipelines.ingest.job_database import InputRecord
from pipelines.datasets.splits import Splitter, compute_rank
from pipelines.ingest.hash_images import HASH_UNIT_SCHEMA, HASH_UNIT_ROWS
from pipelines.beam.work_plans import read_unit, write_unit

count, root = int(sys.argv[1]), Path(sys.argv[2])
database = ImageDatabase(root / "database.sqlite", root / "stat.sqlite")
database.files.insert_files(
    {"/images": (ListedFile(f"{n:09d}.jpg", FileReference(f"/images/{n:09d}.jpg"), n, str(n), 0) for n in range(count))}
)
splitter = Splitter(own=True)
database.insert_records(
    InputRecord(name, name, splitter.assign(name, None), compute_rank(0, name))
    for name, *_ in database.files.list_images()
)
database.find_files()
database.look_up_hashes()
unhashed = database.list_unhashed()
units = 0
while some := list(islice(unhashed, HASH_UNIT_ROWS)):
    write_unit(root / "hash", f"{units:07d}", some, HASH_UNIT_SCHEMA)
    units += 1
for unit in sorted((root / "hash" / "units").iterdir()):
    database.insert_hashes(
        [row["image_id"], hashlib.sha256(row["image_id"].encode()).hexdigest(), None, None, None]
        for row in read_unit(unit)
    )
database.classify((hashlib.sha256(f"{n:09d}.jpg".encode()).digest() for n in range(0, count, 2)), {})
assert database.count_planned() == count // 2
write_unit(root / "plan", "00000", database.list_planned(), EXTRACT_UNIT_SCHEMA)
database.insert_results()
assert database.count_by_status() == {"ok": count // 2, "cached": count // 2}
database.write_catalog(root / "catalog.parquet")
database.write_report(root / "report.parquet")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(count: int, root: Path) -> int:
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PLANNER, str(count), str(root)], capture_output=True, text=True, check=True, timeout=900
    )
    return int(done.stdout)


@pytest.mark.slow
def test_planning_memory_grows_by_at_most_fifty_bytes_per_image(tmp_path: Path) -> None:
    small, large = peak(100_000, tmp_path / "small"), peak(1_000_000, tmp_path / "large")
    assert (large - small) / 900_000 <= 50


EXTRACTION = """
import resource, sys

import capt

images, store = sys.argv[1:]
capt.prepare_features(
    store=store, dataset_type="folder", images=[images], num_shards=1,
    extractor="mobilenet_v3_small", weights="random:7",
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_extraction_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    peaks = []
    for count in (200, 1600):
        images = tmp_path / f"images-{count}"
        images.mkdir()
        for number in range(count):
            noise_image(number).save(images / f"{number:06d}.jpg")
        arguments = [sys.executable, "-c", EXTRACTION, str(images), str(tmp_path / f"store-{count}")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=600)
        peaks.append(int(done.stdout))
    row_bytes = 49 * 576 * 2
    assert peaks[1] - peaks[0] < 1400 * row_bytes / 2
