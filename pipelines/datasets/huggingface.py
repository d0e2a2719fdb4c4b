"""Reads Parquet files with a column of encoded images, as the library `datasets` and img2dataset write them.

Format: https://huggingface.co/docs/datasets/image_dataset. The column of images contains bytes, or structures of bytes
and path. Captions are a column of text or lists of text, or several columns (`pipelines.datasets.caption_rows`).

    Parquet → IDs, splits and captions of the rows, by row group → image (read by row group), captions | failure
"""

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
from features.text.record_fields import read_caption, read_identifier, read_record, read_split_field
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
from pipelines.datasets.caption_rows import read_captions
from pipelines.datasets.shard_files import Shard, find_shards
from schemas.errors import RecordError, UsageError

_ROWS = 4096
_IMAGE_ID = ColumnRole(
    "id",
    (
        *("image_id", "img_id", "imgid", "id", "key", "__key__", "cocoid", "file_name", "filename", "image_name"),
        *("image_path", "filepath", "file_path", "path"),
    ),
    required=False,
)


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

    Without a column of IDs, the ID is the path in the structure, or else the number of the row in its file.
    """

    def __init__(self, paths: Sequence[str], columns: CaptionColumns = USUAL_CAPTION_COLUMNS) -> None:
        if not paths:
            hint = "Name the Parquet files, or their directory."
            raise UsageError("dataset type huggingface needs Parquet files", location="--annotations", hint=hint)
        self._shards = find_shards(paths, [".parquet"])
        self._given = columns
        self._reported: set[str] = set()

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
        found = read_record(row.location, lambda: read_captions(row.values, list(row.values)))
        if isinstance(found, FailedRecord):
            yield found
            return
        if not found:
            yield FailedRecord(row.location, "no caption", f"all captions of {shorten(row.image_id)} are null")
        for one in found:
            number = str(counts[row.image_id])
            counts[row.image_id] += 1
            yield read_record(
                f"{row.location}: {one.location}", partial(_build_caption, row.image_id, number, one.value)
            )

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
        number = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            read = _read_group(file, group, rows, [*columns.small, *captions], shard.location, number)
            for position, values in enumerate(read):
                location = f"{shard.location}: row {number + position + 1}"
                if isinstance(values, FailedRecord):
                    yield values
                    continue
                member = name_member(group, position, columns.bytes_path)
                texts = {name: values.get(name) for name in captions}
                build = partial(_build_row, location, shard.label, number + position, member, values, columns, texts)
                yield read_record(location, build)
            number += rows

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


def _read_group(
    file: Any, group: int, rows: int, columns: Sequence[str], location: str, before: int
) -> Iterator[dict[str, Any] | FailedRecord]:
    """Yields the values of each row of a row group. Rows that cannot be read have failed.

    `before` is the number of rows in the groups before.
    """
    done = 0
    try:
        batches = file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=list(columns)) if columns else ()
        for batch in batches:
            for values in _list_values(batch, location, before + done):
                yield values
                done += 1
        yield from ({} for _ in range(rows if not columns else 0))
    # ValueError: corrupt pages; OSError: corrupt compression.
    except (pa.ArrowException, OSError, ValueError) as error:
        for number in range(before + done, before + rows):
            yield FailedRecord(f"{location}: row {number + 1}", "unreadable", f"row group {group}: {error}")


def _list_values(batch: Any, location: str, before: int) -> Iterator[dict[str, Any] | FailedRecord]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # Fails before the first row is yielded.
        for number in range(batch.num_rows):
            one = batch.slice(number, 1)
            values = read_record(f"{location}: row {before + number + 1}", one.to_pylist)
            yield values if isinstance(values, FailedRecord) else values[0]


def _build_row(
    location: str,
    label: str,
    number: int,
    member: str,
    values: Mapping[str, Any],
    columns: _Columns,
    captions: Mapping[str, Any],
) -> _Row:
    own = f"{label}/{number}"
    path = (values.get(columns.image) or {}).get("path") if columns.has_path else None
    if columns.id:
        image_id = read_identifier(values, columns.id)
    else:
        image_id = read_identifier({"path": path}, "path") if path else own
    group = values.get(columns.group) if columns.group else None
    return _Row(
        location,
        image_id,
        own if image_id == own else f"{label}/{image_id}",
        member,
        read_split_field(values.get(columns.split)) if columns.split else None,
        "" if group in (None, "") else read_identifier(values, columns.group),
        captions,
    )


def _build_caption(image_id: str, caption_id: str, found: Any) -> CaptionEntry:
    return CaptionEntry(image_id, caption_id, read_caption(found))
