"""Lists the arrays of `--from-arrays` by name, with the shape of a row and a digest of everything that was given.

    directories, archives   one .npy file per image, named after it: photo.jpg.npy, 123.npy
    FILE.npy, FILE.npz      one array with a row per image, and a file with the names of the rows in the same order

The index is an SQLite file, so that memory does not grow with the number of images.
"""

import contextlib
import hashlib
import io
import json
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from features.inputs import FileReference, list_files
from features.inputs.image_names import normalize_name
from features.inputs.npy_arrays import (
    MAX_ARRAY_BYTES,
    NPY_SUFFIX,
    PICKLE_PROBLEM,
    check_floats,
    compute_row_shape,
    is_pickle_name,
    read_header,
)
from features.io.atomic_files import hash_file
from features.io.open_files import stat_file
from features.io.uris import is_uri
from pipelines.beam.scratch import open_scratch
from pipelines.ingest.whole_array import HINT, NAMES_HINT, OPTION, open_whole_array, read_names
from schemas.errors import CaptError, RecordError, UsageError
from schemas.table_config import compute_digest
from schemas.terminal.progress import show_progress

_THREADS = 8
_BATCH = 4096

_SCHEMA = """
CREATE TABLE array (number INTEGER PRIMARY KEY, name TEXT, base TEXT, location TEXT, member TEXT, row INT, sha256 TEXT,
    shape TEXT, problem TEXT);
"""
_INDEXES = "CREATE INDEX array_name ON array (name); CREATE INDEX array_base ON array (base);"


@dataclass(frozen=True)
class ArrayIndex:
    """The arrays of a job, in the table `array` of the SQLite file `path`.

    Attributes:
        digest: SHA-256 of the names and the values.
        shape: Shape of one image's row.
        example: The first name, for messages.
        whole: The .npy file with the rows of all images; None for one file per image.
        version: Its state when it was hashed.
    """

    path: Path
    digest: str
    shape: tuple[int, ...]
    example: str
    whole: str | None = None
    version: str = ""

    def check_unchanged(self) -> None:
        """Raises CaptError if the array of all images has changed since it was hashed."""
        if self.whole and stat_file(self.whole).version != self.version:
            raise CaptError("the file changed during the job", location=self.whole, hint="Run the command again.")


@contextlib.contextmanager
def open_arrays(locations: Sequence[str], names: str | None, work: Path) -> Iterator[ArrayIndex]:
    """Lists and hashes arrays, in a temporary directory in `work` that exists during the block.

    Args:
        locations: Values of `--from-arrays`.
        names: Value of `--array-names`; None for one file per image.
        work: The directory of a job's working files.

    Raises:
        UsageError: An input is missing, is a pickle, or is not an array of floats; or names and rows differ in number.
    """
    if names is None:
        _check_kind(locations)
    with open_scratch(work) as scratch:
        path = scratch / "arrays.sqlite"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}")
            index = _index_whole(db, path, locations, names, scratch) if names else _index_files(db, path, locations)
            db.executescript(_INDEXES)
        yield index


def _check_kind(locations: Sequence[str]) -> None:
    """Raises UsageError for a pickle, and for an array whose rows have no names."""
    for location in locations:
        if is_pickle_name(location):
            raise UsageError(PICKLE_PROBLEM, location=location, hint=HINT)
        if location.lower().endswith(NPY_SUFFIX):
            hint = "Add --array-names FILE, with one name per row."
            raise UsageError("one array needs the names of its rows", location=location, hint=hint)


def _index_whole(
    db: sqlite3.Connection, path: Path, locations: Sequence[str], names_file: str, scratch: Path
) -> ArrayIndex:
    whole = open_whole_array(locations, scratch)
    version, names = stat_file(whole.path).version, read_names(names_file)
    if len(names) != whole.rows:
        message = f"{len(names)} names, and {whole.label} has {whole.rows} rows"
        raise UsageError(message, location=names_file, hint="Write one name per row, in the same order.")
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO array (name, base, location, member, row, sha256) VALUES (?, ?, ?, '', ?, '')",
        ((*_split_name(name), whole.path, row) for row, name in enumerate(names)),
    )
    db.execute("COMMIT")
    digest = compute_digest([hash_file(Path(whole.path)), names])
    return ArrayIndex(path, digest, whole.shape, names[0], whole.path, version)


def _index_files(db: sqlite3.Connection, path: Path, locations: Sequence[str]) -> ArrayIndex:
    pickles: list[str] = []
    db.execute("BEGIN")
    for root in dict.fromkeys(locations):
        db.executemany(
            "INSERT INTO array (name, base, location, member, row) VALUES (?, ?, ?, ?, 0)", _list_rows(root, pickles)
        )
    db.execute("COMMIT")
    (total,) = db.execute("SELECT count(*) FROM array").fetchone()
    if not total:
        location = ", ".join(locations)
        if pickles:
            raise UsageError(f"{pickles[0]}: {PICKLE_PROBLEM}", location=location, hint=HINT)
        raise UsageError("contains no .npy file", location=location, hint=f"Check {OPTION}.")
    _describe_files(db, total)
    digest = hashlib.sha256()
    for name, sha256 in db.execute("SELECT name, sha256 FROM array ORDER BY name, sha256"):
        digest.update(f"{name}\0{sha256}\n".encode())
    example = db.execute("SELECT min(name) FROM array").fetchone()[0]
    return ArrayIndex(path, digest.hexdigest(), _find_shape(db), example)


def _list_rows(root: str, pickles: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yields the rows of the .npy files. Collects the name of a pickle in `pickles`."""
    for file in list_files(root):
        if PurePosixPath(file.name).suffix.lower() == NPY_SUFFIX:
            yield *_split_name(file.name), file.reference.location, file.reference.member
        elif is_pickle_name(file.name) and not pickles:
            pickles.append(file.name)


def _split_name(name: str) -> tuple[str, str]:
    """Returns the name of an array without the suffix .npy, in the form that is compared, and its last part."""
    folded = normalize_name(name)
    folded = folded[: -len(NPY_SUFFIX)] if folded.lower().endswith(NPY_SUFFIX) else folded
    return folded, folded.rsplit("/", 1)[-1]


def _describe_files(db: sqlite3.Connection, total: int) -> None:
    """Adds the SHA-256 of every file, and the shape of its row or the problem of the file."""
    query = "SELECT number, location, member FROM array WHERE number > ? ORDER BY number LIMIT ?"
    done, failed, last = 0, 0, 0
    with (
        show_progress("hashing arrays", total, "arrays", lambda: (done, f"{failed} unusable" if failed else "")),
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        while rows := db.execute(query, (last, _BATCH)).fetchall():
            last = rows[-1][0]
            described = list(pool.map(_describe_file, (FileReference(*place) for _, *place in rows)))
            db.execute("BEGIN")
            db.executemany(
                "UPDATE array SET sha256 = ?, shape = ?, problem = ? WHERE number = ?",
                ((*one, number) for one, (number, *_) in zip(described, rows, strict=True)),
            )
            db.execute("COMMIT")
            done, failed = done + len(rows), failed + sum(one[2] != "" for one in described)


def _describe_file(reference: FileReference) -> tuple[str, str, str]:
    """Returns the SHA-256 of a file, and the shape of its row or its problem. An unusable member has no SHA-256.

    Raises:
        CaptError: The file cannot be read. Another run may read it, and the digest would be another one.
    """
    sha256 = ""
    try:
        data = reference.read(MAX_ARRAY_BYTES)
        sha256 = hashlib.sha256(data).hexdigest()
        header = read_header(io.BytesIO(data), reference.label)
        check_floats(header, reference.label)
        return sha256, json.dumps(compute_row_shape(header.shape, reference.label)), ""
    except RecordError as error:
        may_change = not reference.member or is_uri(reference.location)
        if may_change and error.reason in ("missing", "unreadable"):
            detail = error.detail.removeprefix(reference.label).removeprefix(": ")
            message = f"the array cannot be read: {detail or error.reason}"
            raise CaptError(message, location=reference.label, hint="Run the command again.") from None
        return sha256, "", error.detail or error.reason


def _find_shape(db: sqlite3.Connection) -> tuple[int, ...]:
    """Returns the most frequent shape of a row; UsageError if no array is usable."""
    query = "SELECT shape FROM array WHERE shape != '' GROUP BY shape ORDER BY count(*) DESC, shape LIMIT 1"
    row = db.execute(query).fetchone()
    if row is None:
        (problem,) = db.execute("SELECT problem FROM array ORDER BY name LIMIT 1").fetchone()
        hint = HINT if PICKLE_PROBLEM in problem else NAMES_HINT
        raise UsageError(f"no array is usable; the first: {problem}", location=OPTION, hint=hint)
    return tuple(json.loads(row[0]))
