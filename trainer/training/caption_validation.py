"""Computes CIDEr-D of the validation split during training."""

import numpy as np
from numpy.typing import NDArray

from features.text.vocabulary import detokenize
from trainer.data.held_out_images import load_held_out_images
from trainer.data.table_selection import TrainingTables
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.metrics.caption_metrics import Scorer, cider_d
from trainer.models.captioner import Captioner

_BATCH = 64


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
