"""Entries: the files in an archive, whatever its format."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from features.io.open_files import FileState

# Integers of tables have 64 bits with a sign; the sizes that archives say may have more.
MAX_SIZE = (1 << 63) - 1


@dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive.

    Args:
        name: str. Its name as a walk tells it.
        member: str. What finds it again, which is its name at least.
        size: int. Bytes, unpacked, as the archive says, up to `MAX_SIZE`.
        stamp: str. Changes whenever the content may have.
    """

    name: str
    member: str
    size: int
    stamp: str


class Archive(Protocol):
    """An archive that is read in place."""

    def entries(self, state: FileState) -> Iterator[ArchiveMember]:
        """The files in it, each name once.

        Args:
            state: State. What the archive was when this began.

        Raises:
            UsageError: it is damaged, or not whole.
        """

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """The bytes of a file in it.

        Args:
            member: str. As an entry has it.
            label: str. What messages call it.
            max_bytes: int. More are refused by their declared number, before they are read or unpacked.

        Raises:
            RecordError: as `Reference.read` tells.
            FileNotFoundError: no such member.
            Exception: nearly any class, where the archive was made to confuse.
        """

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """Reads the first bytes of a file in it.

        Args:
            member: As an entry has it.
            label: What messages call it.
            size: Maximum number of bytes.

        Returns:
            The bytes; fewer if the file is shorter.

        Raises:
            Exception: As `read`.
        """
