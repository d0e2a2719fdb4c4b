"""Divides the rows of lists of URLs into shards, by their position."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from features.text.lines import FailedRecord
from features.text.record_fields import check_caption
from pipelines.datasets.shard_files import Shard
from pipelines.datasets.urls import UrlReader, UrlRow, read_row_captions
from schemas.errors import RecordError


@dataclass(frozen=True, slots=True)
class UrlRecord:
    """A row of a list.

    Attributes:
        key: Name of the sample: that of the shard and the position in it.
        location: List and position in it, such as `train.tsv:17`.
        url: URL of the image; empty if the row cannot be read.
        captions: Captions that are usable text.
        unusable_captions: Number of captions that are not, 1 if the row has none.
        own_id: ID of the row; empty without one.
        group: Group of the image; empty without one.
        expected_hash: MD5, SHA-1 or SHA-256 that the image must have, in hexadecimal digits; empty for any.
        failure: Why the row cannot be read; None if it can.
    """

    key: str
    location: str
    url: str = ""
    captions: tuple[str, ...] = ()
    unusable_captions: int = 0
    own_id: str = ""
    group: str = ""
    expected_hash: str = ""
    failure: FailedRecord | None = None


@dataclass(frozen=True)
class ShardRecords:
    """The records of one shard, in the order of the lists."""

    name: str
    records: tuple[UrlRecord, ...]


def divide_rows(reader: UrlReader, shard_size: int) -> Iterator[ShardRecords]:
    """Yields shards of `shard_size` records, or fewer in the last one. Each split has its own shards.

    A shard of the split `train` is named `train-00000`, one without a split `00000`, because readers of WebDatasets
    find the split in the name.
    """
    counts: defaultdict[str, int] = defaultdict(int)
    waiting: defaultdict[str, list[UrlRecord]] = defaultdict(list)
    for shard, row in reader.read_rows():
        split = (None if isinstance(row, FailedRecord) else row.fields.split) or shard.split or ""
        number, position = divmod(counts[split], shard_size)
        counts[split] += 1
        name = _name_shard(split, number)
        waiting[split].append(_build_record(f"{name}{position:0{len(str(shard_size - 1))}d}", shard, row))
        if position == shard_size - 1:
            yield ShardRecords(name, tuple(waiting.pop(split)))
    for split in sorted(waiting):
        yield ShardRecords(_name_shard(split, counts[split] // shard_size), tuple(waiting[split]))


def _name_shard(split: str, number: int) -> str:
    return f"{split}-{number:05d}" if split else f"{number:05d}"


def _build_record(key: str, shard: Shard, row: UrlRow | FailedRecord) -> UrlRecord:
    if isinstance(row, FailedRecord):
        return UrlRecord(key, _shorten(row.location, shard), failure=row)
    captions = list(read_row_captions(row))
    usable = tuple(one.caption for one in captions if not isinstance(one, FailedRecord) and _is_usable(one.caption))
    return UrlRecord(
        key,
        _shorten(row.fields.location, shard),
        row.url,
        usable,
        len(captions) - len(usable),
        row.fields.own_id,
        row.fields.group,
        row.expected_hash,
    )


def _is_usable(caption: str) -> bool:
    try:
        check_caption(caption)
    except RecordError:
        return False
    return True


def _shorten(location: str, shard: Shard) -> str:
    """Returns a location without the directories above the list, so that shards do not depend on them."""
    return location.replace(shard.location, shard.label, 1)
