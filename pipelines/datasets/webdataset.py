"""Reads WebDataset shards: tar archives whose files with one key are a sample, such as `KEY.jpg` and `KEY.txt`.

Format: https://github.com/webdataset/webdataset. A key is the path of a file up to the first dot after the last slash;
the rest is its field. The caption is the text of the field `txt`, else of `caption`, else the captions in the object of
`json`. The files of a sample need not be neighbors. A sample's ID is its key.

    tar → files in order → samples of a shard, by key (on disk) → image, captions | failure
    Parquet beside the tar (`pipelines.datasets.side_files`) → samples that the tar lacks
"""

import contextlib
import json
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from features.inputs import FileReference, ListedFile
from features.inputs.archives import Tar, open_archive
from features.inputs.image_files import is_image_name
from features.text.byte_order_marks import convert_to_utf8
from features.text.lines import FailedRecord
from features.text.record_fields import (
    DuplicateKey,
    build_failed_record,
    read_record,
    read_value,
    reject_duplicate_keys,
)
from features.text.table_columns import USUAL_CAPTION_COLUMNS, CaptionColumns, list_usual_captions
from pipelines.datasets.base import CaptionEntry, EmbeddedReader, ImageEntry, build_failed_image
from pipelines.datasets.caption_rows import CaptionValue, read_caption_value
from pipelines.datasets.shard_files import Shard, find_shards
from pipelines.datasets.side_files import SUCCESS, read_side_file
from schemas.errors import CaptError, RecordError, UsageError

_JSON = "json"
_TEXT_FIELDS = ("txt", "caption")
_MAX_FIELD_BYTES = 4 << 20
_KEY = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<field>[^/]+)", re.DOTALL)
_HINT = "Name the shards, such as 'shards/{00000..00099}.tar', or their directory."

_MEMBERS = """CREATE TABLE member (key TEXT, position INTEGER, field TEXT, name TEXT, member TEXT, size INT, stamp TEXT,
    data BLOB, reason TEXT, detail TEXT, PRIMARY KEY (key, position)) WITHOUT ROWID"""
_FILES = "CREATE TABLE file (name TEXT, location TEXT, member TEXT, size INT, stamp TEXT, modified_ns INT)"

_log = logging.getLogger("capt.prepare")


class _Member(NamedTuple):
    """A file of a sample: its field, its place in the shard, and its bytes, or why they cannot be read."""

    field: str
    name: str
    member: str
    size: int
    stamp: str
    data: bytes | None
    reason: str
    detail: str


class _Sample(NamedTuple):
    """The files of a shard with one key."""

    location: str
    key: str
    members: list[_Member]


class WebDatasetReader(EmbeddedReader):
    """Reads images and captions in the shards of a WebDataset.

    `columns.image` is the field of the images. `caption_fields` are the fields of the captions, or paths of keys in the
    object of the field `json`, such as `meta.captions`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        columns: CaptionColumns = USUAL_CAPTION_COLUMNS,
        caption_fields: Sequence[str] = (),
    ) -> None:
        if not paths:
            raise UsageError("dataset type webdataset needs shards", location="--annotations", hint=_HINT)
        self._shards = find_shards(paths, [".tar"], expand=True)
        self._image_field = columns.image.lower() if columns.image else None
        self._caption_fields = tuple(caption_fields)
        # Listing a tar once more would cost a pass over it.
        self._files = sqlite3.connect("")
        self._files.execute(_FILES)
        self._not_downloaded: dict[str, Counter[str]] = {}  # by shard and status

    def read_images(self) -> Iterator[ImageEntry]:
        self._files.execute("DELETE FROM file")
        for shard, sample in self._read_shards():
            if isinstance(sample, FailedRecord):
                yield build_failed_image(sample)._replace(document=shard.label)
            else:
                yield self._read_image(shard, sample)

    def list_files(self) -> Iterator[ListedFile]:
        rows = self._files.execute("SELECT * FROM file ORDER BY rowid")
        for name, location, member, size, stamp, modified_ns in rows:
            yield ListedFile(name, FileReference(location, member), size, stamp, modified_ns)

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        read_fields = {_JSON, *(field.lower() for field in self._caption_fields or _TEXT_FIELDS)}
        for shard, sample in self._read_shards(read_fields):
            if isinstance(sample, FailedRecord):
                yield sample
            else:
                yield from self._read_sample_captions(shard, sample)

    def summarize(self) -> dict[str, Any]:
        """Returns `not_downloaded`: the numbers of URLs without a sample by status, if there are side files."""
        counts = sum(self._not_downloaded.values(), Counter[str]())
        return {"not_downloaded": dict(counts.most_common())} if self._not_downloaded else {}

    def _read_shards(self, read_fields: Collection[str] = ()) -> Iterator[tuple[Shard, _Sample | FailedRecord]]:
        """Yields the samples of all shards, as `_read_shard` does. A shard that is not a tar is one failed record.

        Raises:
            UsageError: No shard is a tar.
        """
        problems = []
        for shard in self._shards:
            try:
                archive = open_tar(shard.location)
            except UsageError as error:
                problems.append(error)
                yield shard, FailedRecord(shard.location, "no tar archive", error.message)
            else:
                yield from ((shard, sample) for sample in self._read_shard(shard, archive, read_fields))
        if len(problems) == len(self._shards):
            raise problems[0]

    def _read_shard(self, shard: Shard, archive: Tar, read_fields: Collection[str]) -> Iterator[_Sample | FailedRecord]:
        """Yields the samples of a shard by key, with the bytes of these fields.

        A shard that is incomplete or corrupt is one failed record, after the samples before the fault. So is each
        sample that the shard lacks, although its side file lists it as a success.
        """
        with contextlib.closing(sqlite3.connect("")) as database:
            database.execute(_MEMBERS)
            failure = None
            try:
                _insert_members(database, shard, archive, read_fields)
            except RecordError as error:
                failure = build_failed_record(shard.location, error)
            rows = database.execute(
                "SELECT key, field, name, member, size, stamp, data, reason, detail FROM member ORDER BY key, position"
            )
            for key, some in groupby(rows, lambda row: str(row[0])):
                yield _Sample(shard.location, key, [_Member(*row[1:]) for row in some])
            if failure is not None:
                yield failure
            yield from self._find_missing(shard, database)

    def _find_missing(self, shard: Shard, database: sqlite3.Connection) -> Iterator[FailedRecord]:
        """Yields the samples that only the side file has. URLs that were not downloaded are counted and logged."""
        counts: Counter[str] | None = None
        for row in read_side_file(shard.location):
            counts = Counter() if counts is None else counts
            if database.execute("SELECT 1 FROM member WHERE key = ?", (row.key,)).fetchone():
                continue
            if row.status == SUCCESS:
                yield FailedRecord(f"{shard.location}/{row.key}", "missing", f"{row.location} lists it as a success")
            else:
                counts[row.status] += 1
        if counts is not None and shard.location not in self._not_downloaded:
            self._not_downloaded[shard.location] = counts
            if counts:
                shown = ", ".join(f"{count} {status}" for status, count in counts.most_common())
                _log.info("%s: %d URLs have no sample: %s.", shard.label, counts.total(), shown)

    def _read_image(self, shard: Shard, sample: _Sample) -> ImageEntry:
        try:
            members = _find_image(sample, self._image_field)
        except RecordError as error:
            failure = FailedRecord(f"{sample.location}/{sample.key}", error.reason, error.detail)
            # The root distinguishes this sample from those of other shards with its key.
            return ImageEntry(sample.key, "", shard.split, failure=failure, document=shard.label, root=shard.label)
        for one in members:
            row = (f"{shard.label}/{one.name}", shard.location, one.member, one.size, one.stamp)
            self._files.execute("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", (*row, shard.state.modified_ns))
        return ImageEntry(sample.key, f"{shard.label}/{members[0].name}", shard.split, document=shard.label)

    def _read_sample_captions(self, shard: Shard, sample: _Sample) -> Iterator[CaptionEntry | FailedRecord]:
        location = f"{sample.location}/{sample.key}"
        found = read_record(location, lambda: list(_find_captions(sample, self._caption_fields)))
        if isinstance(found, FailedRecord):
            yield found
            return
        if not found:
            fields = ", ".join(one.field for one in sample.members)
            yield FailedRecord(location, "no caption", f"the fields of the sample are {fields}")
        numbers: dict[str, int] = {}
        for one in found:
            # Captions in files of one name have one ID, so that they are duplicates or contradict each other.
            number = numbers.setdefault(one.location, len(numbers))
            place = f"{location}.{one.location}"
            if isinstance(one, FailedRecord):
                yield replace(one, location=place)
                continue
            entry = read_caption_value(sample.key, str(number), one, place)
            yield entry if isinstance(entry, FailedRecord) else entry._replace(document=shard.label)


class SampleName(NamedTuple):
    """The parts of a file's name: the key of its sample, and its field in lower case."""

    key: str
    field: str


def split_name(name: str) -> SampleName | None:
    """Splits the name of a file in a shard; None if it has no key or no field."""
    match = _KEY.fullmatch(name)
    return SampleName(match["key"], match["field"].lower()) if match else None


def open_tar(location: str) -> Tar:
    """Opens a shard; UsageError if it is not a tar archive, and CaptError if it cannot be read."""
    try:
        archive = open_archive(location)
    except IsADirectoryError:
        raise UsageError("a shard is a tar archive, and this is a directory", location=location, hint=_HINT) from None
    except OSError as error:
        raise CaptError(f"the shard cannot be read: {error.strerror or error}", location=location) from error
    if not isinstance(archive, Tar):
        raise UsageError("a shard is a tar archive, and this is none", location=location, hint=_HINT)
    return archive


def _insert_members(database: sqlite3.Connection, shard: Shard, archive: Tar, read_fields: Collection[str]) -> None:
    def is_wanted(name: str) -> bool:
        sample = split_name(name)
        return sample is not None and sample.field in read_fields

    members = archive.read_in_order(shard.state, is_wanted, _MAX_FIELD_BYTES)
    for position, (member, found) in enumerate(members):
        sample = split_name(member.name)
        if sample is None:
            continue
        data = None if isinstance(found, RecordError) else found
        failure = (found.reason, found.detail) if isinstance(found, RecordError) else ("", "")
        row = (sample.key, position, sample.field, member.name, member.member, member.size, member.stamp)
        database.execute("INSERT INTO member VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, data, *failure))


# === Images ===


def _find_image(sample: _Sample, field: str | None) -> list[_Member]:
    """Returns the files of a sample's image: one, or several of the same name. RecordError without a single image.

    A simple field, such as `jpg`, comes before a compound one, such as `mask.png`.
    """
    if field is not None:
        found = [one for one in sample.members if one.field == field]
    else:
        images = [one for one in sample.members if is_image_name(f"x.{one.field}")]
        found = [one for one in images if "." not in one.field] or images
    if not found:
        known = ", ".join(dict.fromkeys(one.field for one in sample.members))
        raise RecordError("parse", "no image", f"the fields of the sample are {known}")
    names = dict.fromkeys(one.name for one in found)
    if len(names) > 1:
        hint = "; name the field with --image-column" if len({one.field for one in found}) > 1 else ""
        raise RecordError("parse", "several images", f"{' and '.join(names)}{hint}")
    return found


# === Captions ===


def _find_captions(sample: _Sample, fields: Sequence[str]) -> Iterator[CaptionValue | FailedRecord]:
    """Yields the captions of a sample, those of the given fields or else of the first usual field.

    A failed record has its place in the sample as location.
    """
    if not fields:
        present = {one.field for one in sample.members}
        usual = next((field for field in (*_TEXT_FIELDS, _JSON) if field in present), None)
        fields = (usual,) if usual else ()
    for field in fields:
        yield from _read_field(sample, field)


def _read_field(sample: _Sample, field: str) -> Iterator[CaptionValue | FailedRecord]:
    """Yields the captions in a field, or at a path of keys in the field `json`."""
    own = [one for one in sample.members if one.field == field.lower()]
    if own and field.lower() != _JSON:
        for one in own:
            text = read_record(field, partial(_decode, one))
            yield text if isinstance(text, FailedRecord) else CaptionValue(field, "", text)
        return
    first, *rest = field.split(".")
    path = rest if first.lower() == _JSON else [first, *rest]
    for one in sample.members:
        if one.field == _JSON:
            value = read_record(_JSON, partial(_parse, one))
            yield from [value] if isinstance(value, FailedRecord) else _find_texts(value, path, _JSON)


def _find_texts(found: Any, path: Sequence[str], location: str) -> Iterator[CaptionValue | FailedRecord]:
    """Yields the captions at a path of keys in a JSON value, or at the usual keys of an object.

    A list has several. An item of a list without a caption, such as null, is a caption that cannot be read.
    """
    if isinstance(found, list):
        for number, one in enumerate(found):
            place = f"{location}[{number}]"
            yield from list(_find_texts(one, path, place)) or [CaptionValue(place, "", one)]
    elif path:
        place = f"{location}.{path[0]}"
        value = read_record(place, partial(read_value, found, path[0]))
        yield from [value] if isinstance(value, FailedRecord) else _find_texts(value, path[1:], place)
    elif isinstance(found, dict):
        for key in list_usual_captions(list(found)):
            yield from _find_usual(found[key], f"{location}.{key}")
    elif found is not None:
        yield CaptionValue(location, "", found)


def _find_usual(found: Any, location: str) -> Iterator[CaptionValue | FailedRecord]:
    """Yields the captions at a usual key. An object without one is a caption that cannot be read."""
    is_object = isinstance(found, dict)
    yield from list(_find_texts(found, (), location)) or ([CaptionValue(location, "", found)] if is_object else [])


def _parse(member: _Member) -> Any:
    try:
        found = json.loads(_decode(member), object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise RecordError("parse", "not JSON", f"{member.name}: {error}") from None
    if isinstance(found, DuplicateKey):
        raise RecordError("parse", "duplicate key", f"{member.name}: {found.key!r}")
    return found


def _decode(member: _Member) -> str:
    if member.reason:
        raise RecordError("parse", member.reason, member.detail)
    try:
        return convert_to_utf8(member.data or b"").decode()
    except UnicodeDecodeError as error:
        raise RecordError("parse", "not UTF-8", f"{member.name}: byte {error.start + 1}") from None
