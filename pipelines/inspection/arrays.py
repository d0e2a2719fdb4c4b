"""Finds computed features in paths: arrays in NumPy's formats, of which the first headers are checked."""

import io
from collections.abc import Sequence

from features.inputs import ListedFile, list_files
from features.inputs.npy_arrays import NPY_SUFFIX, check_floats, check_rows, compute_row_shape, read_header
from pipelines.inspection.contents import Contents
from pipelines.inspection.problems import Problems
from schemas.errors import CaptError, RecordError, UsageError

NPZ_SUFFIX = ".npz"

_MAX_CHECKED = 5  # files of a directory or archive
_HEADER_BYTES = 64 << 10


def find_arrays(contents: Sequence[Contents], problems: Problems) -> tuple[str, ...]:
    """Returns the values of `--from-arrays`: one array with a row per image, or else paths with one array per image.

    `problems` gets those of arrays that cannot be imported.
    """
    for one in contents:
        for file in one.find_files([NPZ_SUFFIX]) if one.kind != "file" else []:
            problems.add(one.label_file(file), "an .npz file is imported only if it is named itself. Name it.")
    readable = [one for one in contents if any(_is_readable(one, file, problems) for file in _list_arrays(one))]
    whole = [one.path for one in readable if one.kind == "file"]
    chosen = tuple(whole[:1] or [one.path for one in readable])
    for one in readable:
        if one.path not in chosen:
            problems.add(one.path, f"the rows of {chosen[0]} have names, and only one such array is imported at a time")
    return chosen


def _list_arrays(contents: Contents) -> list[ListedFile]:
    """Returns the first arrays. The arrays of a directory or archive are .npy files."""
    if contents.is_pattern:
        return []
    return contents.find_files([NPY_SUFFIX, NPZ_SUFFIX] if contents.kind == "file" else [NPY_SUFFIX])[:_MAX_CHECKED]


def _is_readable(contents: Contents, file: ListedFile, problems: Problems) -> bool:
    label = contents.label_file(file)
    try:
        _check_array(contents, file, label)
    except CaptError as error:
        problem = error.detail if isinstance(error, RecordError) else error.message
        problems.add(label, f"{problem}. Save arrays of floats with numpy.save.")
        return False
    return True


def _check_array(contents: Contents, file: ListedFile, label: str) -> None:
    """Raises CaptError if the header of an array is not one of features."""
    is_npz = file.name.lower().endswith(NPZ_SUFFIX)
    array = _find_member(contents.path) if is_npz else file
    header = read_header(io.BytesIO(array.reference.read_start(_HEADER_BYTES)), label)
    check_floats(header, label)
    if contents.kind == "file":
        check_rows(header, label, array.size)
    compute_row_shape(header.shape[1:] if contents.kind == "file" else header.shape, label)


def _find_member(path: str) -> ListedFile:
    """Returns the only array of an .npz file."""
    found = [one for one in list_files(path) if one.name.endswith(NPY_SUFFIX)]
    if len(found) != 1:
        names = ", ".join(one.name.removesuffix(NPY_SUFFIX) for one in found[:_MAX_CHECKED]) or "no array"
        raise UsageError(f"expected one array, got {names}", location=path)
    return found[0]
