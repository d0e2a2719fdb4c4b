"""Implements `capt inspect`: what paths contain, which dataset types read them, and the commands that prepare them."""

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from features.text.lines import shorten
from pipelines.inspection.arrays import find_arrays
from pipelines.inspection.candidates import Candidate, find_candidates
from pipelines.inspection.commands import build_commands, join_command, list_placeholders
from pipelines.inspection.contents import Contents, find_distinct, identify_path, list_contents
from pipelines.inspection.excerpt import Excerpt
from pipelines.inspection.first_records import ARRAYS, FirstRecords
from pipelines.inspection.problems import Problems
from pipelines.inspection.unused import Unused, list_unused
from schemas.errors import CaptError, UsageError
from schemas.options.data import Inspect
from schemas.terminal.console import Printer

_MAX_SHOWN = 5


def inspect_dataset(options: Inspect) -> dict[str, Any]:
    """Finds the dataset types that read the paths, from their first files and records.

    Returns:
        `paths` (path, kind, listed files and images, whether these are all, and files by suffix) and `candidates`, the
        best first: `dataset_type` (`captcha` for images with labels, `arrays` for computed features), `reason`,
        `records` (image, split, captions or label, problem, and whether the image is there), `unreadable` (how many of
        the first captions cannot be read, and the first problem; null if all can), `commands` and `placeholders` (words
        in the commands to replace). `unused`: the files that no command uses, each with path and problem.

    Raises:
        UsageError: A path does not exist, is empty or corrupt, or no dataset type reads the paths. If only some of the
            paths are used, its `summary` is the result.
        CaptError: A path cannot be read.
    """
    paths = find_distinct(options.paths)
    problems = Problems()
    contents = _list_all(paths, problems)
    arrays = find_arrays(contents, problems)
    with tempfile.TemporaryDirectory(prefix="capt-inspect-") as directory, _without_messages():
        first = FirstRecords(options, contents, Excerpt(Path(directory)), problems)
        candidates = find_candidates(first) or _list_array_candidates(arrays)
    if not candidates:
        raise _build_error(paths, problems)
    commands = [list(build_commands(one, arrays, options)) for one in candidates]
    unused = list_unused(paths, contents, problems, chain.from_iterable(commands))
    described = [_describe(*one, first) for one in zip(candidates, commands, strict=True)]
    result = {
        "paths": [one.describe() for one in contents],
        "candidates": described,
        "unused": [one._asdict() for one in unused],
    }
    _refuse_unused(unused, result, paths)
    return result


def _list_all(paths: Sequence[str], problems: Problems) -> list[Contents]:
    """Lists the paths. An archive may be named beside its directory."""
    listed = chain.from_iterable(list_contents(path, problems) for path in paths)
    contents: dict[str, Contents] = {}
    for one in listed:
        contents.setdefault(identify_path(one.path), one)
    return list(contents.values())


def print_inspection(result: Mapping[str, Any]) -> None:
    """Prints the result of `inspect_dataset`."""
    printer = Printer()
    opened = [one for one in result["paths"] if one["kind"] != "archive"]
    for one in opened:
        printer.line(_summarize(one))
    if len(opened) < len(result["paths"]):
        printer.line(f"{len(result['paths']) - len(opened):,} more archives, which were not opened")
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
    _print_unused(printer, result["unused"])


def _print_unused(printer: Printer, unused: Sequence[Mapping[str, str]]) -> None:
    if unused:
        printer.line("")
    for one in unused[:_MAX_SHOWN]:
        printer.line("not used: {path}: {problem}".format(**one))
    if len(unused) > _MAX_SHOWN:
        printer.line(f"not used: {len(unused) - _MAX_SHOWN:,} more files, which --json lists")


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


# === Description ===


def _describe(candidate: Candidate, commands: Sequence[Sequence[str]], first: FirstRecords) -> dict[str, Any]:
    unreadable = first.unreadable.get(candidate.dataset_type)
    return {
        "dataset_type": candidate.dataset_type,
        "reason": candidate.reason,
        "records": [{**asdict(one), "captions": list(one.captions)} for one in candidate.records],
        "unreadable": unreadable._asdict() if unreadable else None,
        "commands": [join_command(command) for command in commands],
        "placeholders": list_placeholders(commands),
    }


def _list_array_candidates(arrays: Sequence[str]) -> list[Candidate]:
    """Returns the candidate of computed features, which come without images; none without features."""
    return [Candidate(ARRAYS, f"{one} contains arrays, which are imported as features of images") for one in arrays[:1]]


def _refuse_unused(unused: Sequence[Unused], result: Mapping[str, Any], paths: Collection[str]) -> None:
    """Raises UsageError with the result if no command uses a path that the user has named."""
    named = next((one for one in unused if one.path in paths), None)
    if named:
        message = f"not used: {named.problem}"
        raise UsageError(message, location=named.path, hint="Correct it, or omit it.", summary=result)


def _build_error(paths: Sequence[str], problems: Problems) -> CaptError:
    """Returns the error for paths that no dataset type reads: the problem of the reader that fits best."""
    location = ", ".join(paths)
    path, problem = problems.find_best()
    if problem:
        where = "" if path == location else f"{path}: "
        return UsageError(f"no dataset type reads this: {where}{problem}", location=location)
    hint = "Add a CSV file with the columns image and caption, for example."
    return UsageError("no dataset type reads this", location=location, hint=hint)
