"""Finds or makes the quantized network of a feature table in int8.

The network depends on its calibration images, so a table has exactly one. The first job on a new table quantizes it,
and every later job, worker and dataset computes with the same file.
"""

import hashlib
import logging
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.extractor import Extractor
from features.extractors.quantized_model import MAX_LOSS, check_installed, quantize
from features.images.decode import ImageLimits, decode
from features.images.resize import Pixels, Resizer
from features.io.atomic_files import put_if_absent, write
from features.store.extractor_record import ExtractorRecord
from features.store.layout import EXTRACTOR_RECORD
from pipelines.jobs import frozen_extractor
from pipelines.jobs.frozen_extractor import FrozenExtractor
from pipelines.jobs.image_blocks import open_images
from schemas.choices import ExtractorFormat
from schemas.errors import CaptError, StoreError
from schemas.table_config import FeatureTableConfig

CALIBRATION_IMAGES = 100
MIN_CALIBRATION_IMAGES = 10

_FORMAT: ExtractorFormat = "openvino"

_log = logging.getLogger("capt.prepare")


def find_or_quantize_extractor(
    root: Path,
    store: Path,
    table_config: FeatureTableConfig,
    extractor: Extractor,
    rows: Iterable[dict[str, Any]],
    limits: ImageLimits,
) -> FrozenExtractor:
    """Returns a table's quantized network. If the table has none, quantizes its extractor and records it.

    `root` is the table's directory, `store` the directory of the store, and `rows` are those of work units, by content
    hash: the first images that can be decoded are the calibration images. If several jobs quantize at the same time,
    they use the network that is recorded first.

    Raises:
        StoreError: The table's network is corrupt or missing.
        CaptError: Too few images can be decoded.
        UsageError: A package is not installed.
    """
    known = frozen_extractor.look_up(root, store, _FORMAT)
    if known is None:
        check_installed("--precision", "nncf")
        pixels = _decode_calibration_images(table_config, rows, limits)
        _log.info("Quantizing extractor %s with %d calibration images.", table_config.extractor, len(pixels))
        if len(pixels) < CALIBRATION_IMAGES:
            _log.warning(
                "Only %d images, not %d, calibrate the int8 network of this table. Later images do not change it.",
                len(pixels),
                CALIBRATION_IMAGES,
            )
        in_float32 = table_config.model_copy(update={"precision": "float32"})
        graph, shape = frozen_extractor.build_graph(in_float32, extractor)
        network = quantize(graph, pixels)
        _report(network.cosines)
        record = ExtractorRecord(hashlib.sha256(network.data).hexdigest(), _FORMAT, shape)
        write(record.path(store), network.data)
        put_if_absent(root / EXTRACTOR_RECORD, record.encode())
        known = frozen_extractor.look_up(root, store, _FORMAT)
    if known is None or not known.is_intact():
        raise StoreError(
            "the table's quantized network is corrupt or missing, and quantizing again would give another one",
            location=str(known.path if known else root / EXTRACTOR_RECORD),
            hint="Restore the file from a copy of the store, or prepare the features in another --store.",
        )
    if not (root / EXTRACTOR_RECORD).is_file():
        write(root / EXTRACTOR_RECORD, known.record.encode())
    return known


def _report(cosines: NDArray[np.float64]) -> None:
    """Logs how close the features of calibration images are to float32."""
    text = f"{cosines.mean():.4f} on average and {cosines.min():.4f} at worst"
    if cosines.mean() < 1 - MAX_LOSS:
        _log.warning("int8 features of the calibration images have a cosine to float32 of only %s.", text)
    else:
        _log.info("int8 features of the calibration images have a cosine to float32 of %s.", text)


def _decode_calibration_images(
    table_config: FeatureTableConfig, rows: Iterable[dict[str, Any]], limits: ImageLimits
) -> Pixels:
    """Returns the pixels [N, height, width, 3] of the first images that can be decoded."""
    resizer, remaining, pixels = Resizer.from_table_config(table_config), iter(rows), list[Pixels]()
    # As many at a time as are needed, because images in Parquet are read in blocks.
    while some := [*islice(remaining, CALIBRATION_IMAGES - len(pixels))]:
        for image in open_images(some, limits.bytes):
            try:
                pixels.append(decode(image.read(), resizer, max_pixels=limits.pixels))
            except Exception as error:  # The job records the failure when it extracts the image.
                _log.debug("Not a calibration image: %s", error)
    if len(pixels) < MIN_CALIBRATION_IMAGES:
        raise CaptError(
            f"int8 needs {MIN_CALIBRATION_IMAGES} images to calibrate a new table, and {len(pixels)} can be decoded",
            location="--precision",
            hint="Prepare more images at first, or use --precision float32.",
        )
    return np.stack(pixels)
