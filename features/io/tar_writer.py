"""Writes tar archives whose bytes depend on their members alone: they have no times, owners or modes of this machine.

Names of at most 100 ASCII characters are ustar headers, longer and other ones pax headers.
"""

import contextlib
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO


class TarWriter:
    """Appends files to a tar archive."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add_bytes(self, name: str, data: bytes) -> None:
        """Appends a file with these bytes."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._add(info, BytesIO(data))

    def add_file(self, name: str, path: Path, size: int) -> None:
        """Appends the first `size` bytes of a file."""
        info = tarfile.TarInfo(name)
        info.size = size
        with path.open("rb") as file:
            self._add(info, file)

    def _add(self, info: tarfile.TarInfo, file: BinaryIO) -> None:
        self._archive.addfile(info, file)
        self._archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all.


@contextlib.contextmanager
def open_tar_writer(path: Path) -> Iterator[TarWriter]:
    """Creates a tar archive, and completes it after the block."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        yield TarWriter(archive)
