"""Estimates the time of an extraction, and the size of its table, for a dry run.

Sizes per image are those of the dry run's job database, catalog and rows. The commit time is measured with a manifest.
"""

import math
import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from features.extractors.devices import detect_device
from features.extractors.extraction import ExtractionCore
from features.extractors.runtimes import RuntimeChoice, load_extractor
from features.images.decode import ImageLimits
from features.io.atomic_files import ensure_local, put_if_absent
from features.store.shards import choose_shard_count
from pipelines.jobs.frozen_extractor import FrozenExtractor
from pipelines.jobs.image_blocks import open_images
from schemas.manifests import DroppedMetadata, FileEntry, Manifest, Shard
from schemas.table_config import SHORT_FINGERPRINT, FeatureTableConfig

TIMED_IMAGES = 24

_MEASURED_SHARDS = 4096
_OBJECTS_PER_LISTING = 1000  # Maximum of S3 and GCS.
_WARM_UP_IMAGES = 8
_INDEX_ENTRY_BYTES = 32 + 8  # Key and position.
_SHA256 = "0" * 64
_SUFFIXES = ("tfrecord", "index")


def measure_speed(
    table_config: FeatureTableConfig,
    extractor: FrozenExtractor,
    batch_size: int,
    limits: ImageLimits,
    runtime: RuntimeChoice,
    references: Iterable[dict[str, Any]],
) -> float:
    """Measures the number of images per second that one process of this machine extracts.

    `references` are rows of a work unit, at least one. The first ones are extracted; their features are discarded.
    On an accelerator, they fill a batch. Batches are not larger than their number, because padding would be timed, too.
    """
    is_accelerated = detect_device(runtime.backend, runtime.device).kind != "cpu"
    some = list(islice(references, max(TIMED_IMAGES, batch_size) if is_accelerated else TIMED_IMAGES))
    batch_size = min(batch_size, len(some))
    path = ensure_local(extractor.path, extractor.sha256)
    model = load_extractor(path, table_config, runtime.device, batch_size)
    core = ExtractionCore.for_extractor(table_config, model, batch_size, limits.pixels)
    deque(core.run(open_images(some[:_WARM_UP_IMAGES], limits.bytes)), maxlen=0)
    started = time.perf_counter()
    deque(core.run(open_images(some, limits.bytes)), maxlen=0)
    return len(some) / (time.perf_counter() - started)


def estimate_table(
    images: int, row: int, catalog: float, database: float, speed: float | None, num_shards: int | None, temporary: Path
) -> dict[str, Any]:
    """Estimates the cost of a table, as it appears in JSON.

    `row`, `catalog` and `database` are bytes per image, in its row (without framing), the dataset catalog and the job
    database. `speed` are images per second of one worker.

    Returns:
        Numbers of images, shards (each is one work unit) and requests; bytes of the parts of the store; `reader_memory`
        (bytes for random access); and seconds of the commit on this machine and of the extraction by one worker.
    """
    count = num_shards or choose_shard_count(images, row)
    measured = min(count, _MEASURED_SHARDS)
    size, seconds = _measure_commit(measured, temporary)
    return {
        "images": images,
        "shards": count,
        "shard_bytes": images * row // count,
        "table_bytes": images * row,
        "index_bytes": images * _INDEX_ENTRY_BYTES,
        "manifest_bytes": size * count // measured,
        "catalog_bytes": round(images * catalog),
        "job_database_bytes": round(images * database),
        "reader_memory": images * _INDEX_ENTRY_BYTES,
        "listing_requests": math.ceil(images / _OBJECTS_PER_LISTING),
        "put_requests": 2 * count + 2,
        "commit_seconds": round(seconds * count / measured, 3),
        "extraction_seconds": round(images / speed, 1) if speed else None,
    }


def _measure_commit(shards: int, temporary: Path) -> tuple[int, float]:
    """Returns the bytes of a manifest, and the seconds to build, write and read it."""
    started, built = time.monotonic(), []
    for number in range(shards):
        name = f"{_SHA256[:SHORT_FINGERPRINT]}/features-{number:05d}-of-{shards:05d}.{_SHA256[:8]}"
        data, index = (FileEntry(path=f"{name}.{suffix}", bytes=1 << 27, sha256=_SHA256) for suffix in _SUFFIXES)
        keys = {"first_key": _SHA256, "last_key": _SHA256}
        built.append(Shard(number=number, count=shards, rows=512, data=data, index=index, **keys))
    encoded = Manifest(table=_SHA256, shards=tuple(built), facts=DroppedMetadata()).to_json()
    path = temporary / "manifest.json"
    put_if_absent(path, encoded)
    Manifest.model_validate_json(path.read_bytes())
    return len(encoded), time.monotonic() - started
