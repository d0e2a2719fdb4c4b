"""Implements `capt prepare captcha`: stores the pixels of images with text, and commits the dataset with their labels.

It is `capt prepare features --extractor pixels` on a dataset with labels.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from features.images.decode import ImageLimits
from pipelines.datasets.captcha import CaptchaReader
from pipelines.datasets.label_sources import open_label_reader
from pipelines.datasets.splits import Splitter, parse_split_ratios, parse_split_sizes, split_like_published
from pipelines.ingest.image_database import ImageDatabase
from pipelines.ingest.input_size import MAX_PIXELS, LongestLabel, TextStatistics, measure_text
from pipelines.prepare_features import SourceDataset, prepare_images
from schemas.defaults import PUBLISHED_CAPTCHA_SIZE
from schemas.errors import UsageError
from schemas.manifests import InputSize
from schemas.options.prepare import PrepareCaptcha, PrepareFeatures
from schemas.tables import SPLITS
from schemas.terminal.console import Printer
from schemas.terminal.summary import print_summary

_MAX_SHOWN = 60  # characters of a label in a message
_log = logging.getLogger("capt.prepare")

_RATIOS = split_like_published(7).ratios
_PUBLISHED_SIZE = dict(zip(("height", "width"), PUBLISHED_CAPTCHA_SIZE, strict=True))


def prepare_captcha(options: PrepareCaptcha) -> dict[str, Any]:
    """Stores the pixels of the images that the store lacks, and commits the dataset with their labels.

    Returns:
        The summary of `prepare_features`, `input_size` (height, width, resize mode and reason), and if there are
        labels: `labels` (number by split), `label_lengths` and `characters` (number by length or character, by split),
        and `unseen_characters` (characters that val or test have and train does not).
    """
    return prepare_images(build_pixel_options(options), _open_source(options))


def print_prepared(result: Mapping[str, Any]) -> None:
    """Prints the summary, and tables of the lengths and characters of the labels."""
    tables = {"label_lengths": "length", "characters": "character"}
    print_summary({key: value for key, value in result.items() if key not in tables})
    printer = Printer()
    for key, heading in tables.items():
        counts = result.get(key, {})
        splits = [split for split in SPLITS if any(split in found for found in counts.values())]
        rows = [[repr(name) if name == " " else name, *map(found.get, splits)] for name, found in counts.items()]
        printer.table(f"labels by {heading}", (heading,), splits, rows)


def build_pixel_options(options: PrepareCaptcha) -> PrepareFeatures:
    """Returns the options of the job that stores the pixels, without their size.

    The job treats the images as a folder of images.
    """
    given = options.model_dump(exclude=set(_OWN_OPTIONS))
    return PrepareFeatures(dataset_type="folder", extractor="pixels", **given)


_OWN_OPTIONS = PrepareCaptcha.model_fields.keys() - PrepareFeatures.model_fields.keys() | {
    *("split_ratios", "height", "width", "resize_mode")
}


def _open_source(options: PrepareCaptcha) -> SourceDataset:
    """Opens the dataset. Splits are by position, by the hash of the image ID, or those of a table."""
    if options.split_sizes and options.split_ratios:
        raise UsageError("the option is not valid with --split-sizes", location="--split-ratios", hint="Omit one.")
    counts = parse_split_sizes(options.split_sizes) if options.split_sizes else None
    reader = open_label_reader(options, counts)
    choose_size = partial(_choose_size, options, isinstance(reader, CaptchaReader))
    if counts or (isinstance(reader, CaptchaReader) and not options.split_ratios):
        return SourceDataset(
            dataset_type="captcha",
            reader=reader,
            splitter=Splitter(own=True),
            added_images_splitter=Splitter(own=False, ratios=counts.ratios if counts else _RATIOS),
            stated=Splitter(own=True) if counts else None,
            choose_size=choose_size,
            fold_case=options.fold_case,
        )
    splitter = parse_split_ratios(options.split_ratios or "own")
    return SourceDataset(
        dataset_type="captcha",
        reader=reader,
        splitter=splitter,
        added_images_splitter=splitter,
        stated=splitter,
        choose_size=choose_size,
        fold_case=options.fold_case,
    )


def _choose_size(
    options: PrepareCaptcha, is_published: bool, database: ImageDatabase, earlier: InputSize | None
) -> InputSize:
    """Returns the size of the stored images: that of the options, of earlier images, or one that fits the images.

    The published layout has a size of its own. If the options state one side, it determines the other; if earlier
    images have that side, their size is used.
    """
    given = {"height": options.height, "width": options.width}
    stated = {name: value for name, value in given.items() if value is not None}
    is_complete = len(stated) == len(given)
    if earlier and not is_complete and all(getattr(earlier, name) == value for name, value in stated.items()):
        chosen = earlier.model_copy(update={"reason": "the size that the dataset was first prepared with"})
    else:
        found = None if is_published or is_complete else measure_text(database, ImageLimits())
        chosen = InputSize(
            **_fit_size(options, found) if found else _complete_size(stated),
            resize_mode="stretch" if is_published else "pad-border",
            reason=str(found) if found else _explain_default(stated, is_published),
        )
    _warn_of_narrow_images(database, chosen.width)
    return chosen.model_copy(update={"resize_mode": options.resize_mode}) if options.resize_mode else chosen


def _warn_of_narrow_images(database: ImageDatabase, width: int) -> None:
    """Warns if images of this width have too few CTC time steps for the longest label, which training refuses."""
    if (found := database.find_longest_label()) and (longest := LongestLabel(*found)).required_width > width:
        _log.warning(
            "%s: the label %r needs %d CTC time steps, and a recognizer of one row of text is not trained on images "
            "%d pixels wide. Set --width %d or more, or correct the label.",
            *(longest.image_id, _shorten(longest.label), longest.time_steps, width, longest.required_width),
        )


def _complete_size(stated: Mapping[str, int]) -> dict[str, int]:
    """Returns the sides that the options state, and the default of the other."""
    size = {**_PUBLISHED_SIZE, **stated}
    if len(stated) == 1:
        _check_pixels(next(iter(stated)), **size)
    return size


def _check_pixels(stated: str, height: int, width: int) -> None:
    """Raises UsageError if one stated side makes the images larger than a chosen size may be."""
    if height * width > MAX_PIXELS:
        message = (
            f"with the other side that fits, the images are stored at {height}×{width}, with {height * width:,} pixels "
            f"each; a size that is chosen has at most {MAX_PIXELS:,}"
        )
        raise UsageError(message, location=f"--{stated}", hint=f"Set a smaller --{stated}, or --height and --width.")


def _explain_default(stated: Mapping[str, int], is_published: bool) -> str:
    """Returns where a size comes from that does not depend on the images."""
    if len(stated) == len(_PUBLISHED_SIZE):
        return "the options"
    reason = "of the published layout" if is_published else "because no image of a sample can be read"
    options = "".join(f"--{name}, and " for name in stated)
    return f"{options}the default {' and '.join(name for name in _PUBLISHED_SIZE if name not in stated)} {reason}"


def _fit_size(options: PrepareCaptcha, found: TextStatistics) -> dict[str, int]:
    """Returns the size that fits the images, with the side that the options state."""
    if options.width:
        height = found.fit_height(options.width)
        _check_pixels("width", height, options.width)
        return {"height": height, "width": options.width}
    height, fitting = (options.height, found.fit_width(options.height)) if options.height else found.choose_size()
    longest = found.longest_label
    width = max(fitting, longest.required_width) if longest else fitting
    if longest and width > fitting:
        _log.warning(
            "%s: the label %r needs %d CTC time steps, so all images are stored %d pixels wide instead of %d, with %s "
            "pixels instead of %s. If the label is wrong, correct or remove it.",
            *(longest.image_id, _shorten(longest.label), longest.time_steps, width, fitting),
            *(f"{height * width:,}", f"{height * fitting:,}"),
        )
    if options.height:
        _check_pixels("height", height, width)
    return {"height": height, "width": width}


def _shorten(label: str) -> str:
    return label if len(label) <= _MAX_SHOWN else f"{label[:_MAX_SHOWN]}…"
