"""Reads lists of URLs with captions, such as those of LAION, COYO and DataComp, whose images are downloaded.

    Parquet, CSV, TSV, JSON lines → columns of URL, captions, … → rows → images (named by the URL), captions | failure

Files are read in bounded memory; text may be compressed. An image's ID is the SHA-256 of its URL, so one URL in several
rows or files is one image. A caption's ID is that of its row, or else the SHA-256 of its text. So both are independent
of the row order. Many URLs fail, so `--max-failures` is 100% by default.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from reprlib import repr as abbreviate
from typing import Any, NamedTuple

from features.inputs.image_urls import build_download_name
from features.inputs.parquet_rows import open_parquet
from features.inputs.text_files import TextFile
from features.text.csv_rows import read_row_blocks
from features.text.lines import FailedRecord, Line, decode_blocks, shorten
from features.text.record_fields import parse_json_line, read_name, read_record, read_value
from features.text.table_columns import (
    URL,
    USUAL_CAPTION_COLUMNS,
    CaptionColumns,
    FoundColumns,
    find_caption_columns,
    find_columns,
    report_columns,
)
from pipelines.datasets.base import CaptionEntry, DatasetReader, ImageEntry, build_failed_image
from pipelines.datasets.caption_rows import CaptionRow, CaptionValue, FindColumns, build_row, read_caption_value
from pipelines.datasets.csv_file import name_fields
from pipelines.datasets.jsonl import choose_keys
from pipelines.datasets.parquet_table import read_rows
from pipelines.datasets.shard_files import Shard, find_shards
from schemas.defaults import MAX_DOWNLOAD_FAILURES
from schemas.errors import CaptError, RecordError, UsageError
from schemas.secrets import strip_user

# Without a readable line, the columns make no difference.
_ANY_COLUMNS = FoundColumns("url", (), None, None, None)
_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")  # MD5, SHA-1, SHA-256


class UrlRow(NamedTuple):
    """A row. `fields.image` is the ID of the image, `file_name` the name of its download.

    `expected_hash` is that of its bytes, empty if the row has none.
    """

    url: str
    file_name: str
    expected_hash: str
    fields: CaptionRow


class UrlReader(DatasetReader):
    """Reads captions with the URLs of their images. A row without a URL has failed, also as an image."""

    max_failures = MAX_DOWNLOAD_FAILURES
    has_urls = True

    def __init__(self, paths: Sequence[str], columns: CaptionColumns = USUAL_CAPTION_COLUMNS) -> None:
        if not paths:
            hint = "Name the files with the URLs, or their directory."
            raise UsageError("dataset type urls needs lists of URLs", location="--annotations", hint=hint)
        self._shards = find_shards(paths, list(_READERS), expand=True)
        self._given = columns
        self._reported: set[FoundColumns] = set()

    def read_images(self) -> Iterator[ImageEntry]:
        for shard, row in self.read_rows():
            if isinstance(row, FailedRecord):
                yield build_failed_image(row)._replace(document=shard.label)
            else:
                yield ImageEntry(
                    row.fields.image,
                    row.file_name,
                    row.fields.split or shard.split,
                    url=row.url,
                    document=shard.label,
                    group=row.fields.group,
                    expected_hash=row.expected_hash,
                )

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        for shard, row in self.read_rows():
            for entry in [row] if isinstance(row, FailedRecord) else read_row_captions(row):
                yield entry if isinstance(entry, FailedRecord) else entry._replace(document=shard.label)

    @property
    def shards(self) -> Sequence[Shard]:
        """The files of the list, in the order of their rows."""
        return self._shards

    def read_rows(self) -> Iterator[tuple[Shard, UrlRow | FailedRecord]]:
        """Yields the rows of all files in their order."""
        for shard in self._shards:
            yield from ((shard, row) for row in self._read_file_rows(shard))

    def _read_file_rows(self, shard: Shard) -> Iterator[UrlRow | FailedRecord]:
        suffix = next((one for one in _READERS if shard.location.lower().endswith(one)), None)
        if suffix is None:
            message = f"the name ends in none of .parquet, {', '.join(_TEXT_READERS)}"
            raise UsageError(message, location=shard.location, hint="Rename the file according to its format.")
        return _READERS[suffix](shard.location, self._find_columns)

    def _find_columns(self, location: str, header: Sequence[str]) -> FoundColumns:
        """Returns the columns of a file, and logs them once for all files with the same ones."""
        columns = find_caption_columns(header, location, self._given, URL)
        if columns not in self._reported:
            self._reported.add(columns)
            report_columns(location, columns.list_roles())
        return columns


def read_row_captions(row: UrlRow) -> Iterator[CaptionEntry | FailedRecord]:
    """Yields the captions of a row. A row without a caption has failed."""
    fields = row.fields
    if not fields.captions:
        yield FailedRecord(fields.location, "no caption", shorten(strip_user(row.url)))
    for one in fields.captions:
        caption_id = f"{fields.own_id}{one.suffix}" if fields.own_id else _hash_caption(one)
        yield read_caption_value(fields.image, caption_id, one, f"{fields.location}: {one.location}")


def _hash_caption(caption: CaptionValue) -> str:
    return hashlib.sha256(str(caption.value).encode("utf-8", "surrogatepass")).hexdigest()


# === Formats ===


def _read_parquet(location: str, find_columns: FindColumns) -> Iterator[UrlRow | FailedRecord]:
    """Yields the rows of a Parquet file. A file that is not Parquet is one failed record."""
    try:
        file = open_parquet(location)
    except RecordError as error:
        yield FailedRecord(location, error.reason, error.detail)
        return
    columns = find_columns(location, file.schema_arrow.names)
    for row in read_rows(file, columns.names, location):
        yield row if isinstance(row, FailedRecord) else _read_row(row.location, row.values, columns)


def _read_csv(delimiter: str, location: str, find_columns: FindColumns) -> Iterator[UrlRow | FailedRecord]:
    """Yields the rows of a text file with a header. A file without one is one failed record."""
    text = TextFile(location)
    rows = read_row_blocks(text, location, delimiter)
    header = next(rows, None)
    if header is None or isinstance(header, FailedRecord):
        reason = f"{header.reason}: {header.detail}" if header else "the file is empty"
        yield text.failure or FailedRecord(location, "no header", reason)
        return
    columns = find_columns(location, header.fields)
    for row in rows:
        values = row if isinstance(row, FailedRecord) else name_fields(row, header.fields)
        yield values if isinstance(values, FailedRecord) else _read_row(row.location, values, columns)
    if text.failure:
        yield text.failure


def _read_json_lines(location: str, find_columns: FindColumns) -> Iterator[UrlRow | FailedRecord]:
    """Yields the rows of JSON lines. The columns are the keys in the first block of the text with an object."""
    text = TextFile(location)
    keys = next(filter(None, (_find_keys(block, location) for block in text)), None)
    columns = find_columns(location, keys) if keys else _ANY_COLUMNS
    for line in decode_blocks(text, location):
        yield line if isinstance(line, FailedRecord) else _read_row(line.location, parse_json_line(line), columns)
    if text.failure:
        yield text.failure


def _find_keys(block: bytes, location: str) -> Sequence[str]:
    return choose_keys(parse_json_line(line) for line in decode_blocks([block], location) if isinstance(line, Line))


# By the end of a file's name. Text is compressed if its first bytes are those of gzip, zstd or bzip2.
_TEXT_READERS: dict[str, Callable[[str, FindColumns], Iterator[UrlRow | FailedRecord]]] = {
    ".csv": partial(_read_csv, ","),
    ".tsv": partial(_read_csv, "\t"),
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
_READERS = {
    ".parquet": _read_parquet,
    **{f"{suffix}{packed}": read for suffix, read in _TEXT_READERS.items() for packed in ("", ".gz", ".zst", ".bz2")},
}
SUFFIXES = tuple(_READERS)


def has_urls(location: str, given: CaptionColumns) -> bool:
    """Returns whether a list, whose name ends in one of `SUFFIXES`, has a column of URLs; False if it has no header."""
    names: list[str] = []

    def keep_names(location: str, header: Sequence[str]) -> FoundColumns:
        names.extend(header)
        return _ANY_COLUMNS

    suffix = next(one for one in _READERS if location.lower().endswith(one))
    try:
        next(_READERS[suffix](location, keep_names), None)
        find_columns(names, location, [URL], {URL.name: given.image})
    except CaptError:
        return False
    return True


# === Rows ===


def _read_row(location: str, values: Any, columns: FoundColumns) -> UrlRow | FailedRecord:
    if isinstance(values, FailedRecord):
        return values
    return read_record(location, partial(_build_row, location, values, columns))


def _build_row(location: str, values: Mapping[str, Any], columns: FoundColumns) -> UrlRow:
    """Returns the row of values by column. RecordError without a URL, or if a value is wrong."""
    is_missing = isinstance(values, dict) and columns.image not in values
    url = None if is_missing else read_value(values, columns.image)
    if not isinstance(url, str) or "://" not in url:
        raise RecordError("parse", "no URL", abbreviate(url))
    url = read_name({"URL": url.strip()}, "URL")
    file_name = build_download_name(url)
    image_id = file_name.rpartition("/")[2]
    expected_hash = _read_hash(values.get(columns.hash)) if columns.hash else ""
    fields = build_row(location, {**values, columns.image: image_id}, columns)
    return UrlRow(url, file_name, expected_hash, fields)


def _read_hash(found: Any) -> str:
    """Returns the expected hash of an image in lower case; empty if it is null or without text."""
    if found is None or (isinstance(found, str) and not found.strip()):
        return ""
    expected = found.strip().lower() if isinstance(found, str) else ""
    if not _HASH.fullmatch(expected):
        raise RecordError("parse", "bad hash", f"not MD5, SHA-1 or SHA-256 in hexadecimal digits: {abbreviate(found)}")
    return expected
