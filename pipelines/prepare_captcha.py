"""Implements `capt prepare captcha`: stores the pixels of images with text, and commits the dataset with their labels.

It is `capt prepare features --extractor pixels` on a dataset with labels.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.datasets.captcha import CaptchaReader
from pipelines.datasets.label_sources import open_label_reader
from pipelines.datasets.splits import Splitter, parse_split_ratios, parse_split_sizes, split_like_published
from pipelines.prepare_features import SourceDataset, prepare_images
from schemas.errors import UsageError
from schemas.options.prepare import PrepareCaptcha, PrepareFeatures
from schemas.tables import SPLITS
from schemas.terminal.console import Printer
from schemas.terminal.summary import print_summary

_RATIOS = split_like_published(7).ratios


def prepare_captcha(options: PrepareCaptcha) -> dict[str, Any]:
    """Stores the pixels of the images that the store lacks, and commits the dataset with their labels.

    Returns:
        The summary of `prepare_features`, and if there are labels: `labels` (number by split), `label_lengths` and
        `characters` (number by length or character, by split), and `unseen_characters` (characters that val or test
        have and train does not).
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
    """Returns the options of the job that stores the pixels. The job treats the images as a folder of images."""
    given = options.model_dump(exclude=set(_OWN_OPTIONS))
    return PrepareFeatures(dataset_type="folder", extractor="pixels", **given)


_OWN_OPTIONS = PrepareCaptcha.model_fields.keys() - PrepareFeatures.model_fields.keys() | {"split_ratios"}


def _open_source(options: PrepareCaptcha) -> SourceDataset:
    """Opens the dataset. Splits are by position, by the hash of the image ID, or those of a table."""
    if options.split_sizes and options.split_ratios:
        raise UsageError("the option is not valid with --split-sizes", location="--split-ratios", hint="Omit one.")
    counts = parse_split_sizes(options.split_sizes) if options.split_sizes else None
    reader = open_label_reader(options, counts)
    if counts or (isinstance(reader, CaptchaReader) and not options.split_ratios):
        return SourceDataset(
            dataset_type="captcha",
            reader=reader,
            splitter=Splitter(own=True),
            added_images_splitter=Splitter(own=False, ratios=counts.ratios if counts else _RATIOS),
            stated=Splitter(own=True) if counts else None,
        )
    splitter = parse_split_ratios(options.split_ratios or "own")
    return SourceDataset("captcha", reader, splitter, added_images_splitter=splitter, stated=splitter)
