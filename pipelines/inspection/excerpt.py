"""Copies the beginning of large files, so that the reader of a dataset reads little.

    text      the first `_MAX_BYTES` bytes, to the end of a line       JSON      the whole file, up to a limit
    tar       the texts of the first members; images are empty         Parquet   the first rows
    images    empty files of the same names, some per directory

Small local files are read where they are. The copies have at most `_MAX_COPIED_BYTES`.
"""

import codecs
import contextlib
import io
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from features.inputs import FileReference, ListedFile
from features.inputs.archives import Tar, find_unpack_command, open_archive
from features.inputs.image_files import is_image_name
from features.io.open_files import stat_file
from features.io.uris import is_uri
from pipelines.datasets.annotation_files import remove_gzip_suffix
from pipelines.inspection.contents import Contents
from schemas.errors import CaptError, RecordError, UsageError

_MAX_BYTES = 4 << 20
_MAX_JSON_BYTES = 256 << 20
_MAX_PACKED_JSON_BYTES = 160 << 20  # more than the largest of Karpathy's files
_MAX_COPIED_BYTES = 256 << 20
_MAX_MEMBERS = 500
_MAX_FIELD_BYTES = 1 << 20
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE begins as UTF-16-LE
_ROWS = 8  # decoded at a time, with their images
_MAX_IMAGES = 500
_IMAGES_PER_DIRECTORY = 5


class Excerpt:
    """The beginning of a dataset, in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._places: dict[tuple[str, str], Path] = {}  # directories of copies, by use and original path
        self._copied: dict[Path, FileReference] = {}
        self._left = _MAX_COPIED_BYTES

    def restore(self, text: str) -> str:
        """Returns a text with the original paths in place of those of copies."""
        for (_, original), place in self._places.items():
            text = text.replace(f"{place}/", f"{original}/" if original else "").replace(str(place), original)
        return text

    def copy_file(self, contents: Contents, file: ListedFile) -> str:
        """Returns the path of a file with the beginning of an annotation file, or of the file itself if it is small.

        CaptError if it cannot be read.
        """
        if _is_read_in_place(file):
            return contents.name_path(file)
        return str(self._copy(self._place("files", _find_parent(contents)), file))

    def copy_files(self, contents: Contents, files: Iterable[ListedFile]) -> str:
        """Returns a directory with the beginning of annotation files, each under its name."""
        place = self._place("together", _find_parent(contents))
        for one in files:
            self._copy(place, one)
        return str(place)

    def copy_images(self, contents: Contents) -> str:
        """Returns a directory with empty files that have the names of images."""
        directories = Counter[str]()
        chosen: list[ListedFile] = []
        others: list[ListedFile] = []
        for one in contents.images:
            directories[parent := str(PurePosixPath(one.name).parent)] += 1
            (chosen if directories[parent] <= _IMAGES_PER_DIRECTORY else others).append(one)
        place = self._place("images", contents.path.rstrip("/"))
        for one in [*chosen, *others][:_MAX_IMAGES]:
            with contextlib.suppress(CaptError):
                self._write(self._make_path(place, one), one, b"")
        return str(place)

    def copy_metadata(self, contents: Contents, files: Iterable[ListedFile]) -> str:
        """Returns the directory of `copy_images` with the beginning of these metadata files."""
        place = Path(self.copy_images(contents))
        for one in files:
            self._copy(place, one)
        return str(place)

    def copy_tar(self, location: str) -> str:
        """Returns the path of a tar with the first members of a tar."""
        archive = open_archive(location)
        if not isinstance(archive, Tar):
            raise UsageError("a shard is a tar archive, and this is none", location=location, hint="Check the path.")
        directory, _, name = location.rpartition("/")
        path = self._place("shards", directory) / name
        members = archive.read_in_order(
            stat_file(location), lambda member: is_image_name(member) is False, _MAX_FIELD_BYTES
        )
        with tarfile.open(path, "w") as copied, contextlib.suppress(RecordError):
            for member, data in islice(members, _MAX_MEMBERS):
                info = tarfile.TarInfo(member.name)
                text = data if isinstance(data, bytes) else b""
                info.size = len(text)
                copied.addfile(info, io.BytesIO(text))
        return str(path)

    def copy_parquet(self, location: str) -> str:
        """Returns the path of a Parquet file with the first rows of a file. UsageError if it is corrupt."""
        directory, _, name = location.rpartition("/")
        path = self._place("shards", directory) / name
        self._write_rows(FileReference(location), path)
        return str(path)

    def _write_rows(self, reference: FileReference, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from features.inputs.parquet_rows import open_parquet

        try:
            if reference.member:
                file = pq.ParquetFile(io.BytesIO(reference.read()))
            else:
                file = open_parquet(reference.location)
            rows = islice(file.iter_batches(batch_size=_ROWS), 1)
            pq.write_table(pa.Table.from_batches(rows, file.schema_arrow), path)
        except (pa.ArrowException, OSError, ValueError, RecordError) as error:
            detail = error.detail if isinstance(error, RecordError) else error
            message = f"the Parquet file is corrupt or incomplete: {detail}"
            raise UsageError(message, location=reference.label, hint="Download or write it again.") from error

    def _copy(self, directory: Path, file: ListedFile) -> Path:
        """Writes the beginning of a file to a directory, once. CaptError if it cannot be read or copied."""
        path = self._make_path(directory, file)
        if self._copied.setdefault(path, file.reference) != file.reference:
            raise CaptError("there are two files of this name", location=file.name, hint="Remove one of them.")
        if path.is_file():
            return path
        if _is_parquet(file):
            self._write_rows(file.reference, path)
        else:
            self._write(path, file, _read_beginning(file))
        return path

    def _write(self, path: Path, file: ListedFile, data: bytes) -> None:
        if len(data) > self._left:
            message = f"the beginnings of the files are larger than {_MAX_COPIED_BYTES:,} bytes"
            raise CaptError(message, location=file.name, hint="Inspect a part of them.")
        with _named_errors(file):
            path.write_bytes(data)
        self._left -= len(data)

    def _make_path(self, directory: Path, file: ListedFile) -> Path:
        """Returns the path of a copy without `.gz`, which stays below its directory, and creates its parents."""
        parts = PurePosixPath(remove_gzip_suffix(file.name)).parts
        path = directory.joinpath(*(part for part in parts if part not in ("..", "/")))
        with _named_errors(file):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.exists()  # OSError if the name is too long
        return path

    def _place(self, use: str, original: str) -> Path:
        """Returns the directory of the copies of files below a path, for one use."""
        if (use, original) not in self._places:
            self._places[use, original] = place = self._directory / f"{len(self._places):06d}"
            place.mkdir()
        return self._places[use, original]


def _find_parent(contents: Contents) -> str:
    """Returns the path to which the names of the files are relative."""
    return contents.path.rpartition("/")[0] if contents.kind == "file" else contents.path.rstrip("/")


@contextlib.contextmanager
def _named_errors(file: ListedFile) -> Iterator[None]:
    """Raises CaptError for a name that is not possible here: too long, that of a directory, or with a null byte."""
    try:
        yield
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise CaptError(f"the file cannot be copied: {problem}", location=file.name) from error


def _is_parquet(file: ListedFile) -> bool:
    return file.name.lower().endswith(".parquet")


def _is_json(file: ListedFile) -> bool:
    return remove_gzip_suffix(file.name).lower().endswith(".json")


def _is_packed(file: ListedFile) -> bool:
    return bool(file.reference.member) or remove_gzip_suffix(file.name) != file.name


def _find_limit(file: ListedFile) -> int:
    """Returns how many unpacked bytes of a text file are read; a JSON file that is larger is not read at all."""
    if not _is_json(file):
        return _MAX_BYTES
    return _MAX_PACKED_JSON_BYTES if _is_packed(file) else _MAX_JSON_BYTES


def _is_read_in_place(file: ListedFile) -> bool:
    if _is_parquet(file) or _is_packed(file) or is_uri(file.reference.location):
        return False
    return file.size <= _find_limit(file)


def _read_beginning(file: ListedFile) -> bytes:
    """Returns the beginning of a text file, unpacked, or a whole JSON file. CaptError if it is unreadable or large."""
    limit, reference = _find_limit(file), file.reference
    try:
        data = reference.read_start(limit + 1)
    except RecordError as error:
        raise CaptError(f"the file cannot be read: {error.reason}", location=file.name) from error
    if find_unpack_command(data[:16]) == "gunzip":
        data = _unpack_start(data, limit + 1)
    if len(data) <= limit:
        return data
    if _is_json(file):
        message = f"the JSON file is larger than {limit:,} bytes, and it would be read as a whole"
        raise CaptError(message, location=file.name, hint="Inspect a part of it.")
    return _cut_line(data)


def _cut_line(data: bytes) -> bytes:
    """Returns a text without its incomplete last line; in UTF-16 and UTF-32, without its incomplete last character."""
    if data.startswith(_WIDE_MARKS):
        return data[: len(data) // 4 * 4]
    return data[: data.rfind(b"\n") + 1] or data


def _unpack_start(data: bytes, limit: int) -> bytes:
    """Unpacks the beginning of a gzip file. Returns nothing if it is corrupt."""
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(data, limit)
    return b""
