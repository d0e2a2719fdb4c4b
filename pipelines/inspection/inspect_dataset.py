"""Implements `capt inspect`: what paths contain, which dataset types read them, and the commands that prepare them."""

import contextlib
import logging
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from features.inputs.npy_arrays import NPY_SUFFIX, PICKLE_PROBLEM, is_pickle_name, read_header
from features.io.open_files import open_file
from features.text.lines import shorten
from pipelines.datasets import DATASET_READERS, EMBEDDED
from pipelines.inspection.candidates import CAPTCHA, Candidate, find_candidates
from pipelines.inspection.contents import Contents, list_contents
from pipelines.inspection.excerpt import Excerpt
from pipelines.inspection.first_records import FirstRecords
from schemas.errors import CaptError, RecordError, UsageError
from schemas.options.data import Inspect
from schemas.options.prepare import ColumnOptions
from schemas.terminal.console import Printer

_DOWNLOADS = "downloads"
_IMAGES = "DIR"
_PLACEHOLDERS = {
    _IMAGES: "the directory or archive with the images",
    "TYPE": "the dataset type of the images",
    "FILE": "the file with the names of the rows, in their order",
}
_MAX_SHOWN = 5


def inspect_dataset(options: Inspect) -> dict[str, Any]:
    """Finds the dataset types that read the paths, from their first files and records.

    Returns:
        `paths` (path, kind, listed files and images, whether these are all, and files by suffix) and `candidates`, the
        best first: `dataset_type` (`captcha` for images with labels, `arrays` for computed features), `reason`,
        `records` (image, split, captions or label, problem, and whether the image is there), `unreadable` (how many of
        the first captions cannot be read, and the first problem; null if all can), `commands` and `placeholders` (words
        in the commands to replace).

    Raises:
        UsageError: A path does not exist, is empty or corrupt, or no dataset type reads the paths.
        CaptError: A path cannot be read.
    """
    listed = chain.from_iterable(map(list_contents, dict.fromkeys(options.paths)))
    contents = list({one.path: one for one in listed}.values())  # An archive may be named beside its directory.
    arrays = _find_arrays(contents)
    with tempfile.TemporaryDirectory(prefix="capt-inspect-") as directory:
        first = FirstRecords(options, contents, Excerpt(Path(directory)))
        with _without_messages():
            candidates = find_candidates(first)
    if not candidates and not arrays:
        raise _explain(options.paths, contents, first.problems)
    described = [_describe(one, first, arrays) for one in candidates] or [_describe_arrays(arrays)]
    return {"paths": [one.describe() for one in contents], "candidates": described}


def print_inspection(result: Mapping[str, Any]) -> None:
    """Prints the result of `inspect_dataset`."""
    printer = Printer()
    for one in result["paths"]:
        printer.line(_summarize(one))
    for number, one in enumerate(result["candidates"], 1):
        printer.line("")
        prefix = f"{number}. " if len(result["candidates"]) > 1 else ""
        printer.line(f"{prefix}{one['dataset_type']}: {one['reason']}", "bold")
        _print_records(printer, one["records"])
        if one["unreadable"]:
            shown = "{unreadable} of the first {read} captions cannot be read. The first: {problem}"
            printer.line(shown.format(**one["unreadable"]))
        for command in one["commands"]:
            printer.line(command)
        for word, meaning in one["placeholders"].items():
            printer.line(f"Replace {word} by {meaning}.")


def _print_records(printer: Printer, records: Sequence[Mapping[str, Any]]) -> None:
    """Prints the columns in which a record has a value."""
    columns = {
        "image": [one["image"] for one in records],
        "split": [one["split"] for one in records],
        "label": [one["label"] for one in records],
        "captions": [_show_captions(one["captions"]) for one in records],
        "problem": [one["problem"] or None for one in records],
        "image file": [{True: "found", False: "missing", None: None}[one["found"]] for one in records],
    }
    shown = {heading: values for heading, values in columns.items() if any(values)}
    printer.table("first records", tuple(shown), (), zip(*shown.values(), strict=True))


def _show_captions(captions: Sequence[str]) -> str | None:
    more = f" (and {len(captions) - 1} more)" if len(captions) > 1 else ""
    return f"{shorten(captions[0])}{more}" if captions else None


def _summarize(path: Mapping[str, Any]) -> str:
    if path["kind"] == "file":
        return f"{path['path']}: file"
    suffixes = list(path["suffixes"].items())
    shown = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in suffixes[:_MAX_SHOWN])
    more = f", {len(suffixes) - _MAX_SHOWN} more suffixes" if len(suffixes) > _MAX_SHOWN else ""
    first = "" if path["complete"] else "the first "
    return f"{path['path']}: {path['kind']}, {first}{path['files']:,} files ({shown}{more}), {path['images']:,} images"


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Hides the messages of readers, because most of them do not fit."""
    log = logging.getLogger("capt")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


# === Commands ===


def _describe(candidate: Candidate, first: FirstRecords, arrays: Sequence[str]) -> dict[str, Any]:
    commands = list(_build_commands(candidate, arrays, first.options))
    unreadable = first.unreadable.get(candidate.dataset_type)
    return {
        "dataset_type": candidate.dataset_type,
        "reason": candidate.reason,
        "records": [{**asdict(one), "captions": list(one.captions)} for one in candidate.records],
        "unreadable": unreadable._asdict() if unreadable else None,
        **_add_placeholders(commands),
    }


def _build_commands(candidate: Candidate, arrays: Sequence[str], options: Inspect) -> Iterator[list[str]]:
    images = _repeat("--images", candidate.images or _find_missing_images(candidate.dataset_type))
    if candidate.dataset_type == CAPTCHA:
        labels = ["--labels", candidate.labels] if candidate.labels else []
        columns = _list_columns(options, ("image_column", "label_column", "split_column"))
        yield ["capt", "prepare", "captcha", "--store", "S", *images, *labels, *columns]
        return
    kind = ["--store", "S", "--dataset-type", candidate.dataset_type]
    columns = _list_columns(options, ColumnOptions.model_fields)
    annotations = _repeat("--annotations", candidate.annotations)
    imported = _list_array_options(arrays)
    yield ["capt", "prepare", "features", *kind, *images, *annotations, *columns, *imported]
    if candidate.dataset_type in EMBEDDED:
        annotations = _repeat("--annotations", candidate.images)
    if annotations:
        yield ["capt", "prepare", "captions", *kind, *annotations, *columns]


def _find_missing_images(dataset_type: str) -> tuple[str]:
    """Returns the value of `--images` if no images were given: the new directory of downloads, or a placeholder."""
    has_urls = dataset_type in DATASET_READERS and getattr(DATASET_READERS[dataset_type], "has_urls", False)
    return (_DOWNLOADS if has_urls else _IMAGES,)


def _describe_arrays(arrays: Sequence[str]) -> dict[str, Any]:
    kind = ["--store", "S", "--dataset-type", "TYPE", "--images", _IMAGES]
    command = ["capt", "prepare", "features", *kind, *_list_array_options(arrays)]
    reason = f"{arrays[0]} contains arrays, which are imported as features of images"
    return {
        "dataset_type": "arrays",
        "reason": reason,
        "records": [],
        "unreadable": None,
        **_add_placeholders([command]),
    }


def _list_array_options(arrays: Sequence[str]) -> list[str]:
    names = ["--array-names", "FILE"] if any(one.lower().endswith((NPY_SUFFIX, ".npz")) for one in arrays) else []
    return [*_repeat("--from-arrays", arrays), *names]


def _list_columns(options: Inspect, names: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Returns the options of columns that the user has given."""
    given = {name: getattr(options, name) for name in names}
    values = ((name, (value,) if isinstance(value, str) else value or ()) for name, value in given.items())
    return list(chain.from_iterable(_repeat(f"--{name.replace('_', '-')}", value) for name, value in values))


def _repeat(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _add_placeholders(commands: Sequence[list[str]]) -> dict[str, Any]:
    """Returns the commands as text, and the meaning of the words in them that the user replaces."""
    words = {value for command in commands for option, value in pairwise(command) if option[0] == "-"}
    return {
        "commands": [shlex.join(command) for command in commands],
        "placeholders": {word: text for word, text in _PLACEHOLDERS.items() if word in words},
    }


# === Arrays and unknown files ===


def _find_arrays(contents: Sequence[Contents]) -> tuple[str, ...]:
    """Returns the paths that contain arrays. UsageError if one is a pickle."""
    paths = []
    for one in contents:
        files = one.find_files([NPY_SUFFIX, ".npz"])
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


def _explain(paths: Sequence[str], contents: Sequence[Contents], problems: Sequence[str]) -> CaptError:
    """Returns the error for paths that no dataset type reads: the problem of the most specific reader."""
    location = ", ".join(paths)
    files = [file for one in contents for file in one.files]
    if pickle := next((file.name for file in files if is_pickle_name(file.name)), None):
        hint = "Save arrays with numpy.save, and tables as CSV or Parquet."
        return UsageError(f"{pickle}: {PICKLE_PROBLEM}", location=location, hint=hint)
    if any(one.kind == "file" and one.images for one in contents):
        return UsageError("a single image is not a dataset", location=location, hint="Name its directory.")
    if problems:
        return UsageError(f"no dataset type reads this: {problems[0]}", location=location)
    hint = "Add a CSV file with the columns image and caption, for example."
    return UsageError("no dataset type reads this", location=location, hint=hint)
