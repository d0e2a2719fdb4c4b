"""Logs captions of fixed images after each epoch: of validation images, and of image files of the user."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.extraction import ExtractedRow, ExtractionCore
from features.extractors.runtimes import load_shared_extractor
from features.store.storage_dtypes import decode
from features.text.vocabulary import detokenize
from schemas.errors import UsageError
from schemas.table_config import IMPORTED, FeatureTableConfig
from trainer.data.caption_batches import BatchReader
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import parse_generation
from trainer.models.captioner import Captioner
from trainer.runs.directory import locate_extractor
from trainer.runs.run import IMPORTED_PROBLEM, to_encoded_images
from trainer.training.sample_images import unusable_image

_log = logging.getLogger("capt.training")


@dataclass(frozen=True)
class SampleImages:
    """Images that are captioned after each epoch.

    Args:
        features: float [N, *shape].
        names: The name of each image before its captions; empty for validation images.
        references: A reference of each image behind its captions; empty for images without one.
    """

    features: NDArray[Any]
    names: tuple[str, ...]
    references: tuple[str, ...]


class SampleLogger:
    """Logs captions of sample images by the current weights, one per temperature; 0 is greedy decoding."""

    def __init__(
        self,
        model: Captioner,
        samples: Sequence[SampleImages],
        vocabulary: Sequence[str],
        temperatures: Sequence[float],
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self._samples = samples
        self._vocabulary = vocabulary
        common = {"max_new_tokens": max_new_tokens, "seed": seed}
        self._decoders = {
            temperature: make_decoder(model, parse_generation({**common, "temperature": temperature}))
            for temperature in temperatures
        }

    def log(self, epoch: int) -> None:
        """Logs one line per image and temperature: the caption, and a reference if there is one."""
        for samples in self._samples:
            captions = {
                temperature: [detokenize(ids, self._vocabulary) for ids in decoder(samples.features).tokens[:, 0]]
                for temperature, decoder in self._decoders.items()
            }
            for number, (name, reference) in enumerate(zip(samples.names, samples.references, strict=True)):
                for temperature, texts in captions.items():
                    self._log_caption(epoch, name, temperature, texts[number], reference)

    def _log_caption(self, epoch: int, name: str, temperature: float, text: str, reference: str) -> None:
        is_greedy_only = tuple(self._decoders) == (0,)
        parts = [part for part in (name, "" if is_greedy_only else f"temperature {temperature:g}") if part]
        label = f"{', '.join(parts)}: " if parts else ""
        _log.info("epoch %d: %s“%s”%s", epoch, label, text, f" (reference: “{reference}”)" if reference else "")


def select_validation_samples(reader: BatchReader, vocabulary: Sequence[str], count: int) -> SampleImages:
    """Selects `count` images that are evenly spaced over the reader's split, at least one."""
    captions = reader.captions
    images = np.unique(np.linspace(0, len(captions.rows) - 1, count).astype(np.int64))
    references = tuple(detokenize(captions.get_tokens(first), vocabulary) for first in captions.first[images])
    return SampleImages(reader.read_images(images), ("",) * len(images), references)


def extract_sample_images(root: Path, table_config: FeatureTableConfig, paths: Sequence[str]) -> SampleImages:
    """Extracts the features of image files with the extractor of the run in `root`.

    Raises:
        UsageError: An image cannot be read, decoded or extracted, or the run is trained on imported features.
    """
    if table_config.extractor == IMPORTED:
        raise UsageError(IMPORTED_PROBLEM, location="sample_images", hint="Omit sample_images.")
    extractor = load_shared_extractor(locate_extractor(root), table_config)
    results = ExtractionCore.for_extractor(table_config, extractor).run(to_encoded_images(paths))
    rows = []
    for path, result in zip(paths, results, strict=True):
        if not isinstance(result, ExtractedRow):
            raise unusable_image(path, result.error)
        rows.append(result.values)
    stacked = {name: np.stack([values[name] for values in rows]) for name in rows[0]}
    return SampleImages(decode(stacked), short_names(paths), ("",) * len(paths))


def short_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the file names of paths, or the paths if two files have the same name."""
    names = tuple(path.rpartition("/")[2] for path in paths)
    return names if len(set(names)) == len(set(paths)) else tuple(paths)
