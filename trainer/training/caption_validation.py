"""Generates captions of the validation split during training: CIDEr-D and sample captions."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.text.vocabulary import detokenize
from trainer.data.caption_batches import BatchReader
from trainer.data.held_out_images import load_held_out_images
from trainer.data.table_selection import TrainingTables
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.metrics.caption_metrics import Scorer, cider_d
from trainer.models.captioner import Captioner

_BATCH = 64

_log = logging.getLogger("capt.training")


class CiderMetric:
    """Computes CIDEr-D of greedy captions of images of a split by the current weights, with the plain tokenizer.

    `rows` int64 [images] are their positions in the feature table.

    Raises:
        CaptError: pycocoevalcap is not installed.
    """

    def __init__(
        self, model: Captioner, tables: TrainingTables, split: str, rows: NDArray[np.int64], max_new_tokens: int
    ) -> None:
        Scorer()  # fails now, not after an epoch, if pycocoevalcap is missing
        self._images = load_held_out_images(tables, split).select_rows(rows)
        self._features = tables.features
        self._vocabulary = tables.caption_tables[0].vocabulary()
        self._decode = make_decoder(model, GenerationConfig(max_new_tokens=max_new_tokens))

    def __call__(self) -> float:
        """Returns CIDEr-D, from 0 to 10."""
        rows = self._images.rows
        captions = [
            detokenize(ids, self._vocabulary)
            for start in range(0, len(rows), _BATCH)
            for ids in self._decode(self._features.read(rows[start : start + _BATCH])).tokens[:, 0]
        ]
        return cider_d(dict(zip(self._images.names, captions, strict=True)), self._images.references)


class SampleLogger:
    """Logs captions, by the current weights, of `count` fixed images that are evenly spaced over a split."""

    def __init__(
        self, model: Captioner, reader: BatchReader, vocabulary: Sequence[str], count: int, max_new_tokens: int
    ) -> None:
        captions = reader.captions
        images = np.unique(np.linspace(0, len(captions.rows) - 1, count).astype(np.int64))
        self._features = reader.read_images(images) if count else None
        self._vocabulary = vocabulary
        self._references = [self._to_text(captions.get_tokens(first)) for first in captions.first[images]]
        self._decoder = make_decoder(model, GenerationConfig(max_new_tokens=max_new_tokens))

    def log(self, epoch: int) -> None:
        """Logs one line per image: the caption and a reference."""
        if self._features is None:
            return
        for ids, reference in zip(self._decoder(self._features).tokens[:, 0], self._references, strict=True):
            _log.info("epoch %d: “%s” (reference: “%s”)", epoch, self._to_text(ids), reference)

    def _to_text(self, ids: Any) -> str:
        return detokenize(ids, self._vocabulary)
