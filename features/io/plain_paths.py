r"""Creates a second path of a directory that TensorFlow reads literally.

TensorFlow reads the path of a SavedModel as a pattern (`[ ] * ? \`) and allows only ASCII in the path of an asset.
"""

import contextlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import CaptError

_PLAIN = re.compile(r"[A-Za-z0-9/._+=,@~-]+")
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


class PlainPath:
    """A path of a directory without special characters.

    It is the directory's own path if that is plain, otherwise a symbolic link in a temporary directory, which is
    deleted with this object. CaptError if no temporary directory has a plain path.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory.absolute()
        self._end = contextlib.ExitStack()
        if not _is_plain(self.path):
            parent = Path(tempfile.mkdtemp(prefix="capt-", dir=_temporary_directory()))
            self._end.callback(weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True))
            (parent / "link").symlink_to(self.path, target_is_directory=True)
            self.path = parent / "link"

    def close(self) -> None:
        """Deletes the link if it exists."""
        self._end.close()


@contextlib.contextmanager
def plain_path(directory: Path) -> Iterator[Path]:
    """Yields a directory's plain path, as `PlainPath` creates it, while the block runs."""
    with contextlib.closing(PlainPath(directory)) as plain:
        yield plain.path


def _is_plain(path: Path) -> bool:
    return bool(_PLAIN.fullmatch(str(path)))


def _temporary_directory() -> Path:
    default = Path(tempfile.gettempdir()).absolute()
    for directory in (default, *_TEMPORARY):
        if _is_plain(directory) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    message = "TensorFlow cannot read this directory, because no temporary directory has a plain path"
    hint = "Set TMPDIR to a directory whose path is ASCII without [ ] * ? and backslashes."
    raise CaptError(message, location=str(default), hint=hint)
