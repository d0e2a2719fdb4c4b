"""Hashing: the content key of every image that the stat cache does not know."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.references import MAX_IMAGE_BYTES, Reference
from pipelines.beam.work_units import Advance, read_unit
from schemas.errors import to_record_error

HASH_UNIT_SCHEMA = pa.schema([("image_id", pa.string()), ("location", pa.string()), ("member", pa.string())])
HASH_UNIT_ROWS = 1024
_THREADS = 4


@dataclass(frozen=True)
class HashImages:
    """Hashes the images of one unit; the result is a JSON list of [image id, key or null, stage, reason, detail].

    Args:
        max_bytes: int. Images of more bytes fail.
    """

    max_bytes: int = MAX_IMAGE_BYTES

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """The result of the unit."""
        with ThreadPoolExecutor(_THREADS) as pool:
            hashed = list(pool.map(partial(_hash, self.max_bytes), read_unit(unit)))
        advance(len(hashed), sum(row[1] is None for row in hashed))
        return json.dumps(hashed).encode()


def _hash(max_bytes: int, row: dict[str, Any]) -> list[str | None]:
    try:
        data = Reference(row["location"], row["member"]).read(max_bytes)
    except Exception as error:
        failure = to_record_error("read", error)
        return [row["image_id"], None, failure.stage, failure.reason, failure.detail]
    return [row["image_id"], hashlib.sha256(data).hexdigest(), None, None, None]
