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


def find_quantized_extractor(root: Path, store: Path) -> FrozenExtractor | None:
    """Returns a table's quantized network; None if it has none, or an unusable one on which no row depends.

    `root` is the table's directory, `store` the directory of the store. Writes nothing.

    Raises:
        StoreError: The network of the table's rows is corrupt or missing.
    """
    known = frozen_extractor.look_up(root, store, _FORMAT)
    if known is None or known.is_intact():
        return known
    if frozen_extractor.is_committed(root, store, known):
        raise _cannot_quantize_again(known)
    return None


def repair_quantized_extractor(root: Path, known: FrozenExtractor) -> None:
    """Restores the record of a table's quantized network; StoreError if the network is corrupt or missing."""
    if not known.is_intact():
        raise _cannot_quantize_again(known)
    frozen_extractor.restore_record(root, known)


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
        StoreError: The network of the table's rows is corrupt or missing.
        CaptError: Too few images can be decoded, or their features are not finite.
        UsageError: A package is not installed.
    """
    known = find_quantized_extractor(root, store)
    if known is None:
        (root / EXTRACTOR_RECORD).unlink(missing_ok=True)  # It names no usable network.
        record, data = _quantize(table_config, extractor, _decode_calibration_images(table_config, rows, limits))
        write(record.path(store), data)
        put_if_absent(root / EXTRACTOR_RECORD, record.encode())
        known = find_quantized_extractor(root, store)
        if known is None:
            message = "another command has removed the table's quantized network"
            raise StoreError(message, location=str(root), hint="Run the command again.")
    frozen_extractor.restore_record(root, known)
    return known


def _cannot_quantize_again(known: FrozenExtractor) -> StoreError:
    return StoreError(
        "the quantized network of the table's rows is corrupt or missing, and a new one can be another",
        location=str(known.path),
        hint="Restore the file from a copy of the store, or prepare the features in another --store.",
    )


def _quantize(table_config: FeatureTableConfig, extractor: Extractor, pixels: Pixels) -> tuple[ExtractorRecord, bytes]:
    check_installed("--precision", "nncf")
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
    return ExtractorRecord(hashlib.sha256(network.data).hexdigest(), _FORMAT, shape), network.data


def _report(cosines: NDArray[np.float64]) -> None:
    """Logs how close the features of calibration images are to float32."""
    text = f"{cosines.mean():.4f} on average and {cosines.min():.4f} at worst"
    if not cosines.mean() >= 1 - MAX_LOSS:
        _log.warning("int8 features of the calibration images have a cosine to float32 of only %s.", text)
    else:
        _log.info("int8 features of the calibration images have a cosine to float32 of %s.", text)


def _decode_calibration_images(
    table_config: FeatureTableConfig, rows: Iterable[dict[str, Any]], limits: ImageLimits
) -> Pixels:
    """Returns the pixels [N, height, width, 3] of the first images that can be decoded."""
    resizer, remaining, count = Resizer.from_table_config(table_config), iter(rows), 0
    pixels = np.empty((CALIBRATION_IMAGES, table_config.height, table_config.width, 3), resizer.dtype)
    # As many at a time as are needed, because images in Parquet are read in blocks.
    while some := [*islice(remaining, CALIBRATION_IMAGES - count)]:
        for image in open_images(some, limits.bytes):
            try:
                pixels[count] = decode(image.read(), resizer, max_pixels=limits.pixels)
                count += 1
            except Exception as error:  # The job records the failure when it extracts the image.
                _log.debug("Not a calibration image: %s", error)
    if count < MIN_CALIBRATION_IMAGES:
        raise CaptError(
            f"int8 needs {MIN_CALIBRATION_IMAGES} images to calibrate a new table, and {count} can be decoded",
            location="--precision",
            hint="Prepare more images at first, or use --precision float32.",
        )
    return pixels[:count]
