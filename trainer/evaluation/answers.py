"""Grades answer files of CAPTCHAs without a run: lines `a120000 fail`, or tables, compared with a label file.

label file → graded IDs → answer lines by ID → correct, wrong, missing, duplicate and unknown IDs, invalid lines
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from features.inputs.label_files import LabelRow, find_layout, read_label_table
from features.io.locations import parse_location
from features.text.byte_order_marks import convert_to_utf8
from features.text.captcha_names import parse_label_line
from features.text.charset import normalize_label
from schemas.errors import CaptError, UsageError
from schemas.options.inference import Evaluate
from schemas.terminal.console import Printer
from trainer.data.captcha_data import parse_id_range
from trainer.data.label_file import read_label_file
from trainer.evaluation.recognition_metrics import wilson_interval

_USED = {"runs", "answers", "labels", "ids", "fold_case"}
_PROBLEMS = ("missing", "duplicate", "unknown", "invalid")
_MAX_LISTED = 5
_TITLES = ("correct", "exact match", "95% interval", "wrong", *_PROBLEMS)


def grade_answers(options: Evaluate) -> dict[str, Any]:
    """Compares answer files with the labels of a label file.

    An ID counts as correct if the file has a line for it, and every line for it has the right label.

    Returns:
        `task`; `labels` (number of graded IDs); `answers`, for each file: `file`, `correct`, `exact_match` and its 95%
        `interval`, `wrong`, `missing` (IDs without a line), `duplicate` (IDs with several lines), `unknown` (IDs that
        are not graded), `invalid` (lines or rows that are not an ID and a label), and `examples` (the first IDs or
        lines of each problem); `notes`.

    Raises:
        UsageError: An option does not fit, or a file is missing.
        CaptError: A file cannot be read.
    """
    labels = _select_labels(options)
    answers = [_grade(file, labels, fold_case=options.fold_case) for file in _list_files(options)]
    notes = [note for graded in answers for note in _describe_problems(graded)]
    return {"task": "captcha", "labels": len(labels), "answers": answers, "notes": notes}


def print_grades(printer: Printer, result: Mapping[str, Any]) -> None:
    """Prints one row per answer file."""
    rows = []
    for one in result["answers"]:
        low, high = (f"{100 * bound:.2f}" for bound in one["interval"])
        counts = [one[problem] for problem in _PROBLEMS]
        rows.append(
            [one["file"], one["correct"], f"{100 * one['exact_match']:.2f}", f"{low}–{high}", one["wrong"], *counts]
        )
    printer.table(f"answers for {result['labels']:,} labels, exact match in %", ("file",), _TITLES, rows)


def _select_labels(options: Evaluate) -> dict[str, str]:
    given = options.model_fields_set - _USED
    if given:
        option = f"--{min(given)}".replace("_", "-")
        raise UsageError("this option is not valid with --answers", location=option, hint="Omit the option.")
    if options.labels is None:
        raise UsageError("a value is required", location="--labels", hint="Name the file with the true labels.")
    labels = {
        name: normalize_label(label, fold_case=options.fold_case)
        for name, label in read_label_file(options.labels).items()
    }
    if options.ids is None:
        return labels
    numbers = parse_id_range(options.ids)
    without = next((f"a{number}" for number in numbers if f"a{number}" not in labels), None)
    if without:
        hint = "Check --ids and --labels."
        raise UsageError(f"{without} is in --ids and has no label", location=f"--labels {options.labels}", hint=hint)
    return {f"a{number}": labels[f"a{number}"] for number in numbers}


def _list_files(options: Evaluate) -> list[str]:
    """Returns the answer files in the order given. A directory stands for its .txt files."""
    files: list[str] = []
    for location in options.answers:
        path = parse_location(location)
        if not path.is_dir():
            files.append(location)
            continue
        found = sorted(str(one) for one in path.iterdir() if one.suffix == ".txt" and one.is_file())
        if not found:
            hint = "Name a file, or another directory."
            raise UsageError("the directory contains no .txt file", location=f"--answers {location}", hint=hint)
        files += found
    # A pattern, `--answers answers/*.txt`, gives the option its first file only.
    for location in options.runs:
        if parse_location(location).is_dir():
            hint = "Omit --answers, or name files only."
            raise UsageError("a run cannot be evaluated together with --answers", location=location, hint=hint)
        files.append(location)
    return list(dict.fromkeys(files))


def _grade(file: str, labels: Mapping[str, str], *, fold_case: bool) -> dict[str, Any]:
    lines: dict[str, list[str]] = {}
    invalid: list[str] = []
    for answer in _read_answers(file):
        if isinstance(answer, str):
            invalid.append(answer)
        else:
            lines.setdefault(answer.image, []).append(normalize_label(answer.label, fold_case=fold_case))
    correct = sum(set(lines.get(name, ())) == {label} for name, label in labels.items())
    problems = {
        "missing": [name for name in labels if name not in lines],
        "duplicate": [name for name, answers in lines.items() if len(answers) > 1],
        "unknown": [name for name in lines if name not in labels],
        "invalid": invalid,
    }
    return {
        "file": file,
        "correct": correct,
        "exact_match": correct / len(labels),
        "interval": wilson_interval(correct, len(labels)),
        "wrong": len(labels) - correct - len(problems["missing"]),
        **{name: len(found) for name, found in problems.items()},
        "examples": {name: found[:_MAX_LISTED] for name, found in problems.items() if found},
    }


def _read_answers(file: str) -> Iterator[LabelRow | str]:
    """Yields the answers of a file, and a description of each line or row that is none. Blank lines are ignored."""
    path = parse_location(file)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError("no such answer file", location=file, hint="Check --answers.") from None
    except OSError as error:
        raise CaptError(f"the file cannot be read: {error.strerror}", location=file) from None
    with suppress(UnicodeDecodeError):  # invalid UTF-16 has invalid lines only
        data = convert_to_utf8(data)
    if find_layout(path.name, data) == "table":
        for row in read_label_table(path.name, data, file).rows:
            yield row if isinstance(row, LabelRow) else f"{row.location.removeprefix(f'{file}:')} ({row.reason})"
        return
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        parsed = parse_label_line(line)
        if parsed:
            yield LabelRow(f"{file}:{number}", f"a{parsed.number}", parsed.label, None)
        elif line.strip():
            yield f"line {number} ({line[:20]!r})"


def _describe_problems(graded: Mapping[str, Any]) -> Iterator[str]:
    for name, some in graded["examples"].items():
        yield f"{graded['file']}: {name}: {_list_some(some, graded[name])}."


def _list_some(some: Sequence[str], count: int) -> str:
    more = f" and {count - len(some):,} more" if count > len(some) else ""
    return f"{', '.join(some)}{more}"
