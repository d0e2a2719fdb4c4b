"""Writes and checks finished shards: a tar of samples, and a Parquet file of all records with their counts.

The Parquet file is written last. A tar has the samples in the order of the records and nothing of the time or machine,
so equal images yield equal bytes.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from features.io.atomic_files import atomic_write
from features.io.tar_writer import TarWriter, open_tar_writer
from pipelines.datasets.side_files import SUCCESS
from pipelines.fetch_urls.records import UrlRecord
from pipelines.fetch_urls.unfinished_shard import Outcome, UnfinishedShard
from schemas.errors import CaptError
from schemas.frozen import Frozen

_COUNTS = b"capt"
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "url")),
        ("captions", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("status", "reason", "detail", "sha256")),
        *((name, pa.int64()) for name in ("bytes", "width", "height")),
        *((name, pa.string()) for name in ("id", "group", "location")),
    ]
)


class ShardCounts(Frozen):
    """Numbers of a shard's records, failed records by reason, and bytes of the images and of the tar."""

    records: int
    ok: int
    reasons: dict[str, int]
    unusable_captions: int
    image_bytes: int
    tar_bytes: int


def write_shard(directory: Path, shard: UnfinishedShard) -> ShardCounts:
    """Writes the tar and then the Parquet file of an ended shard, each atomically."""
    rows = [(record, shard.find_outcome(record)) for record in shard.records]
    tar = _tar_path(directory, shard.name)
    # A tar that was deleted leaves a Parquet file, which does not describe the new one.
    _parquet_path(directory, shard.name).unlink(missing_ok=True)
    with atomic_write(tar) as temporary, open_tar_writer(temporary) as archive:
        for record, outcome in rows:
            if not outcome.reason:
                _add_sample(archive, record, outcome, shard.find_image(record))
    counts = ShardCounts(
        records=len(rows),
        ok=sum(not outcome.reason for _, outcome in rows),
        reasons=Counter(outcome.reason for _, outcome in rows if outcome.reason),
        unusable_captions=sum(record.unusable_captions for record, _ in rows),
        image_bytes=sum(outcome.bytes for _, outcome in rows),
        tar_bytes=tar.stat().st_size,
    )
    table = pa.Table.from_pylist([_describe(*row) for row in rows], _SCHEMA)
    with atomic_write(_parquet_path(directory, shard.name)) as temporary:
        pq.write_table(table.replace_schema_metadata({_COUNTS: counts.model_dump_json()}), temporary)
    return counts


def read_counts(directory: Path, name: str) -> ShardCounts | None:
    """Returns the counts of a finished shard; None if the shard is not finished.

    Raises:
        CaptError: One of its files is not as it was written.
    """
    tar, parquet = _tar_path(directory, name), _parquet_path(directory, name)
    if not tar.exists() or not parquet.exists():
        return None
    hint = f"Delete {tar.name} and {parquet.name}. The same command downloads the images of this shard again."
    try:
        counts = ShardCounts.model_validate_json((pq.read_schema(parquet).metadata or {})[_COUNTS])
    except (pa.ArrowException, KeyError, ValidationError):
        raise CaptError("the file is not the one that was written", location=str(parquet), hint=hint) from None
    if counts.tar_bytes != tar.stat().st_size:
        message = f"the file has {tar.stat().st_size:,} bytes, and {counts.tar_bytes:,} were written"
        raise CaptError(message, location=str(tar), hint=hint)
    return counts


def _tar_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.tar"


def _parquet_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.parquet"


# === Samples ===


def _add_sample(archive: TarWriter, record: UrlRecord, outcome: Outcome, image: Path) -> None:
    """Adds the image, the caption as text if there is one alone, and the description, in this order."""
    archive.add_file(f"{record.key}.{outcome.suffix}", image, outcome.bytes)
    for suffix, data in _encode_texts(record, outcome):
        archive.add_bytes(f"{record.key}.{suffix}", data)


def _encode_texts(record: UrlRecord, outcome: Outcome) -> Iterator[tuple[str, bytes]]:
    if len(record.captions) == 1:
        yield "txt", record.captions[0].encode()
    captions = record.captions if len(record.captions) > 1 else record.captions[0] if record.captions else None
    description = {**_describe(record, outcome), "captions": None}
    shown = {"caption": captions, **{name: value for name, value in description.items() if value not in (None, "")}}
    yield "json", json.dumps(shown, ensure_ascii=False).encode()


def _describe(record: UrlRecord, outcome: Outcome) -> Mapping[str, Any]:
    """Returns the row of a record in the Parquet file, which is a side file for readers of WebDatasets."""
    is_ok = not outcome.reason
    return {
        "key": record.key,
        "url": record.url,
        "captions": record.captions,
        "status": SUCCESS if is_ok else "failed",
        "reason": outcome.reason,
        "detail": outcome.detail,
        "sha256": outcome.sha256,
        "bytes": outcome.bytes if is_ok else None,
        "width": outcome.width if is_ok else None,
        "height": outcome.height if is_ok else None,
        "id": record.own_id,
        "group": record.group,
        "location": record.location,
    }
