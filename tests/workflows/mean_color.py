"""A third, tiny task: names the mean color of an image, by one dense layer on its mean pixel."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from features.store import Store
from schemas.options.training import DATASETS, WARM_START_FROM, RunDir, StoreToRead, TrainingOptions
from schemas.terminal.console import Printer
from trainer.config import Hyperparameters, LoopConfig, parse_parts
from trainer.data.captcha_data import LabelledImages, join_labels, load_labelled_images
from trainer.data.held_out_images import HeldOutImages
from trainer.data.table_selection import TrainingTables, select_labelled_tables
from trainer.data.training_data import TrainingData
from trainer.evaluation.bootstrap import MetricSamples, bootstrap_intervals, sample_labels
from trainer.evaluation.evaluate import EvaluatedRun, Evaluation
from trainer.models.configs import ModelConfig
from trainer.models.model_specs import RECOGNIZER_INPUT
from trainer.runs.epoch_metrics import EpochMetrics
from trainer.runs.metadata import RunMetadata
from trainer.runs.run import Run
from trainer.tasks.task import Task

COLORS = ("blue", "green", "red")


class ColorConfig(ModelConfig):
    scale: float = 1.0


class ColorMetadata(RunMetadata):
    task: Literal["mean_color"] = "mean_color"
    model: Literal["linear"] = "linear"

    @property
    def config(self) -> ColorConfig:
        return ColorConfig(**self.architecture)

    def build(self, root: Path) -> Any:
        from features.runtime.keras_settings import keras

        layers = keras.layers
        return keras.Sequential(
            [
                layers.Input(self.features.shape),
                layers.Rescaling(self.config.scale / 255),
                layers.GlobalAveragePooling2D(),
                layers.Dense(len(COLORS)),
            ]
        )


class ColorRun(Run):
    def predict_texts(self, features: NDArray[Any]) -> list[str]:
        return [COLORS[number] for number in np.argmax(self.model.predict(features, verbose=0), axis=1)]


class ColorEvaluation(Evaluation[ColorRun, str, NDArray[np.bool_]]):
    page = "colors.html"
    default_examples = "worst"

    def load(self, run: ColorRun, tables: TrainingTables, split: str) -> HeldOutImages:
        return load_labelled_images(tables, split, lambda dataset: False)

    def predict(self, run: ColorRun, features: NDArray[Any], numbers: range) -> list[str]:
        return run.predict_texts(features)

    def score(self, held_out: HeldOutImages, predictions: list[str]) -> NDArray[np.bool_]:
        return np.array(held_out.labels) == np.array(predictions)

    def summarize(self, evaluated: EvaluatedRun[ColorRun, str, NDArray[np.bool_]]) -> dict[str, Any]:
        correct = evaluated.scores
        intervals = bootstrap_intervals(sample_labels(correct))
        return {"images": len(correct), "exact_match": float(correct.mean()), "intervals": intervals}

    def to_text(self, prediction: str) -> str:
        return prediction

    def image_columns(
        self, evaluated: EvaluatedRun[ColorRun, str, NDArray[np.bool_]]
    ) -> Mapping[str, Sequence[object]]:
        return {"exact_match": evaluated.scores.astype(int).tolist()}

    def render_page(
        self,
        evaluated: EvaluatedRun[ColorRun, str, NDArray[np.bool_]],
        summary: Mapping[str, Any],
        notes: Sequence[str],
    ) -> str:
        return "<p>colors</p>"

    @staticmethod
    def print_tables(printer: Printer, results: Sequence[Mapping[str, Any]]) -> None:
        rows = [[one["run_dir"], one["exact_match"]] for one in results]
        printer.table("colors", ("run",), ("exact match",), rows)


class TrainColor(TrainingOptions):
    """Train the third task."""

    store: StoreToRead
    run_dir: RunDir
    model: str = "linear"
    dataset: tuple[str, ...] = DATASETS
    feature_table: str | None = None
    warm_start_from: str | None = WARM_START_FROM


class MeanColorTask(Task):
    name = "mean_color"
    description = "names colors"
    command = "capt color"
    options = TrainColor
    metadata = ColorMetadata
    run = ColorRun
    evaluation = ColorEvaluation
    metrics: ClassVar[Mapping[str, str]] = {"exact_match": "exact match"}
    paired_metrics = ("exact_match",)

    def parse(self, choice: str | None, options: Mapping[str, Any]) -> Hyperparameters[LoopConfig]:
        training, architecture = parse_parts(LoopConfig, ColorConfig, options)
        return Hyperparameters({"model": "linear"}, "linear", training, architecture)

    def check_shape(self, hyperparameters: Hyperparameters[Any], shape: tuple[int, ...], location: str) -> None:
        RECOGNIZER_INPUT.check_shape(shape, location)

    def select_tables(
        self, store: Store, options: TrainingOptions, hyperparameters: Hyperparameters[Any]
    ) -> TrainingTables:
        assert isinstance(options, TrainColor)
        return select_labelled_tables(store, RECOGNIZER_INPUT, options.dataset, options.feature_table)

    def load_data(self, tables: TrainingTables) -> TrainingData[LabelledImages]:
        return join_labels(tables)

    def job_class(self) -> Any:
        return _define_job()

    def sample_metrics(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> MetricSamples:
        return sample_labels(np.array([labels[0] for labels in references]) == np.array(texts))


def _define_job() -> Any:
    import tensorflow as tf

    from features.runtime.keras_settings import keras
    from trainer.data.labelled_batches import LabelledBatchReader, shuffle_images
    from trainer.reports.plots import loss_figure
    from trainer.training.compile_model import build_scope, compile_model
    from trainer.training.training_job import Epoch, TrainingJob

    class ColorJob(TrainingJob[LoopConfig, LabelledImages]):
        unit = "images"
        metric_names = ("loss", "exact_match")

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.train, self.validation = (self._open_reader(split) for split in ("train", "val"))

        @property
        def steps_per_pass(self) -> int:
            return -(-len(self.data.train) // self.config.batch_size)

        @property
        def readers(self) -> tuple[LabelledBatchReader, ...]:
            return self.train, self.validation

        def make_metadata(self) -> ColorMetadata:
            return ColorMetadata(**self.common_metadata())

        def compile_model(self) -> tuple[keras.Model, list[keras.Metric]]:
            with build_scope(self.config):
                model = self.metadata.build(self.root)
                metrics = [
                    keras.metrics.SparseCategoricalCrossentropy("cross_entropy", from_logits=True),
                    keras.metrics.SparseCategoricalAccuracy("accuracy"),
                ]
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                compile_model(model, self.config, self.steps, loss, metrics)
            return model, metrics

        def epoch(self, number: int) -> Epoch:
            order = shuffle_images(len(self.data.train), self.config.batch_size, self.config.seed, number)
            return Epoch(order.size, lambda first: self.train.dataset(order, first))

        def validation_batches(self) -> tf.data.Dataset | None:
            return self.validation.all_images(64)

        @staticmethod
        def plot(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
            return loss_figure(history, from_zero=from_zero)

        def _open_reader(self, split: str) -> LabelledBatchReader:
            images = self.data.splits[split]
            targets = np.array([COLORS.index(label) for label in images.labels], np.int32)
            return LabelledBatchReader(self.tables.features, images.rows, targets)

    return ColorJob
