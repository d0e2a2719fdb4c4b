"""Lists the first files of a path: a directory, archive, bucket prefix, pattern of shards or single file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from features.inputs import FileReference, ListedFile, is_collection, list_files
from features.inputs.archives import Tar, escape_bytes, open_archive
from features.inputs.image_files import is_image_name, starts_as_image
from features.inputs.natural_order import natural_key
from features.io.brace_patterns import has_braces
from features.io.objects import classify_uri, stat_object
from features.io.open_files import open_file, stat_file
from features.io.uris import is_uri
from pipelines.datasets.shard_files import find_shards
from schemas.errors import CaptError, RecordError, UsageError

_MAX_FILES = 100_000
_MAX_MEMBERS = 50_000  # of a tar, whose headers are read one by one
_MAX_OBJECTS = 10_000
_MAX_INNER_ARCHIVES = 8
_MAX_REMOTE_MEMBERS = 500  # Listing a tar in a bucket reads it.
_MAX_READ_STARTS = 100
_ARCHIVES = (".zip", ".tar")
_OTHER_ARCHIVES = (".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


class Contents(NamedTuple):
    """The first files of a path, in the order of their names.

    Attributes:
        path: The path as a command would name it.
        kind: `directory`, `zip archive`, `tar archive`, `bucket prefix`, `pattern of shards` or `file`.
        files: The first ones; a `file` has itself.
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

    def find_files(self, suffixes: Sequence[str]) -> list[ListedFile]:
        """Returns the files with one of the suffixes, which are in lower case."""
        return [one for one in self.files if one.name.lower().endswith(tuple(suffixes))]

    def name_path(self, file: ListedFile) -> str:
        """Returns the path of one of the files, as a command would name it; that of an archive has no own path."""
        if self.kind == "file" or self.is_archive:
            return self.path
        return file.reference.location if self.kind == "pattern of shards" else f"{self.path.rstrip('/')}/{file.name}"

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


def list_contents(path: str) -> list[Contents]:
    """Lists a path, and the archives in it if it is a directory or prefix.

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
    if own.is_archive or own.kind not in ("directory", "bucket prefix"):
        return [own]
    named = [own.name_path(one) for one in own.find_files(_ARCHIVES)[:_MAX_INNER_ARCHIVES]]
    return [own, *map(_list_path, named)]


def _list_path(path: str) -> Contents:
    if escape_bytes(path) != path:
        raise UsageError("the path is not UTF-8", location=escape_bytes(path), hint="Rename the file or directory.")
    kind = _find_kind(path)
    files: Iterator[ListedFile]
    if kind == "pattern of shards":
        shard = find_shards([path], [".tar"], expand=True)[0]
        files = iter([ListedFile(shard.label, FileReference(shard.location), 0, shard.state.version, 0)])
    elif kind == "file":
        files = iter([_stat(path)])
    else:
        files = _list_tar(path) if kind == "tar archive" else list_files(path)
    limit = _MAX_MEMBERS if kind == "tar archive" else _MAX_FILES
    if is_uri(path):
        limit = _MAX_REMOTE_MEMBERS if kind == "tar archive" else _MAX_OBJECTS
    try:
        found = list(islice(files, limit + 1))
    except RecordError as error:
        message = f"the archive is corrupt or incomplete: {error.detail}"
        raise UsageError(message, location=path, hint="Download or pack it again.") from error
    found, is_complete = found[:limit], len(found) <= limit
    found.sort(key=lambda one: natural_key(one.name))
    return Contents(path, kind, tuple(found), tuple(_find_images(found)), is_complete)


def _find_kind(path: str) -> str:
    is_directory = classify_uri(path) == "directory" if is_uri(path) else Path(path).is_dir()
    if is_directory:
        return "bucket prefix" if is_uri(path) else "directory"
    if not (classify_uri(path) if is_uri(path) else path and Path(path).exists()):
        if has_braces(path):
            return "pattern of shards"
        raise UsageError("no such file or directory", location=path or "PATH", hint="Check the path.")
    is_file = not is_collection(path)
    try:
        if is_file:
            open_file(path).close()
            return "file"
        archive = open_archive(str(path if is_uri(path) else Path(path).absolute()))
    except OSError as error:
        kind = "file" if is_file else "archive"
        raise CaptError(f"the {kind} cannot be read: {error.strerror or error}", location=path) from error
    return "tar archive" if isinstance(archive, Tar) else "zip archive"


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
    size = stat_object(path).size if is_uri(path) else Path(path).stat().st_size
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
