"""Calibration: how fast this machine extracts, from a few of the very images that a run would extract."""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from features.extractors.extraction import ExtractionCore
from features.extractors.frozen_graph import load_frozen_graph
from features.io.atomic_files import ensure_local
from features.references.image_limits import ImageLimits
from pipelines.jobs.extract_shard import open_images
from pipelines.jobs.extractor_graph import GraphFile
from schemas.table_config import FeatureTableConfig

_WARM_UP = 8
_TIMED = 24


def calibrate(
    table_config: FeatureTableConfig,
    network: GraphFile,
    batch_size: int,
    limits: ImageLimits,
    references: Iterable[dict[str, Any]],
) -> float:
    """How many images a second one process extracts, from a few whose rows are thrown away.

    Args:
        table_config: FeatureTableConfig. What a row means.
        network: GraphFile. The extractor.
        batch_size: int. Images a call of the network at most.
        limits: Limits. What one image may measure.
        references: iterable of rows of a unit, one at least. The first ones are taken.
    """
    some = list(islice(references, _TIMED))
    loaded = load_frozen_graph(ensure_local(network.path, network.sha256), table_config.precision)
    extractor = ExtractionCore(table_config, loaded, batch_size=batch_size, max_pixels=limits.pixels)
    _extract(extractor, some[:_WARM_UP], limits)
    warm = time.perf_counter()
    _extract(extractor, some, limits)
    return len(some) / (time.perf_counter() - warm)


def _extract(extractor: ExtractionCore, rows: list[dict[str, Any]], limits: ImageLimits) -> None:
    for _ in extractor.run(open_images(rows, limits.bytes)):
        pass
