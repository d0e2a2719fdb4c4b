"""Computes the content hash of every image that the hash cache does not contain, and checks expected hashes."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.inputs import FileReference
from pipelines.beam.scratch import open_scratch_plan
from pipelines.beam.work_plans import Advance, read_progress, read_results, read_unit, write_unit
from pipelines.beam.work_units import run_units
from pipelines.ingest.image_database import ImageDatabase
from schemas.defaults import MAX_IMAGE_BYTES
from schemas.errors import RecordError, to_record_error
from schemas.terminal.progress import show_progress

HASH_UNIT_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "location", "member", "expected_hash")])
HASH_UNIT_ROWS = 1024
# Number of units per insertion. Each insertion waits for the disk and blocks the hash cache for other runs.
UNITS_PER_INSERT = 64
_THREADS = 4
# By the number of hexadecimal digits.
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}


def hash_images(
    database: ImageDatabase, work: Path, rehash: bool, beam_options: Sequence[str], max_bytes: int = MAX_IMAGE_BYTES
) -> None:
    """Adds the content hash to every record with a file. Images of more than `max_bytes`, or another hash, fail.

    `rehash` ignores the hash cache. Work plans are written to `work`.
    """
    if not rehash:
        database.look_up_hashes()
    unhashed = database.list_unhashed()
    with open_scratch_plan(work) as plan:
        total = 0
        while some := list(islice(unhashed, HASH_UNIT_ROWS)):
            write_unit(plan, f"{total // HASH_UNIT_ROWS:07d}", some, HASH_UNIT_SCHEMA)
            total += len(some)
        with show_progress("hashing", total, "images", lambda: read_progress(plan)):
            run_units(plan, partial(_hash_unit, max_bytes), beam_options, "Hash")
        hashed = read_results(plan)
        while few := list(islice(hashed, UNITS_PER_INSERT)):
            database.insert_hashes(chain.from_iterable(map(json.loads, few)))


def _hash_unit(max_bytes: int, unit: Path, advance: Advance) -> bytes:
    """Hashes the images of one work unit. The result is JSON: [image ID, hash or null, stage, reason, detail] each."""
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed = list(pool.map(partial(_hash, max_bytes), read_unit(unit)))
    advance(len(hashed), sum(row[1] is None for row in hashed))
    return json.dumps(hashed).encode()


def _hash(max_bytes: int, row: dict[str, Any]) -> list[str | None]:
    try:
        data = FileReference(row["location"], row["member"]).read(max_bytes)
        check_hash(data, row["expected_hash"], row["location"])
    except Exception as error:
        failure = to_record_error("read", error)
        return [row["image_id"], None, failure.stage, failure.reason, failure.detail]
    return [row["image_id"], hashlib.sha256(data).hexdigest(), None, None, None]


def check_hash(data: bytes, expected: str, label: str) -> None:
    """Raises RecordError if a file, which messages call `label`, has not the expected hash, which is empty for any."""
    if expected:
        algorithm = _ALGORITHMS[len(expected)]
        found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
        if found != expected:
            raise RecordError("read", "hash mismatch", f"{label}: {algorithm} {found}, expected {expected}")
