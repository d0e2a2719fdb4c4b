"""Learning words: what a recognizer's run learns from, and what its epochs are judged by: words that are all right."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import tensorflow as tf
from matplotlib.figure import Figure

from features.runtime.keras_settings import keras
from trainer.data.augmentation import Augmentation
from trainer.data.captcha_batches import CaptchaBatchReader, sampled_order, shuffled_order
from trainer.data.captcha_data import CaptchaData
from trainer.data.prefetch import raise_read_errors
from trainer.data.table_selection import LabelledTables
from trainer.models.recognizer import Recognizer
from trainer.reports.plots import recognizer_figure
from trainer.runs.metadata import RecognizerMetadata
from trainer.training.compile_model import compile_model, making
from trainer.training.epoch_metrics import RecognizerMetrics
from trainer.training.training_loop import Epoch
from trainer.training.warm_start import WarmStart

_HELD_OUT_BATCH = 256


class RecognitionTask:
    """Words in images; a `trainer.training.training_loop.TrainingTask`.

    Args:
        root: Path. The run directory.
        record: RecognizerMetadata. What the run is.
        tables: LabelledTables. Where pixels come from.
        data: CaptchaData. Images and words.
        warm: WarmStart or None. The run that it begins with.
    """

    unit = "images"
    figures = RecognizerMetrics

    def __init__(
        self,
        root: Path,
        record: RecognizerMetadata,
        tables: LabelledTables,
        data: CaptchaData,
        warm: WarmStart | None = None,
    ) -> None:
        self.root = root
        self.metadata = record
        self.data = data
        self._warm = warm
        self.config = record.training
        self.steps = self.config.steps_per_epoch or -(-len(data.train) // self.config.batch_size)
        longest = record.config.max_label_length
        self._reader = CaptchaBatchReader(data.train, tables.features, longest)
        self._augmentation = Augmentation(
            seed=self.config.seed,
            shift=self.config.augment_translation,
            zoom=self.config.augment_zoom,
            color=self.config.augment_color_jitter,
            hue=self.config.augment_channel_permutation,
            cover=self.config.augment_random_erasing,
        )
        self._held_out = None
        if record.validation_split:
            read = data.splits[record.validation_split].first(self.config.num_validation_images)
            self._held_out = CaptchaBatchReader(read, tables.features, longest)

    def compiled(self) -> tuple[Recognizer, list[keras.Metric]]:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        with making(self.config):
            model = self.metadata.build(self.root)
            compile_model(model, self.config, self.steps)
        return model, [model.head_loss, model.exact_match]

    def begin(self, model: Recognizer) -> None:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        if self._warm:
            self._warm.put_into(model, self.metadata, self.root)

    def epoch(self, number: int) -> Epoch:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        size, seed, images = self.config.batch_size, self.config.seed, len(self.data.train)
        if self.config.steps_per_epoch:
            order = sampled_order(images, size, seed, number, self.steps)
        else:
            order = shuffled_order(images, size, seed, number)
        change = self._augmentation.of_epoch(number)
        return Epoch(records=order.size, batches=lambda first: self._reader.dataset(order, first, change))

    def held_out(self) -> tf.data.Dataset | None:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return self._held_out.everything(_HELD_OUT_BATCH) if self._held_out else None

    def judge(self) -> dict[str, float]:
        """Nothing: what is measured says it all."""
        return {}

    def show(self, epoch: int) -> None:
        """Nothing: words are right or wrong."""

    def reading(self) -> AbstractContextManager[None]:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return raise_read_errors(self._reader, self._held_out)

    def plot(self, history: Sequence[RecognizerMetrics]) -> Figure:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return recognizer_figure(history)

    def told(self) -> dict[str, Any]:
        """As `trainer.training.training_loop.TrainingTask` has it."""
        return {
            "images": {split: len(images) for split, images in self.data.splits.items()},
            "without_label": self.data.without_label,
            "without_features": self.data.without_features,
        }
