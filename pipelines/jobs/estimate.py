"""Scale: what a table of so many images takes, from what a plan of some of them measures.

Sizes an image are those of the plan's own ledger, catalog and rows; the time of a commit is that of a manifest of as
many shards, put and read again, up to `MEASURED_SHARDS` of them.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.io.atomic_files import put_if_absent
from features.store.shards import choose_shard_count
from schemas.manifests import DroppedMetadata, FileEntry, Manifest, Shard
from schemas.table_config import SHORT_FINGERPRINT

MEASURED_SHARDS = 4096
LISTED_A_REQUEST = 1000  # names in one answer of S3's and GCS' listings

_KEY = 32
_PLACE = 8
_SHA256 = "0" * 64


@dataclass(frozen=True)
class Footprint:
    """What one image takes, in bytes.

    Args:
        row: int. Its row in the table, framing left out.
        job_database: float. In a run's ledger.
        catalog: float. In the dataset's catalog.
    """

    row: int
    job_database: float
    catalog: float


@dataclass(frozen=True)
class TableEstimate:
    """What a table takes.

    Args:
        images: int. Images in it.
        shards: int. Its shards, which are its units of work as well.
        shard_bytes: int. Of one.
        table_bytes, index_bytes, manifest_bytes, catalog_bytes, ledger_bytes: int. Of all rows, of the indexes, of the
            one manifest, of the dataset's catalog, and of the ledger that plans it, on the launcher's disk.
        reader_memory: int. Bytes of keys and places that a reader holds who looks up any image.
        listing_requests: int. Requests that list the images where they lie one by one in a bucket.
        put_requests: int. Requests that put the shards, their indexes, and the commit.
        commit_seconds: float. Of building, putting and reading the manifest, here.
        extraction_seconds: float or None. Of one worker at the pace measured; None where none was.
    """

    images: int
    shards: int
    shard_bytes: int
    table_bytes: int
    encode_index: int
    manifest_bytes: int
    catalog_bytes: int
    ledger_bytes: int
    reader_memory: int
    listing_requests: int
    put_requests: int
    commit_seconds: float
    extraction_seconds: float | None

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)


def estimate_table(
    images: int, each: Footprint, pace: float | None, temporary: Path, shards: int | None = None
) -> TableEstimate:
    """What a table of so many images takes.

    Args:
        images: int. How many.
        each: Footprint. What one takes.
        pace: float or None. Images a second of one worker.
        temporary: Path. A directory to put a manifest in.
        shards: int or None. Pins the shard count.
    """
    count = shards or choose_shard_count(images, each.row)
    measured = min(count, MEASURED_SHARDS)
    size, seconds = _commit(measured, temporary)
    return TableEstimate(
        images=images,
        shards=count,
        shard_bytes=images * each.row // count,
        table_bytes=images * each.row,
        encode_index=images * (_KEY + _PLACE),
        manifest_bytes=size * count // measured,
        catalog_bytes=round(images * each.catalog),
        ledger_bytes=round(images * each.job_database),
        reader_memory=images * (_KEY + _PLACE),
        listing_requests=math.ceil(images / LISTED_A_REQUEST),
        put_requests=2 * count + 2,
        commit_seconds=round(seconds * count / measured, 3),
        extraction_seconds=round(images / pace, 1) if pace else None,
    )


def _commit(shards: int, temporary: Path) -> tuple[int, float]:
    """Bytes of a manifest of so many shards, and the seconds of building, putting and reading it."""
    started = time.monotonic()
    manifest = Manifest(table=_SHA256, shards=tuple(_shard(n, shards) for n in range(shards)), facts=DroppedMetadata())
    data = manifest.to_json()
    path = temporary / "manifest.json"
    put_if_absent(path, data)
    Manifest.model_validate_json(path.read_bytes())
    return len(data), time.monotonic() - started


def _shard(number: int, count: int) -> Shard:
    name = f"{_SHA256[:SHORT_FINGERPRINT]}/features-{number:05d}-of-{count:05d}.{_SHA256[:8]}"
    data, index = (
        FileEntry(path=f"{name}.{suffix}", bytes=1 << 27, sha256=_SHA256) for suffix in ("tfrecord", "index")
    )
    return Shard(number=number, count=count, rows=512, first_key=_SHA256, last_key=_SHA256, data=data, index=index)
