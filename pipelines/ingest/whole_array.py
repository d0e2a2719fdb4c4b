"""Reads one array with a row per image, and the file with the names of its rows."""

import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from features.inputs import FileReference
from features.inputs.npy_arrays import (
    NPY_SUFFIX,
    PICKLE,
    PICKLE_PROBLEM,
    check_floats,
    check_rows,
    compute_row_shape,
    is_pickle_name,
    read_header,
)
from features.io.locations import local_path
from features.store.shards import check_disk_space
from schemas.errors import RecordError, UsageError

OPTION = "--from-arrays"
NAMES_OPTION = "--array-names"
NAMES_HINT = "If one array has the rows of all images, add --array-names FILE."
HINT = 'Save plain arrays with np.save: how-to on extractors, "Features that you already have".'

_NPZ_SUFFIX = ".npz"
_MAX_NAMES_BYTES = 1 << 30
_COPIED_BYTES = 1 << 20


@dataclass(frozen=True)
class WholeArray:
    """A .npy file with a row of this shape per image; `label` is the file that the user named."""

    path: str
    label: str
    rows: int
    shape: tuple[int, ...]


def open_whole_array(locations: Sequence[str], scratch: Path) -> WholeArray:
    """Checks the only value of `--from-arrays`, a local .npy or .npz file. An .npz is unpacked to `scratch`.

    Raises:
        UsageError: The file is missing, is a pickle, or is not one array of floats with a row per image.
    """
    if len(locations) != 1:
        message = f"names belong to one array, and {len(locations)} are given"
        raise UsageError(message, location=NAMES_OPTION, hint=f"Use one {OPTION} FILE.npy.")
    source = local_path(locations[0], OPTION).absolute()
    suffix = source.suffix.lower()
    if is_pickle_name(source.name):
        raise UsageError(PICKLE_PROBLEM, location=str(source), hint=HINT)
    if not source.is_file() or suffix not in (NPY_SUFFIX, _NPZ_SUFFIX):
        problem = "names belong to one .npy or .npz file" if source.exists() else "the file does not exist"
        hint = f"Omit {NAMES_OPTION} for a directory or archive with one file per image."
        raise UsageError(problem, location=str(source), hint=hint if source.exists() else "")
    path = _unpack(source, scratch) if suffix == _NPZ_SUFFIX else source
    try:
        shape = _read_shape(path, str(source))
        return WholeArray(str(path), source.name, shape[0], compute_row_shape(shape[1:], str(source)))
    except RecordError as error:
        hint = HINT if error.reason == PICKLE else ""
        raise UsageError(error.detail, location=OPTION, hint=hint) from None


def _read_shape(path: Path, label: str) -> tuple[int, ...]:
    """Returns the shape of the array. RecordError if the file is shorter than its header declares, or has no rows."""
    with path.open("rb") as file:
        header = read_header(file, label)
        check_floats(header, label)
        check_rows(header, label, file.seek(0, io.SEEK_END))
    return header.shape


def _unpack(source: Path, scratch: Path) -> Path:
    """Copies the only array of an .npz file to a .npy file, whose rows can be read in any order."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = [one for one in archive.infolist() if one.filename.endswith(NPY_SUFFIX)]
            if len(members) != 1:
                found = ", ".join(one.filename.removesuffix(NPY_SUFFIX) for one in members[:5]) or "no array"
                message = f"names belong to one array, and the file contains {found}"
                raise UsageError(message, location=str(source), hint="Save this array alone with np.save.")
            check_disk_space(scratch, members[0].file_size, "unpacking the array", "Free some space.")
            target = scratch / "array.npy"
            with archive.open(members[0]) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file, _COPIED_BYTES)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise UsageError(f"not a complete .npz file: {error}", location=str(source)) from None
    return target


def read_names(location: str) -> list[str]:
    """Reads the names of rows: one per line, a JSON list, or a .npy array of strings or whole numbers.

    Raises:
        UsageError: The file is missing, is a pickle, or is not a list of names.
    """
    hint = "Write one name per line to a .txt file."
    if is_pickle_name(location):
        raise UsageError(PICKLE_PROBLEM, location=location, hint=hint)
    try:
        data = FileReference.from_location(location).read(_MAX_NAMES_BYTES)
        return _parse_names(data, PurePosixPath(location).suffix.lower(), location)
    except RecordError as error:
        problem = "the file does not exist" if error.reason == "missing" else error.detail
        raise UsageError(f"{location}: {problem}", location=NAMES_OPTION, hint=hint) from None
    except ValueError as error:
        raise UsageError(f"the names cannot be read: {error}", location=location, hint=hint) from None


def _parse_names(data: bytes, suffix: str, label: str) -> list[str]:
    if suffix == ".json":
        names: Any = json.loads(data)
    elif suffix == NPY_SUFFIX:
        file = io.BytesIO(data)
        read_header(file, label)
        file.seek(0)
        array = np.load(file, allow_pickle=False)
        if array.dtype.kind not in "USiu":
            raise ValueError(f"expected strings or whole numbers, got {array.dtype}")
        names = array.astype(str).tolist()
    else:
        names = data.decode("utf-8-sig").splitlines()
    if not isinstance(names, list) or not all(isinstance(name, (str, int)) for name in names):
        raise ValueError("expected a list of strings")
    for number, name in enumerate(names, 1):
        if isinstance(name, bool) or not _is_text(str(name)):
            raise ValueError(f"name {number} is {name!r}, which is not text")
    return [str(name) for name in names]


def _is_text(name: str) -> bool:
    """Returns whether a name has no unpaired surrogate."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
