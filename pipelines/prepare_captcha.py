"""`capt prepare captcha`: pictures of words in, a table of their pixels and the dataset with the words out.

The same job as `capt prepare features --extractor pixels`, on a dataset whose splits go by position.
"""

from typing import Any

from pipelines.datasets.captcha import CaptchaReader
from pipelines.datasets.splits import Splitter, parse_split_sizes, split_like_published
from pipelines.prepare_features import PreparedImages, prepare_images
from schemas.options.prepare import PrepareCaptcha, PrepareFeatures

KIND = "captcha"

_RATIOS = split_like_published(7).ratios


def prepare_captcha(options: PrepareCaptcha) -> dict[str, Any]:
    """Commit the pixels of a set of CAPTCHAs, as far as the store lacks them, and the dataset with their words.

    Args:
        options: The options of the command.

    Returns:
        The figures that `--json` prints.
    """
    counts = parse_split_sizes(options.split_sizes) if options.split_sizes else None
    published = PreparedImages(
        dataset_type=KIND,
        source=CaptchaReader(options.labels, counts),
        splitter=Splitter(own=True),
        later=Splitter(own=False, ratios=counts.ratios if counts else _RATIOS),
        states=Splitter(own=True) if counts else None,
    )
    return prepare_images(build_pixel_options(options), published)


def build_pixel_options(options: PrepareCaptcha) -> PrepareFeatures:
    """Returns the options of the job that stores the pixels: to it, CAPTCHAs are a folder of images."""
    given = options.model_dump(exclude={"labels", "split_sizes"})
    return PrepareFeatures(dataset_type="folder", extractor="pixels", **given)
