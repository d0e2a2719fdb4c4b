"""Implements `capt prepare captcha`: stores the pixels of CAPTCHA images, and commits the dataset with their labels.

It is `capt prepare features --extractor pixels` on a dataset whose splits are assigned by image number.
"""

from typing import Any

from pipelines.datasets.captcha import CaptchaReader
from pipelines.datasets.splits import Splitter, parse_split_sizes, split_like_published
from pipelines.prepare_features import SourceDataset, prepare_images
from schemas.options.prepare import PrepareCaptcha, PrepareFeatures

_RATIOS = split_like_published(7).ratios


def prepare_captcha(options: PrepareCaptcha) -> dict[str, Any]:
    """Stores the pixels of the CAPTCHAs that the store lacks, and commits the dataset with their labels.

    Returns:
        The summary of `prepare_features`.
    """
    counts = parse_split_sizes(options.split_sizes) if options.split_sizes else None
    source = SourceDataset(
        dataset_type="captcha",
        reader=CaptchaReader(options.labels, counts),
        splitter=Splitter(own=True),
        added_images_splitter=Splitter(own=False, ratios=counts.ratios if counts else _RATIOS),
        stated=Splitter(own=True) if counts else None,
    )
    return prepare_images(build_pixel_options(options), source)


def build_pixel_options(options: PrepareCaptcha) -> PrepareFeatures:
    """Returns the options of the job that stores the pixels. The job treats CAPTCHAs as a folder of images."""
    given = options.model_dump(exclude={"labels", "split_sizes"})
    return PrepareFeatures(dataset_type="folder", extractor="pixels", **given)
