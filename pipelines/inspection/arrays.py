"""Finds computed features in paths: arrays in NumPy's formats, whose headers are checked."""

from collections.abc import Sequence

from features.inputs.npy_arrays import NPY_SUFFIX, read_header
from features.io.open_files import open_file
from pipelines.inspection.contents import Contents
from schemas.errors import RecordError, UsageError

NPZ_SUFFIX = ".npz"


def find_arrays(contents: Sequence[Contents]) -> tuple[str, ...]:
    """Returns the paths that contain arrays. UsageError if one is a pickle."""
    paths = []
    for one in contents:
        files = one.find_files([NPY_SUFFIX, NPZ_SUFFIX])
        if not files:
            continue
        first = files[0]
        if first.name.lower().endswith(NPY_SUFFIX) and not first.reference.member:
            try:
                with open_file(first.reference.location) as file:
                    read_header(file, first.name)
            except (RecordError, OSError) as error:
                problem = error.detail if isinstance(error, RecordError) else error.strerror or str(error)
                raise UsageError(problem, location=one.path, hint="Save arrays of numbers with numpy.save.") from error
        paths.append(one.path)
    return tuple(paths)
