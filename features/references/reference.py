"""A reference to one encoded image or annotation file, and how to read it."""

import re
from dataclasses import dataclass
from pathlib import Path

from features.references.archives import open_archive
from features.references.limits import MAX_IMAGE_BYTES
from features.references.names import is_address
from features.references.places import read_place
from schemas.errors import CaptError, RecordError

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
    def of(cls, name: str) -> "Reference":
        """The reference of a plain file as a user names it, by path or address."""
        return cls(name if is_address(name) else str(Path(name).absolute()))

    def read(self, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The encoded bytes.

        Args:
            max_bytes: int. More are refused by their declared number, before they are read or unpacked.

        Raises:
            RecordError: stage `read`, with one of the reasons `missing`, `name is not UTF-8`, `too large`, `encrypted`,
                `symbolic link`, `hard link`, `sparse`, `unsupported compression` and `unreadable`; none permanent, for
                other bytes may lie there tomorrow.
        """
        try:
            if self.member:
                return open_archive(self.location).read(self.member, self.label, max_bytes)
            return read_place(self.location, max_bytes)
        except RecordError:
            raise
        except FileNotFoundError as error:
            reason = "name is not UTF-8" if self._is_escaped() else "missing"
            raise RecordError("read", reason, self.label, permanent=False) from error
        except Exception as error:  # zipfile and tarfile raise nearly any class on what was made to confuse them.
            why = error.what if isinstance(error, CaptError) else error
            raise RecordError("read", "unreadable", f"{self.label}: {why}", permanent=False) from error

    @property
    def label(self) -> str:
        """The reference as people write it."""
        return f"{self.location}/{self.member}" if self.member else self.location

    def _is_escaped(self) -> bool:
        return not self.member and not is_address(self.location) and bool(_ESCAPED.search(self.location))


@dataclass(frozen=True)
class Found:
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
