"""Learning captions: what a captioner's run learns from, and what its epochs are judged by."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from features.runtime.keras_settings import keras
from schemas.table_config import SHORT_FINGERPRINT
from trainer.data.augmentation import Augmentation
from trainer.data.caption_batches import BatchReader, Order, epoch_order, plain_order, sampled_order, steps_per_epoch
from trainer.data.caption_data import CaptionData
from trainer.data.prefetch import raise_read_errors
from trainer.data.table_selection import TrainingTables
from trainer.models.backbone import Backbone
from trainer.models.captioner import Captioner
from trainer.models.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.reports.plots import loss_figure
from trainer.runs.metadata import CaptionerMetadata
from trainer.training.cider_metric import CiderMetric
from trainer.training.compile_model import compile_model, making
from trainer.training.epoch_metrics import CaptionerMetrics
from trainer.training.sample_logging import SampleLogger
from trainer.training.training_loop import Epoch
from trainer.training.warm_start import WarmStart

_SCALE_IMAGES = 256


class CaptioningTask:
    """Captions of images; a `trainer.training.training_loop.TrainingTask`.

    Args:
        root: Path. The run directory.
        record: CaptionerMetadata. What the run is.
        tables: Tables. Where features come from.
        data: CaptionData. The captions.
        network: Backbone or None. The extractor in the model, as a run on pixels begins with it.
        warm: WarmStart or None. The run that it begins with.
    """

    unit = "captions"
    figures = CaptionerMetrics

    def __init__(
        self,
        root: Path,
        record: CaptionerMetadata,
        tables: TrainingTables,
        data: CaptionData,
        network: Backbone | None = None,
        warm: WarmStart | None = None,
    ) -> None:
        self.root = root
        self.metadata = record
        self.data = data
        self.config = record.training
        self.steps = self.config.steps_per_epoch or steps_per_epoch(
            data.train, self.config.batch_size, self.config.captions_per_image
        )
        self._reader = _reader(data, "train", tables)
        self._held_out = _reader(data, record.validation_split, tables) if record.validation_split else None
        self._tables = tables
        self._network = network
        self._warm = warm
        self._augmentation = Augmentation.of(self.config)

    def compiled(self) -> tuple[Captioner, list[keras.Metric]]:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        with making(self.config):
            model = self.metadata.build(self.root)
            learning = model.feature_normalization.network.trainable_variables if self.metadata.extractor else ()
            metrics = [CrossEntropy(model.ignored_ids), MaskedAccuracy(model.ignored_ids)]
            loss = MaskedCrossEntropy(self.config.label_smoothing, model.ignored_ids)
            compile_model(model, self.config, self.steps, loss, metrics, learning, self.config.extractor_lr_multiplier)
        self._samples = self._make_samples(model)
        self._judge = self._make_judge(model)
        return model, metrics

    def _make_judge(self, model: Captioner) -> CiderMetric | None:
        split = self.metadata.validation_split
        if self.config.monitor == "val_loss" or split is None:
            return None
        return CiderMetric(model, self._tables, split, self.metadata.max_new_tokens)

    def _make_samples(self, model: Captioner) -> SampleLogger:
        reader, words = self._held_out or self._reader, self._tables.texts[0].vocabulary()
        return SampleLogger(model, reader, words, self.config.num_sample_captions, self.metadata.max_new_tokens)

    def begin(self, model: Captioner) -> None:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        if self._network:
            model.feature_normalization.network.set_weights(self._network.function.model.get_weights())
        counts = np.bincount(self.data.train.tokens, minlength=self.metadata.vocabulary)
        model.adapt(self._reader.sample(_SCALE_IMAGES), counts)
        if self._warm:
            self._warm.put_into(model, self.metadata, self.root, tuple(self._tables.texts[0].vocabulary()))

    def epoch(self, number: int) -> Epoch:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        order = self._order(number)
        change = self._augmentation and self._augmentation.of_epoch(number)
        return Epoch(
            records=sum(map(len, order)),
            batches=lambda first: self._reader.dataset(order, self.config.batch_size, first, change),
        )

    def _order(self, epoch: int) -> Order:
        train, size, seed = self.data.train, self.config.batch_size, self.config.seed
        if self.config.steps_per_epoch:
            return sampled_order(train, size, seed, epoch, self.steps, self.config.captions_per_image)
        return epoch_order(train, size, seed, epoch, self.config.captions_per_image)

    def held_out(self) -> tf.data.Dataset | None:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        if self._held_out is None:
            return None
        size = self.config.batch_size
        return self._held_out.dataset(plain_order(self._held_out.captions, size), size)

    def judge(self) -> dict[str, float]:
        """CIDEr-D, where the run is judged by it."""
        return {"val_cider_d": self._judge()} if self._judge else {}

    def show(self, epoch: int) -> None:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        self._samples.show(epoch)

    def reading(self) -> AbstractContextManager[None]:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return raise_read_errors(self._reader, self._held_out)

    def plot(self, history: Sequence[CaptionerMetrics]) -> Figure:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return loss_figure(history)

    def told(self) -> dict[str, Any]:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return {
            "text": [origin.fingerprint[:SHORT_FINGERPRINT] for origin in self.metadata.text],
            "captions": {split: len(captions) for split, captions in self.data.splits.items()},
            "without_features": self.data.without_features,
        }


def _reader(data: CaptionData, split: str, tables: TrainingTables) -> BatchReader:
    # TensorFlow's graphs take any shape; other backends compile each anew.
    words, images = (1, 1) if keras.backend.backend() == "tensorflow" else (4, 8)
    return BatchReader(data.splits[split], tables.features, round_words=words, round_images=images)
