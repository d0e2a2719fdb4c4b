"""Lists the first files of a path: a directory, archive, bucket prefix, pattern of shards or single file."""

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from features.inputs import FileReference, ListedFile, is_collection, list_files
from features.inputs.archives import Tar, escape_bytes, open_archive
from features.inputs.image_files import is_image_name, starts_as_image
from features.inputs.natural_order import natural_key
from features.inputs.npy_arrays import PICKLE_PROBLEM, is_pickle_name
from features.io.brace_patterns import expand_braces, has_braces
from features.io.objects import classify_uri, stat_object
from features.io.open_files import open_file, stat_file
from features.io.uris import is_uri
from pipelines.inspection.problems import Problems
from schemas.errors import CaptError, RecordError, UsageError

_MAX_FILES = 100_000
_MAX_MEMBERS = 50_000  # of a tar, whose headers are read one by one
_MAX_OBJECTS = 10_000
_MAX_OPENED = 8  # archives of a directory
_MAX_REMOTE_MEMBERS = 500  # Listing a tar in a bucket reads it.
_MAX_READ_STARTS = 100
_ARCHIVES = (".zip", ".tar")
_OTHER_ARCHIVES = (".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_PACKED_ARCHIVES = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_HINTS = {errno.ESPIPE: "Write it to a file first.", errno.ENAMETOOLONG: "Check the path."}
_PATTERN = "pattern of shards"
_PATTERN_PROBLEM = "a pattern names tars with samples, or lists of URLs. Name the directory, or the files."


class Contents(NamedTuple):
    """The first files of a path, in the order of their names.

    Attributes:
        path: The path as a command would name it.
        kind: `directory`, `zip archive`, `tar archive`, `bucket prefix`, `pattern of shards` or `file`; `archive` if it
            was not opened.
        files: The first ones; a `file` has itself, and a pattern the first file that it names.
        images: The files that are images.
        is_complete: Whether these are all files.
    """

    path: str
    kind: str
    files: tuple[ListedFile, ...]
    images: tuple[ListedFile, ...]
    is_complete: bool

    @property
    def is_archive(self) -> bool:
        return self.kind.endswith("archive")

    @property
    def is_pattern(self) -> bool:
        return self.kind == _PATTERN

    @property
    def is_opened(self) -> bool:
        return self.kind != "archive"

    @property
    def may_have_images(self) -> bool:
        """Whether it is a directory, prefix or archive with images, or an archive beside such archives."""
        return self.kind not in ("file", _PATTERN) and bool(self.images or not self.is_opened)

    def find_files(self, suffixes: Sequence[str]) -> list[ListedFile]:
        """Returns the files with one of the suffixes, which are in lower case."""
        return [one for one in self.files if one.name.lower().endswith(tuple(suffixes))]

    def name_path(self, file: ListedFile) -> str:
        """Returns the path of one of the files, as a command would name it; that of an archive has no own path."""
        return self.path if self.is_archive else self.label_file(file)

    def label_file(self, file: ListedFile) -> str:
        """Returns the path of one of the files for messages, also of one in an archive."""
        return self.path if self.kind in ("file", _PATTERN) else f"{self.path.rstrip('/')}/{file.name}"

    def describe(self) -> dict[str, object]:
        """Returns path, kind, the numbers of files and images, and the files by suffix, the most frequent first."""
        suffixes = Counter(PurePosixPath(one.name).suffix.lower() for one in self.files)
        return {
            "path": self.path,
            "kind": self.kind,
            "files": len(self.files),
            "images": len(self.images),
            "complete": self.is_complete,
            "suffixes": dict(suffixes.most_common()),
        }


def list_contents(path: str, problems: Problems) -> list[Contents]:
    """Lists a path, and the archives in it if it is a directory or prefix.

    `problems` gets those of files that no reader reads, whatever they contain.

    Raises:
        UsageError: The path does not exist, is empty, or is a compressed, corrupt or nested archive.
        CaptError: The path cannot be read.
    """
    own = _list_path(path)
    if not own.files:
        raise UsageError(f"the {own.kind} contains no file", location=path, hint="Check the path.")
    inner = own.find_files((*_ARCHIVES, *_OTHER_ARCHIVES))
    if own.is_archive and len(inner) == len(own.files):
        message = f"archives in an archive cannot be read in place: {inner[0].name}"
        raise UsageError(message, location=path, hint="Unpack the outer archive.")
    for file, problem in _find_problems(own):
        problems.add(own.label_file(file), problem)
    if own.is_archive or own.kind not in ("directory", "bucket prefix"):
        return [own]
    return [own, *_list_archives([own.name_path(one) for one in own.find_files(_ARCHIVES)], problems)]


def _find_problems(contents: Contents) -> Iterator[tuple[ListedFile, str]]:
    """Yields the files that no reader reads, each with its problem."""
    if contents.kind == "file":
        yield from ((one, "a single image is not a dataset. Name its directory.") for one in contents.images)
    if contents.is_pattern:
        yield from ((one, _PATTERN_PROBLEM) for one in contents.files)
    for one in contents.find_files(_PACKED_ARCHIVES):
        yield one, "an archive of this kind cannot be read in place. Unpack it."
    for one in contents.files:
        if is_pickle_name(one.name):
            yield one, f"{PICKLE_PROBLEM}. Save arrays with numpy.save, and tables as CSV or Parquet."


def _list_archives(paths: Sequence[str], problems: Problems) -> list[Contents]:
    """Lists the first archives of a directory. The others are assumed to contain images if each of the first does."""
    opened: list[Contents] = []
    for path in paths[:_MAX_OPENED]:
        try:
            opened.append(_list_path(path))
        except CaptError as error:
            problems.add(path, str(error))
    if opened and all(one.images for one in opened):
        return [*opened, *(Contents(path, "archive", (), (), is_complete=False) for path in paths[_MAX_OPENED:])]
    for path in paths[_MAX_OPENED:]:
        problems.add(path, f"only the first {_MAX_OPENED} archives of a directory are opened")
    return opened


def identify_path(path: str) -> str:
    """Returns the absolute form of a path, which is one for all ways to write it."""
    return path.rstrip("/") if is_uri(path) else str(Path(path).absolute())


def find_distinct(paths: Iterable[str]) -> list[str]:
    """Returns the paths without those that name a path before them in another way."""
    distinct: dict[str, str] = {}
    for path in paths:
        distinct.setdefault(identify_path(path), path)
    return list(distinct.values())


def _list_path(path: str) -> Contents:
    if escape_bytes(path) != path:
        raise UsageError("the path is not UTF-8", location=escape_bytes(path), hint="Rename the file or directory.")
    kind = _find_kind(path)
    if kind in ("file", _PATTERN):
        named = expand_braces(path) if kind == _PATTERN else [path]
        file = _stat(named[0])
        return Contents(path, kind, (file,), tuple(_find_images([file])), is_complete=len(named) == 1)
    limit = _MAX_MEMBERS if kind == "tar archive" else _MAX_FILES
    if is_uri(path):
        limit = _MAX_REMOTE_MEMBERS if kind == "tar archive" else _MAX_OBJECTS
    try:
        found = list(islice(_list_tar(path) if kind == "tar archive" else list_files(path), limit + 1))
    except RecordError as error:
        message = f"the archive is corrupt or incomplete: {error.detail}"
        raise UsageError(message, location=path, hint="Download or pack it again.") from error
    found, is_complete = found[:limit], len(found) <= limit
    found.sort(key=lambda one: natural_key(one.name))
    return Contents(path, kind, tuple(found), tuple(_find_images(found)), is_complete)


def _find_kind(path: str) -> str:
    try:
        found = classify_uri(path) if is_uri(path) else _classify_local(path)
        if found == "directory":
            return "bucket prefix" if is_uri(path) else "directory"
        if found == "file":
            return _open_kind(path)
    except OSError as error:
        raise _describe_unreadable(path, error) from error
    if has_braces(path):
        return _PATTERN
    raise UsageError("no such file or directory", location=path or "PATH", hint="Check the path.")


def _classify_local(path: str) -> str | None:
    return "directory" if Path(path).is_dir() and path else "file" if Path(path).exists() and path else None


def _open_kind(path: str) -> str:
    """Returns the kind of a file or archive. OSError if it cannot be opened."""
    if not is_collection(path):
        open_file(path).close()
        return "file"
    archive = open_archive(str(path if is_uri(path) else Path(path).absolute()))
    return "tar archive" if isinstance(archive, Tar) else "zip archive"


def _describe_unreadable(path: str, error: OSError) -> CaptError:
    kind = UsageError if error.errno in _HINTS else CaptError
    message = f"it cannot be read: {error.strerror or error}"
    return kind(message, location=path, hint=_HINTS.get(error.errno or 0, ""))


def _list_tar(path: str) -> Iterator[ListedFile]:
    """Yields the files of a tar in its order, so that only its start is read."""
    location = path if is_uri(path) else str(Path(path).absolute())
    archive, state = open_archive(location), stat_file(location)
    assert isinstance(archive, Tar)
    for member, _ in archive.read_in_order(state, lambda name: False, 0):
        reference = FileReference(location, member.member)
        yield ListedFile(member.name, reference, member.size, member.stamp, state.modified_ns, member.has_known_name)


def _stat(path: str) -> ListedFile:
    reference = FileReference.from_location(path)
    try:
        size = stat_object(path).size if is_uri(path) else Path(path).stat().st_size
    except FileNotFoundError as error:  # the first file of a pattern
        raise UsageError("no such file or directory", location=path, hint="Check the path or pattern.") from error
    except OSError as error:
        raise _describe_unreadable(path, error) from error
    return ListedFile(PurePosixPath(path).name, reference, size, "", 0)


def _find_images(files: Sequence[ListedFile]) -> Iterator[ListedFile]:
    unknown = 0
    for one in files:
        by_name = is_image_name(one.name)
        if by_name is None and unknown < _MAX_READ_STARTS:
            unknown += 1
            by_name = starts_as_image(one.reference)
        if by_name:
            yield one
