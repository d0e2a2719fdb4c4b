"""Reads the Parquet files that img2dataset writes beside its shards: a row per URL, with the key and how it went.

    00000.tar        the samples whose image was downloaded and resized
    00000.parquet    key, status (`success`, `failed_to_download`, …) and more of every URL of the shard

Format: https://github.com/rom1504/img2dataset. The shard is what counts; the side file tells what the shard lacks.
"""

import logging
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from features.inputs.parquet_rows import open_parquet
from features.io.open_files import stat_file
from features.text.lines import FailedRecord
from pipelines.datasets.parquet_table import read_rows
from schemas.errors import RecordError

SUCCESS = "success"
_KEY, _STATUS = "key", "status"

_log = logging.getLogger("capt.prepare")


class SideRow(NamedTuple):
    """A row of a side file: its place for messages, the key of its sample, and its status."""

    location: str
    key: str
    status: str


def read_side_file(shard: str) -> Iterator[SideRow]:
    """Yields the rows of a shard's side file; none without one.

    A Parquet file of another kind is no side file. One that cannot be read, wholly or in part, is reported, because all
    samples are in the shard.
    """
    location = shard[: -len(PurePosixPath(shard).suffix) or None] + ".parquet"
    try:
        stat_file(location)
        file = open_parquet(location)
    except OSError:
        return
    except RecordError as error:
        _log.warning("%s. Samples that the shard lacks are not known.", error.detail)
        return
    if not {_KEY, _STATUS} <= set(file.schema_arrow.names):
        return
    unreadable = 0
    for row in read_rows(file, [_KEY, _STATUS], location):
        if isinstance(row, FailedRecord):
            unreadable += 1
        else:
            yield SideRow(row.location, str(row.values[_KEY]), str(row.values[_STATUS]))
    if unreadable:
        _log.warning("%s: %d rows cannot be read. Whether the shard lacks them is not known.", location, unreadable)
