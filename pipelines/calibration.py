"""Calibration: how fast this machine extracts, from a few of the very images that a run would extract."""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from features.extraction import Extractor
from features.files import at_hand
from features.limits import Limits
from features.networks import load_network
from pipelines.extracting import sources
from pipelines.frozen import FrozenFile
from schemas.recipes import FeatureRecipe

_WARM_UP = 8
_TIMED = 24


def calibrate(
    recipe: FeatureRecipe, network: FrozenFile, batch_size: int, limits: Limits, references: Iterable[dict[str, Any]]
) -> float:
    """How many images a second one process extracts, from a few whose rows are thrown away.

    Args:
        recipe: FeatureRecipe. What a row means.
        network: FrozenFile. The extractor.
        batch_size: int. Images a call of the network at most.
        limits: Limits. What one image may measure.
        references: iterable of rows of a unit, one at least. The first ones are taken.
    """
    some = list(islice(references, _TIMED))
    loaded = load_network(at_hand(network.path, network.sha256), recipe.precision)
    extractor = Extractor(recipe, loaded, batch_size=batch_size, max_pixels=limits.pixels)
    _extract(extractor, some[:_WARM_UP], limits)
    warm = time.perf_counter()
    _extract(extractor, some, limits)
    return len(some) / (time.perf_counter() - warm)


def _extract(extractor: Extractor, rows: list[dict[str, Any]], limits: Limits) -> None:
    for _ in extractor.run(sources(rows, limits.bytes)):
        pass
