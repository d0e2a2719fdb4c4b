"""Reads one encoded image or annotation file by reference."""

import hashlib
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.inputs.archives import has_escaped_bytes, open_archive
from features.io.open_files import open_file, read_file
from features.io.uris import is_uri
from schemas.defaults import MAX_IMAGE_BYTES
from schemas.errors import CaptError, RecordError, to_record_error

_CORRUPT_ARCHIVE = (struct.error, zlib.error, zipfile.BadZipFile, tarfile.TarError)
_UNREADABLE = (CaptError, OSError, EOFError, ValueError, NotImplementedError, *_CORRUPT_ARCHIVE)
_IN_ZIP = re.compile(r"(.+?\.zip)/(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class FileReference:
    """A file at an absolute path, `s3://` or `gs://` URI, or a member of an archive or Parquet file there."""

    location: str
    member: str = ""

    @classmethod
    def from_location(cls, name: str) -> "FileReference":
        """Returns the reference of a file that a user names: a path, a URI, or `photos.zip/dog.jpg` in a local zip."""
        if is_uri(name):
            return cls(name)
        path = str(Path(name).absolute())
        inside = _IN_ZIP.fullmatch(path)
        return cls(*inside.groups()) if inside and Path(inside[1]).is_file() else cls(path)

    def read(self, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """Reads the encoded bytes. Their declared number is checked before anything is read or unpacked.

        Raises:
            RecordError: Stage `read`, with a reason of `missing`, `name is not UTF-8`, `too large`, `encrypted`,
                `symbolic link`, `hard link`, `sparse`, `unsupported compression`, `unreadable` and `unexpected: TYPE`;
                never permanent, because the file may change.
        """
        try:
            if self.member:
                return open_archive(self.location).read(self.member, self.label, max_bytes)
            return read_file(self.location, max_bytes)
        except Exception as error:
            raise self._describe_failure(error) from error

    def read_start(self, size: int) -> bytes:
        """Reads at most the first `size` bytes; raises as `read`."""
        try:
            if self.member:
                return open_archive(self.location).read_start(self.member, self.label, size)
            with open_file(self.location, size) as file:
                return file.read(size)
        except Exception as error:
            raise self._describe_failure(error) from error

    @property
    def label(self) -> str:
        """The name in messages."""
        return f"{self.location}/{self.member}" if self.member else self.location

    def _describe_failure(self, error: Exception) -> RecordError:
        if isinstance(error, RecordError):
            return error
        if isinstance(error, FileNotFoundError):
            is_escaped = not self.member and not is_uri(self.location) and has_escaped_bytes(self.location)
            reason = "name is not UTF-8" if is_escaped else "missing"
            return RecordError("read", reason, self.label, permanent=False)
        if isinstance(error, _UNREADABLE):
            detail = error.message if isinstance(error, CaptError) else error
            return RecordError("read", "unreadable", f"{self.label}: {detail}", permanent=False)
        return to_record_error("read", error)


@dataclass(frozen=True)
class ListedFile:
    """A file in a listing.

    The stamp differs whenever the contents may have changed: times and inode of a file, checksum of a zip member,
    position of a tar member with the archive's times, time, size and tag of an object.
    """

    name: str  # path relative to the listed directory, archive or URI, with slashes
    reference: FileReference
    size: int  # number of unpacked bytes
    stamp: str
    modified_ns: int  # last change of the file, archive or object, in nanoseconds since 1970
    has_known_name: bool = True  # whether the encoding of the name is known


def read_source_image(row: Mapping[str, Any] | None) -> bytes | None:
    """Reads the image that a row of `schemas.tables.CATALOG` references; None if it is missing or has changed."""
    if row is None:
        return None
    try:
        data = FileReference(row["location"], row["member"]).read()
    except Exception as error:
        to_record_error("read", error)
        return None
    return data if hashlib.sha256(data).digest() == row["key"] else None
