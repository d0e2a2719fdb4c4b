"""Objects in buckets as open files."""

import io
import os
from typing import Any

from features.io.object_stores import shorten_error


class ObjectFile(io.RawIOBase):
    """An object as Python's own files are: what goes wrong is an OSError of one line."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._size = int(file.size())
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError("a place before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: Any, /) -> int:
        wanted = max(0, min(len(buffer), self._size - self._position))
        try:
            data = self._file.read_at(wanted, self._position) if wanted else b""
        except OSError as error:
            raise OSError(shorten_error(error)) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
