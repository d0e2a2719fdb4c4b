"""Reads the images of a work unit; those in Parquet files in blocks, in the order of the files.

A unit lists its images by content hash. Read in this order, each image in Parquet would cost half of its row group. So
the images of a block are read in the order of the files into a temporary file, before the first one is extracted.
"""

import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from features.extractors.extraction import EncodedImage
from features.inputs import FileReference
from features.inputs.parquet_rows import names_value
from pipelines.ingest.image_database import CHANGED
from schemas.errors import RecordError

_FIRST_IMAGES, _MAX_IMAGES = 1024, 1 << 16
_BLOCK_BYTES = 1 << 30  # about; the mean of the block before determines the number of images


def open_images(rows: Iterable[dict[str, Any]], max_bytes: int) -> Iterator[EncodedImage]:
    """Yields the images of a unit in its order. Reading one fails if its content hash is not its key."""
    remaining, count = iter(rows), _FIRST_IMAGES
    while some := list(islice(remaining, count)):
        block = _Block([row for row in some if names_value(row["member"])], max_bytes)
        for row in some:
            read = partial(block.read, row) if names_value(row["member"]) else partial(_read_unchanged, row, max_bytes)
            yield EncodedImage(row["key"], read)
        count = block.choose_next_count()


class _Block:
    """The images of some rows in a temporary file, which is deleted with the last reference to the block."""

    def __init__(self, rows: Sequence[dict[str, Any]], max_bytes: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()
        self._found: dict[bytes, tuple[int, int] | RecordError] = {}
        self._num_bytes = 0
        self._max_bytes = max_bytes
        for row in sorted(rows, key=lambda row: (row["location"], row["member"])):
            if self._num_bytes >= _BLOCK_BYTES:
                break  # The images that are left, larger than those before, are read one by one.
            self._found[row["key"]] = self._copy(row, max_bytes)

    def choose_next_count(self) -> int:
        """Returns the number of images of the next block, from the mean size in this one."""
        images = _BLOCK_BYTES * len(self._found) // max(1, self._num_bytes)
        return min(_MAX_IMAGES, max(_FIRST_IMAGES, images))

    def read(self, row: dict[str, Any]) -> bytes:
        found = self._found.get(row["key"])
        if found is None:
            return _read_unchanged(row, self._max_bytes)
        if isinstance(found, RecordError):
            raise found
        start, size = found
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)

    def _copy(self, row: dict[str, Any], max_bytes: int) -> tuple[int, int] | RecordError:
        try:
            data = _read_unchanged(row, max_bytes)
        except RecordError as error:
            return error
        start, self._num_bytes = self._num_bytes, self._num_bytes + len(data)
        self._file.write(data)
        return start, len(data)


def _read_unchanged(row: dict[str, Any], max_bytes: int) -> bytes:
    reference = FileReference(row["location"], row["member"])
    data = reference.read(max_bytes)
    if hashlib.sha256(data).digest() != row["key"]:
        raise RecordError("read", CHANGED, f"{reference.label} changed during the job", permanent=False)
    return data
