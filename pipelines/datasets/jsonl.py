"""Reads JSON lines: one object per line, with an image and one or more captions (`pipelines.datasets.caption_rows`)."""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from features.text.lines import FailedRecord, Line
from features.text.record_fields import parse_json_line, read_name
from features.text.table_columns import FoundColumns
from pipelines.datasets.annotation_files import AnnotationFile
from pipelines.datasets.caption_rows import CaptionRow, CaptionTableReader, FindColumns, build_row

# Without a readable line, the columns make no difference.
_USUAL = ["image", "caption"]


class JsonLinesReader(CaptionTableReader):
    """Reads captions in files of JSON lines."""

    dataset_type = "jsonl"
    pattern = re.compile(r"\.(jsonl|ndjson)$", re.IGNORECASE)
    pattern_text = "*.jsonl"
    example = "captions.jsonl"

    def read_file_rows(self, document: AnnotationFile) -> Iterator[CaptionRow | FailedRecord]:
        return read_jsonl_rows(document, self.find_columns)


def read_jsonl_rows(document: AnnotationFile, find_columns: FindColumns) -> Iterator[CaptionRow | FailedRecord]:
    """Yields the rows of a file of JSON lines, and those that cannot be read."""
    columns = find_columns(document.location, choose_keys(document.read_records(parse_json_line)) or _USUAL)
    yield from document.read_records(partial(_read_line, columns))


def choose_keys(records: Iterable[Any]) -> list[str]:
    """Returns the keys of the objects among JSON values. Of `image` and `Image`, it is the lowercase one."""
    keys: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            keys.update(dict.fromkeys(record))
    return [key for key in keys if key == key.lower() or key.lower() not in keys]


def _read_line(columns: FoundColumns, line: Line) -> CaptionRow | FailedRecord:
    record = parse_json_line(line)
    if isinstance(record, FailedRecord):
        return record
    read_name(record, columns.image)
    return build_row(line.location, record, columns)
