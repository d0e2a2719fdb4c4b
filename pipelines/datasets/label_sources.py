"""Opens the reader of images with text, by the value of `--labels`."""

import re
from collections.abc import Sequence

from features.inputs import is_collection, list_files
from features.inputs.image_files import is_image_name
from features.inputs.label_files import PUBLISHED, TABLES, LabelColumns, find_layout
from features.inputs.natural_order import are_only_numbered
from features.text.label_rules import LabelRules
from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files
from pipelines.datasets.base import DatasetReader
from pipelines.datasets.captcha import CaptchaReader
from pipelines.datasets.labelled_images import (
    FileNameReader,
    LabelListReader,
    LabelTableReader,
    parse_label_pattern,
)
from pipelines.datasets.splits import SplitCounts
from schemas.errors import UsageError
from schemas.options.prepare import PrepareCaptcha

NAMES = "names"

_OPTION = "--labels"
_SUFFIXES = "|".join(suffix.removeprefix(".") for suffix in TABLES)
_USUAL_NAMES = r"labels?|annotations?|truth|gt|metadata|train|val|test"
# Names of label files in a directory or archive that --labels names.
LABEL_FILE = re.compile(rf"(^|/)(spec_train_val\.txt|({_USUAL_NAMES})\.txt|[^/]+\.({_SUFFIXES}))$", re.IGNORECASE)
_FOUND_TEXT = f"{PUBLISHED}, labels.txt, {', '.join(f'*{suffix}' for suffix in TABLES)}"
# Files beside images that contain labels by their names, if --labels is not given.
_BESIDE = re.compile(
    rf"(^|/)(spec_train_val\.txt|({_USUAL_NAMES})\.({_SUFFIXES}|txt|json|xml|ya?ml|xlsx))$",
    re.IGNORECASE,
)


def open_label_reader(options: PrepareCaptcha, counts: SplitCounts | None) -> DatasetReader:
    """Returns the reader of the layout that `--labels` names. UsageError if options do not fit it.

    Without `--labels`, the labels are in the file names. If a label file or numbered names contradict this, UsageError.
    """
    rules = LabelRules.parse(options.charset, options.fold_case)
    pattern = parse_label_pattern(options.label_pattern)
    if options.labels in (None, NAMES):
        _refuse(options, ("image_column", "label_column", "split_column"), "the labels are in the file names")
        if options.labels is None and options.label_pattern is None:
            _check_names(options.images)
        return FileNameReader(pattern, rules, counts)
    assert options.labels is not None
    document = find_label_file(options.labels)
    _refuse(options, ("label_pattern",), f"the labels are in {document.location}")
    layout = find_layout(document.name, document.read_text())
    if layout == "table":
        columns = LabelColumns(options.image_column, options.label_column, options.split_column)
        uses_splits = counts is None and options.split_ratios in (None, "own")
        return LabelTableReader(document, columns, rules, counts, uses_splits=uses_splits)
    _refuse(options, ("image_column", "label_column", "split_column"), f"{document.location} has no columns")
    return CaptchaReader(document, counts, rules) if layout == "ids" else LabelListReader(document, rules, counts)


def find_label_file(labels: str) -> AnnotationFile:
    """Returns the label file that a path names: itself, or the only one in a directory or archive."""
    found = list(list_annotation_files([labels], LABEL_FILE, _FOUND_TEXT, option=_OPTION))
    published = [one for one in found if one.name.rpartition("/")[2] == PUBLISHED]
    found = published or found
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise UsageError(
            f"there are several label files: {names}",
            location=labels,
            hint="Name one of them, extracted, or write one table with a column split.",
        )
    return found[0]


def _check_names(images: Sequence[str]) -> None:
    """Raises UsageError if the images have a label file, or are only numbered, so that their names are no labels."""
    names: list[str] = []
    for root in images:
        for file in list_files(root):
            if _BESIDE.search(file.name):
                shown = root if not is_directory(root) else f"{root.rstrip('/')}/{file.name}"
                message = f"the images have a label file: {file.name}"
                hint = f"Add --labels {shown}, or --labels names if the file names are the labels."
                raise UsageError(message, location=root, hint=hint)
            # None: only the content shows whether it is an image.
            if is_image_name(file.name) is not False:
                names.append(file.name)
    if are_only_numbered(names):
        message = f"the {len(names):,} images are numbered, so their names are not labels"
        hint = "Add --labels FILE, or --labels names if the numbers are the labels."
        raise UsageError(message, location=_OPTION, hint=hint)


def is_directory(root: str) -> bool:
    """Returns whether a root of images is a directory or bucket, not an archive."""
    return is_collection(root) and not root.lower().endswith((".zip", ".tar"))


def _refuse(options: PrepareCaptcha, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"the option does not apply: {reason}", location=flag, hint="Omit the option.")
