"""`capt prepare captcha`: pictures of words in, a table of their pixels and the dataset with the words out.

The same job as `capt prepare features --extractor pixels`, on a dataset whose splits go by position.
"""

from typing import Any

from pydantic import PositiveInt

from pipelines.prepare_features import FeatureOptions, Published, prepare_images
from pipelines.sources.captcha import Captcha
from pipelines.splits import Splitter, parse_counts, published_counts
from schemas.compression import Compression
from schemas.recipes import Format, Settings

KIND = "captcha"
HEIGHT, WIDTH = 80, 160

_SHARES = published_counts(7).shares


class CaptchaOptions(Settings):
    """The options of `capt prepare captcha`, named and meant as there."""

    store: str
    images: tuple[str, ...]
    labels: str
    name: str | None = None
    splits: str | None = None
    height: PositiveInt = HEIGHT
    width: PositiveInt = WIDTH
    format: Format = "tfrecord"
    compression: Compression = "none"
    shards: int | None = None
    max_failures: str | None = None
    plan: bool = False
    retry_failed: bool = False
    rehash: bool = False
    allow_mixed: bool = False
    beam_options: tuple[str, ...] = ()


def prepare_captcha(**arguments: Any) -> dict[str, Any]:
    """Commit the pixels of a set of CAPTCHAs, as far as the store lacks them, and the dataset with their words.

    Args:
        **arguments: the fields of `CaptchaOptions`.

    Returns:
        The figures that `--json` prints.
    """
    options = CaptchaOptions(**arguments)
    counts = parse_counts(options.splits) if options.splits else None
    published = Published(
        source=Captcha(options.labels, counts),
        splitter=Splitter(own=True),
        later=Splitter(own=False, shares=counts.shares if counts else _SHARES),
        states=Splitter(own=True) if counts else None,
    )
    return prepare_images(captcha_features(options), published)


def captcha_features(options: CaptchaOptions) -> FeatureOptions:
    """The options of the job that keeps the pixels."""
    given = options.model_dump(exclude={"labels", "splits"})
    return FeatureOptions(dataset=KIND, extractor="pixels", **given)
