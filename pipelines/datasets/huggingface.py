"""Reads Parquet files with a column of encoded images, as the library `datasets` and img2dataset write them.

Format: https://huggingface.co/docs/datasets/image_dataset. The column of images contains bytes, or structures of bytes
and path. Captions are a column of text or lists of text, or several columns (`pipelines.datasets.caption_rows`).

    Parquet → IDs, splits and captions of the rows, by row group → image (read by row group), captions | failure
"""

import hashlib
import logging
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from features.inputs import FileReference, ListedFile
from features.inputs.archives import close_archives
from features.inputs.image_files import is_image_name
from features.inputs.parquet_rows import name_member, open_parquet
from features.text.lines import FailedRecord, shorten
from features.text.record_fields import read_identifier, read_record, read_split_field
from features.text.table_columns import (
    GROUP,
    IMAGE,
    SPLIT,
    USUAL_CAPTION_COLUMNS,
    CaptionColumns,
    ColumnRole,
    find_captions,
    find_columns,
    report_columns,
)
from pipelines.datasets.base import CaptionEntry, EmbeddedReader, ImageEntry, build_failed_image
from pipelines.datasets.caption_rows import list_captions, read_caption_value
from pipelines.datasets.parquet_table import ParquetRow, read_rows
from pipelines.datasets.shard_files import Shard, find_shards
from schemas.errors import RecordError, UsageError

_IMAGE_ROWS = 32  # decoded at a time
_BY_PATH = -1
_IMAGE_ID = ColumnRole(
    "id",
    (
        *("image_id", "img_id", "imgid", "id", "key", "__key__", "cocoid", "file_name", "filename", "image_name"),
        *("image_path", "filepath", "file_path", "path"),
    ),
    required=False,
)

_log = logging.getLogger("capt.prepare")


class _Columns(NamedTuple):
    """Names of the columns of a file: the image, the field of its bytes, and others; empty if a column is missing."""

    image: str
    bytes_path: str
    has_path: bool
    id: str
    split: str
    group: str

    @property
    def small(self) -> list[str]:
        """The columns that identify a row, without the bytes."""
        return [
            name for name in (f"{self.image}.path" if self.has_path else "", self.id, self.split, self.group) if name
        ]


class _Row(NamedTuple):
    """A row, with the values of the columns that are read.

    `file_name` is the name of its image's file in the dataset, and `member` its place in the Parquet file.
    """

    location: str
    image_id: str
    file_name: str
    member: str
    split: str | None
    group: str
    values: Mapping[str, Any]


class HuggingFaceReader(EmbeddedReader):
    """Reads images and captions in Parquet files. `columns.id` contains the IDs of the images.

    Without a column of IDs, the ID is the path in the structure. It is the number of the row in its file if there is no
    path, or if rows of the file name different images by it.

    Attributes:
        pattern: Regular expression that is searched for in paths within a directory.
    """

    pattern = re.compile(r"\.parquet$", re.IGNORECASE)

    def __init__(self, paths: Sequence[str], columns: CaptionColumns = USUAL_CAPTION_COLUMNS) -> None:
        if not paths:
            hint = "Name the Parquet files, or their directory."
            raise UsageError("dataset type huggingface needs Parquet files", location="--annotations", hint=hint)
        self._shards = find_shards(paths, [".parquet"])
        self._given = columns
        self._reported: set[str] = set()
        self._own_rows: dict[str, Sequence[int]] = {}

    def read_images(self) -> Iterator[ImageEntry]:
        for shard in self._shards:
            for row in self._read_rows(shard):
                if isinstance(row, FailedRecord):
                    yield build_failed_image(row)._replace(document=shard.label)
                else:
                    split, name = row.split or shard.split, row.file_name
                    yield ImageEntry(row.image_id, name, split, document=shard.label, group=row.group)

    def list_files(self) -> Iterator[ListedFile]:
        close_archives()
        for shard in self._shards:
            for row in self._read_rows(shard):
                if isinstance(row, _Row):
                    stamp, reference = f"parquet:{shard.state.version}", FileReference(shard.location, row.member)
                    yield ListedFile(row.file_name, reference, 0, stamp, shard.state.modified_ns)

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        for shard in self._shards:
            counts = Counter[str]()
            for row in self._read_rows(shard, with_captions=True):
                if isinstance(row, FailedRecord):
                    yield row
                    continue
                for entry in self._read_row_captions(row, counts):
                    yield entry if isinstance(entry, FailedRecord) else entry._replace(document=shard.label)

    def _read_row_captions(self, row: _Row, counts: Counter[str]) -> Iterator[CaptionEntry | FailedRecord]:
        """Yields the captions of a row, numbered within their image by `counts`."""
        found = list_captions(row.values, list(row.values))
        if not found:
            yield FailedRecord(row.location, "no caption", f"all captions of {shorten(row.image_id)} are null")
        for one in found:
            number = str(counts[row.image_id])
            counts[row.image_id] += 1
            yield read_caption_value(row.image_id, number, one, f"{row.location}: {one.location}")

    def _read_rows(self, shard: Shard, *, with_captions: bool = False) -> Iterator[_Row | FailedRecord]:
        """Yields the rows of a file, with the values of its captions if wanted. A file that is not Parquet is one."""
        try:
            file = open_parquet(shard.location)
        except RecordError as error:
            yield FailedRecord(shard.location, error.reason, error.detail)
            return
        schema = file.schema_arrow
        columns = _find_columns(schema, shard.location, self._given)
        captions: tuple[str, ...] = ()
        if with_captions:
            captions = find_captions(_list_others(schema, columns.image), shard.location, self._given.caption)
        self._report(shard, columns, captions)
        own_rows = self._find_own_rows(shard, file, columns)
        for row in read_rows(file, [*columns.small, *captions], shard.location):
            if isinstance(row, FailedRecord):
                yield row
            else:
                own = own_rows[row.number] if own_rows else _BY_PATH
                yield read_record(row.location, partial(_build_row, row, shard.label, columns, captions, own))

    def _find_own_rows(self, shard: Shard, file: Any, columns: _Columns) -> Sequence[int]:
        """Returns what `_find_own_rows` does, after the first call from memory, because it may read all images."""
        if columns.id or not columns.has_path:
            return ()
        if shard.location not in self._own_rows:
            own_rows = _find_own_rows(file, columns, shard.location)
            self._own_rows[shard.location] = own_rows
            if own_rows:
                _log.warning(
                    "%s: %d rows name different images by one path. The IDs of these images are %s/ROW.",
                    *(shard.location, sum(own != _BY_PATH for own in own_rows), shard.label),
                )
        return self._own_rows[shard.location]

    def _report(self, shard: Shard, columns: _Columns, captions: Iterable[str]) -> None:
        used = [("image", columns.image), *(("caption", name) for name in captions)]
        used += [(role, getattr(columns, role)) for role in ("id", "split", "group") if getattr(columns, role)]
        if str(used) not in self._reported:  # once for all shards with the same columns
            self._reported.add(str(used))
            report_columns(shard.location, used)


# === Columns ===


def _find_columns(schema: Any, location: str, given: CaptionColumns) -> _Columns:
    image = _find_image(schema, location, given.image)
    kind = schema.field(image).type
    is_struct = pa.types.is_struct(kind)
    header = _list_others(schema, image)
    optional = {"id": given.id, "split": given.split, "group": given.group}
    found = find_columns(header, location, (_IMAGE_ID, SPLIT, GROUP), optional)
    return _Columns(
        image,
        f"{image}.bytes" if is_struct else image,
        is_struct and kind.get_field_index("path") >= 0,
        *(found.get(role, "") for role in optional),
    )


def _find_image(schema: Any, location: str, given: str | None) -> str:
    """Returns the column with the bytes of the images; UsageError if there is none, or several."""
    kinds: dict[str, Any] = {field.name: field.type for field in schema}
    structs = [name for name, kind in kinds.items() if _has_bytes(kind)]
    found = structs or [name for name, kind in kinds.items() if _is_binary(kind)]
    if given is not None:
        found = [name for name in kinds if name == given and (_has_bytes(kinds[name]) or _is_binary(kinds[name]))]
    elif len(found) > 1:
        usual = [name for name in found if name.lower() in IMAGE.usual or is_image_name(f"x.{name}")]
        found = usual or found
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} columns" if found else "no column" if given is None else f"no column {given!r}"
    message = f"{problem} with the bytes of images; the columns are {shorten(', '.join(kinds))}"
    raise UsageError(message, location=location, hint="Name the column with --image-column.")


def _list_others(schema: Any, image: str) -> list[str]:
    return [name for name in schema.names if name != image]


def _has_bytes(kind: Any) -> bool:
    return pa.types.is_struct(kind) and (index := kind.get_field_index("bytes")) >= 0 and _is_binary(kind[index].type)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


# === Rows ===


def _find_own_rows(file: Any, columns: _Columns, location: str) -> Sequence[int]:
    """Returns for each row the row that identifies its image: the first one with this path and these bytes.

    `_BY_PATH` marks rows whose path identifies the image, because all rows with it have the same bytes. Returns an
    empty sequence if that is so for all rows. Only row groups with repeated paths are read.
    """
    counts = Counter(path for _, path in _read_paths(file, columns, location))
    repeated = [(row, path) for row, path in _read_paths(file, columns, location) if counts[path] > 1]
    own_rows = array("q", [_BY_PATH]) * file.metadata.num_rows
    for row, _ in repeated:
        own_rows[row.number] = row.number  # stays if the bytes are null or cannot be read
    first: dict[tuple[str, bytes], int] = {}
    paths = {row.number: path for row, path in repeated}
    fields, groups = [f"{columns.image}.path", columns.bytes_path], {row.group for row, _ in repeated}
    for one in read_rows(file, fields, location, groups=groups, batch_size=_IMAGE_ROWS):
        if isinstance(one, FailedRecord) or one.number not in paths or not (data := one.values[columns.image]["bytes"]):
            continue
        own_rows[one.number] = first.setdefault((paths[one.number], hashlib.sha256(data).digest()), one.number)
    images = Counter(path for row, path in repeated if own_rows[row.number] == row.number)
    for row, path in repeated:
        if images[path] == 1:
            own_rows[row.number] = _BY_PATH
    return own_rows if max(images.values(), default=1) > 1 else ()


def _read_paths(file: Any, columns: _Columns, location: str) -> Iterator[tuple[ParquetRow, str]]:
    """Yields the rows whose image has a path."""
    for row in read_rows(file, [f"{columns.image}.path"], location):
        if isinstance(row, ParquetRow) and (path := _get_path(row, columns)):
            yield row, path


def _get_path(row: ParquetRow, columns: _Columns) -> str | None:
    return (row.values.get(columns.image) or {}).get("path") if columns.has_path else None


def _build_row(row: ParquetRow, label: str, columns: _Columns, captions: Iterable[str], own_row: int) -> _Row:
    """Returns a row of a file with this label. `own_row` is its item of `_find_own_rows`."""
    values, path = row.values, _get_path(row, columns)
    number = row.number if own_row == _BY_PATH else own_row
    own = f"{label}/{number}"
    if columns.id:
        image_id = read_identifier(values, columns.id)
    else:
        image_id = read_identifier({"path": path}, "path") if path and own_row == _BY_PATH else own
    group = values.get(columns.group) if columns.group else None
    return _Row(
        row.location,
        image_id,
        f"{label}#{number}" if image_id == own else f"{label}/{image_id}",  # unlike any path below the label
        name_member(row.group, row.position, columns.bytes_path),
        read_split_field(values.get(columns.split)) if columns.split else None,
        "" if group in (None, "") else read_identifier(values, columns.group),
        {name: values.get(name) for name in captions},
    )
