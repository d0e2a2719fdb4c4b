"""Provides data, model and metrics of a CAPTCHA recognizer to the training loop."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray

from features.io.atomic_files import write
from features.runtime.keras_settings import keras
from trainer.config import RecognizerTraining
from trainer.data.captcha_data import LabelledImages
from trainer.data.labelled_batches import LabelledBatchReader, mix_datasets, shuffle_images
from trainer.models.custom_models import check_recognizer
from trainer.models.recognizer import Recognizer
from trainer.reports.plots import recognizer_figure
from trainer.runs.directory import LABELS
from trainer.runs.epoch_metrics import EpochMetrics
from trainer.runs.metadata import RecognizerMetadata
from trainer.training.compile_model import build_scope, compile_model
from trainer.training.training_job import Epoch, TrainingJob

_VALIDATION_BATCH = 256


class CaptchaJob(TrainingJob[RecognizerTraining, LabelledImages]):
    """Trains a CAPTCHA recognizer; arguments as in `TrainingJob`."""

    unit = "images"
    metric_names = ("loss", "exact_match")
    metadata: RecognizerMetadata

    # Opening a reader may download shards, so it follows the checks of the run directory.
    @cached_property
    def _train(self) -> LabelledBatchReader:
        return self._open_reader(self.data.train)

    @cached_property
    def _validation(self) -> LabelledBatchReader | None:
        split, limit = self.data.validation_split, self.config.num_validation_images
        return self._open_reader(self.data.splits[split].first(limit)) if split else None

    @property
    def steps_per_pass(self) -> int:
        return -(-len(self.data.train) // self.config.batch_size)

    @property
    def readers(self) -> tuple[LabelledBatchReader | None, ...]:
        return self._train, self._validation

    def make_metadata(self) -> RecognizerMetadata:
        formats = [dataset.label_format for dataset in self.tables.datasets if dataset.label_format]
        return RecognizerMetadata(
            model=self.hyperparameters.model,
            num_labels=len(set(self.data.train.labels)),
            label_format=formats[0] if formats else None,
            **self.common_metadata(),
        )

    def write_files(self) -> None:
        labels = sorted(set(self.data.train.labels))
        write(self.root / LABELS, "".join(f"{label}\n" for label in labels).encode())
        super().write_files()
        if self.metadata.source:
            check_recognizer(self.metadata.build(self.root), self.metadata.model, self.metadata.features.shape)

    def compile_model(self) -> tuple[Recognizer, list[keras.Metric]]:
        with build_scope(self.config):
            model = self.metadata.build(self.root)
            compile_model(model, self.config, self.steps)
        return model, [model.head_loss, model.exact_match]

    def epoch(self, number: int) -> Epoch:
        order = self._order_images(number)
        augment = self.augmentation.for_epoch(number) if self.augmentation else None
        return Epoch(order.size, lambda first: self._train.dataset(order, first, augment))

    def _order_images(self, epoch: int) -> NDArray[np.int64]:
        config, steps = self.config, self.config.steps_per_epoch
        if config.dataset_weights:
            numbers = {dataset.name: number for number, dataset in enumerate(self.tables.datasets)}
            datasets = np.array([numbers[dataset] for dataset, _ in self.data.train.names])
            return mix_datasets(datasets, config.dataset_weights, config.batch_size, config.seed, epoch, steps)
        return shuffle_images(len(self.data.train), config.batch_size, config.seed, epoch, steps)

    def validation_batches(self) -> tf.data.Dataset | None:
        return self._validation.all_images(_VALIDATION_BATCH) if self._validation else None

    def monitored(self, metrics: dict[str, float]) -> tuple[float, ...]:
        if "val_exact_match" in metrics:
            return -metrics["val_exact_match"], metrics["val_loss"]
        return -metrics["exact_match"], metrics["loss"]

    @staticmethod
    def plot(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
        return recognizer_figure(history, from_zero=from_zero)

    def _open_reader(self, images: LabelledImages) -> LabelledBatchReader:
        length = self.metadata.config.max_label_length
        return LabelledBatchReader(self.tables.features, images.rows, images.encode(length))
