"""A reference to one encoded image or annotation file, and how to read it."""

import re
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from features.io.open_files import open_file, read_file
from features.io.read_limits import MAX_IMAGE_BYTES
from features.io.uris import is_uri
from features.references.archives import open_archive
from schemas.errors import CaptError, RecordError, to_record_error

# What the readers of files and archives raise on damage.
_DAMAGE = (
    CaptError,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_ESCAPED = re.compile(r"\\x[0-9a-f]{2}")


@dataclass(frozen=True)
class Reference:
    """One file, or a member of an archive.

    Args:
        location: str. Absolute path, or `s3://` or `gs://` address, of the file or of the archive.
        member: str. What finds it within the archive, as a walk tells it; empty for a plain file.
    """

    location: str
    member: str = ""

    @classmethod
    def from_location(cls, name: str) -> "Reference":
        """The reference of a plain file as a user names it, by path or address."""
        return cls(name if is_uri(name) else str(Path(name).absolute()))

    def read(self, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The encoded bytes.

        Args:
            max_bytes: int. More are refused by their declared number, before they are read or unpacked.

        Raises:
            RecordError: stage `read`, with one of the reasons `missing`, `name is not UTF-8`, `too large`, `encrypted`,
                `symbolic link`, `hard link`, `sparse`, `unsupported compression`, `unreadable` and `unexpected: TYPE`;
                none permanent, for other bytes may lie there tomorrow.
        """
        try:
            if self.member:
                return open_archive(self.location).read(self.member, self.label, max_bytes)
            return read_file(self.location, max_bytes)
        except Exception as error:
            raise self._failure(error) from error

    def read_start(self, size: int) -> bytes:
        """Reads the first bytes.

        Args:
            size: Maximum number of bytes.

        Returns:
            The bytes; fewer if the file is shorter.

        Raises:
            RecordError: As `read`.
        """
        try:
            if self.member:
                return open_archive(self.location).read_start(self.member, self.label, size)
            with open_file(self.location, size) as file:
                return file.read(size)
        except Exception as error:
            raise self._failure(error) from error

    @property
    def label(self) -> str:
        """The reference as people write it."""
        return f"{self.location}/{self.member}" if self.member else self.location

    def _failure(self, error: Exception) -> RecordError:
        if isinstance(error, RecordError):
            return error
        if isinstance(error, FileNotFoundError):
            reason = "name is not UTF-8" if self._is_escaped() else "missing"
            return RecordError("read", reason, self.label, permanent=False)
        if isinstance(error, _DAMAGE):
            why = error.message if isinstance(error, CaptError) else error
            return RecordError("read", "unreadable", f"{self.label}: {why}", permanent=False)
        return to_record_error("read", error)

    def _is_escaped(self) -> bool:
        return not self.member and not is_uri(self.location) and bool(_ESCAPED.search(self.location))


@dataclass(frozen=True)
class ListedFile:
    """What a walk found.

    Args:
        name: str. Path relative to what was walked, with slashes.
        reference: Reference. How to read it.
        size: int. Bytes, unpacked.
        stamp: str. Changes whenever the content may have: times and inode of a file, checksum of a zip's member, place
            of a tar's with the tar's times, time and size of an object.
        modified_ns: int. When the file, archive or object last changed, nanoseconds since 1970.
    """

    name: str
    reference: Reference
    size: int
    stamp: str
    modified_ns: int
