"""Defines the interface of a task for the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from features.io.atomic_files import write
from features.runtime.keras_settings import keras
from trainer.config import Hyperparameters, LoopConfig
from trainer.data.augmentation import Augmentation
from trainer.data.feature_reader import FeatureReader
from trainer.data.table_selection import TrainingTables
from trainer.data.training_data import AnySplit, TrainingData
from trainer.models.custom_models import MODEL_FILE, CustomModel
from trainer.runs.checkpoints import Progress
from trainer.runs.directory import copy_frozen_extractor, write_training_images
from trainer.runs.epoch_metrics import EpochMetrics
from trainer.runs.metadata import CaptionOrigin, FeatureOrigin, RunMetadata, library_versions
from trainer.runs.run import Run
from trainer.training.warm_start import copy_weights

AnyConfig = TypeVar("AnyConfig", bound=LoopConfig)


@dataclass(frozen=True)
class Epoch:
    """One pass over `records` training records; `batches` maps the first step to the batches from this step on."""

    records: int
    batches: Callable[[int], tf.data.Dataset]


class TrainingJob(ABC, Generic[AnyConfig, AnySplit]):
    """The data, model and metrics of one training run in the directory `root`; subclasses belong to one task.

    Attributes:
        unit: Name of the records: `captions` or `images`.
        metric_names: Names of the loss and of the other metrics that `compile_model` returns.
        shown_metric: The metric of training that the progress bar shows.
        validation_metrics: The metrics of validation by name, the loss included; empty if they are those of training.
    """

    unit: ClassVar[str]
    metric_names: tuple[str, ...]
    shown_metric: ClassVar[str] = "loss"
    validation_metrics: Mapping[str, keras.Metric] = MappingProxyType({})

    def __init__(
        self,
        root: Path,
        hyperparameters: Hyperparameters[AnyConfig],
        tables: TrainingTables,
        data: TrainingData[AnySplit],
        warm_start: Run | None = None,
    ) -> None:
        self.root = root
        self.hyperparameters = hyperparameters
        self.tables = tables
        self.data = data
        self.warm_start = warm_start
        self.config = hyperparameters.training.resolved()
        self.metadata = self.make_metadata()
        self.augmentation = Augmentation.from_config(self.config)

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.config.steps_per_epoch or self.steps_per_pass

    @property
    @abstractmethod
    def steps_per_pass(self) -> int:
        """Steps in one pass over the train split."""

    @property
    def records_per_step(self) -> int:
        """Training records per step."""
        return self.config.batch_size

    @property
    @abstractmethod
    def readers(self) -> tuple[FeatureReader | None, ...]:
        """The readers of training and validation batches."""

    @abstractmethod
    def make_metadata(self) -> RunMetadata:
        """Returns the metadata of the run."""

    @abstractmethod
    def compile_model(self) -> tuple[keras.Model, Sequence[keras.Metric]]:
        """Builds the model with random weights from the seed; returns it compiled, and metrics as in `metric_names`."""

    @abstractmethod
    def epoch(self, number: int) -> Epoch:
        """Returns one epoch, a function of the seed and of its number, from 0."""

    @abstractmethod
    def validation_batches(self) -> tf.data.Dataset | None:
        """Returns the batches of the validation split; None without validation."""

    @staticmethod
    @abstractmethod
    def plot(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
        """Plots the metrics of the run; `from_zero` begins the axes of the values at 0."""

    def initialize(self, model: keras.Model) -> None:
        """Prepares the weights of the model before the first step of the run."""
        if self.warm_start:
            copy_weights(self.warm_start, model, self.root)

    def write_files(self) -> None:
        """Writes the files that the run needs besides metadata and weights."""
        if source := self.metadata.source:
            write(self.root / MODEL_FILE, CustomModel(self.metadata.model, source).code)
        copy_frozen_extractor(self.root, self.tables.features)
        keys = self.data.train.keys
        # A warm start was trained on the images of the other run as well.
        write_training_images(
            self.root, np.concatenate([keys, self.warm_start.training_images]) if self.warm_start else keys
        )

    def fit(
        self, model: keras.Model, epoch: Epoch, start: Progress, callback: keras.callbacks.Callback
    ) -> dict[str, float]:
        """Trains the rest of an epoch; returns the metrics of the epoch by the names of Keras."""
        history = model.fit(
            epoch.batches(start.step),
            initial_epoch=start.epoch,
            epochs=start.epoch + 1,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
        ).history
        return {name: values[-1] for name, values in history.items()}

    def monitored(self, metrics: dict[str, float]) -> tuple[float, ...]:
        """Returns the values that select the best epoch from its metrics; smaller is better."""
        return (metrics.get("val_loss", metrics["loss"]),)

    def extra_validation_metrics(self) -> dict[str, float]:
        """Computes the validation metrics that the model does not compute itself, by name."""
        return {}

    def derived_metrics(self, epoch: int, metrics: dict[str, float]) -> dict[str, float]:
        """Computes metrics from those of an epoch, from 0, by name."""
        return {}

    def log_samples(self, epoch: int) -> None:
        """Logs sample predictions after an epoch."""

    def finish(self) -> dict[str, Any]:
        """Completes the run after its last epoch; returns further values for the result of the training command."""
        return {}

    def summary(self) -> dict[str, Any]:
        """Returns the numbers of records for the result of the training command."""
        return {self.unit: {split: len(records) for split, records in self.data.splits.items()}, **self.data.skipped}

    def common_metadata(self) -> dict[str, Any]:
        """Returns the fields of `RunMetadata` that every task has, by name."""
        split, features = self.data.validation_split, self.tables.features
        return {
            "architecture": self.hyperparameters.architecture.model_dump(),
            "training": self.config,
            "datasets": tuple(dataset.name for dataset in self.tables.datasets),
            "features": FeatureOrigin(
                fingerprint=features.fingerprint,
                table_config=features.table_config,
                shape=features.shape,
                network=features.facts.network,
            ),
            "caption_tables": tuple(
                CaptionOrigin(fingerprint=table.fingerprint, table_config=table.table_config)
                for table in self.tables.caption_tables
            ),
            "train_digest": self.data.train.digest,
            "validation_digest": self.data.splits[split].digest if split else None,
            "validation_split": split,
            "libraries": library_versions(),
            "warm_start": self.warm_start.identity if self.warm_start else None,
            "source": self.hyperparameters.source,
        }
