"""Defines the interface of a task for training, evaluation, prediction, export, experiments and retraining."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from features.store import Store
from schemas.errors import UsageError
from schemas.options.inference import Evaluate
from schemas.options.training import TrainingOptions
from trainer.config import Hyperparameters
from trainer.data.table_selection import TrainingTables
from trainer.data.training_data import TrainingData
from trainer.evaluation.bootstrap import MetricSamples, Score
from trainer.evaluation.evaluate import Evaluation
from trainer.runs.metadata import RunMetadata
from trainer.runs.run import Run

if TYPE_CHECKING:
    from trainer.export.run_graph import GraphRun
    from trainer.training.training_job import TrainingJob


class Task(ABC):
    """A task. All differences between captioning and CAPTCHA recognition are in its subclasses.

    To add a task, write a subclass, and add its

    - module and class to `trainer.task_registry.TASKS`;
    - metadata, a `RunMetadata` whose `task` is the literal name, and its `Run` and `Evaluation`;
    - options, a `TrainingOptions` in `schemas/options/training.py`, and its commands to `schemas/options/commands.py`;
    - preparation to `workflows.prepared_tasks.PREPARATIONS`, and a new `capt prepare` command to `ExperimentConfig`.

    Attributes:
        name: Name in `run.json`, experiments and registered models.
        description: Verb phrase about a run of the task, for errors.
        command: The command that predicts with its runs.
        choice: The option that sets default hyperparameters: `model` or `profile`.
        metrics: Titles of its metrics by name, the primary metric first.
        paired_metrics: The metrics that `sample_metrics` supports, the primary metric first.
        lower_is_better: The metrics for which lower values are better.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    command: ClassVar[str]
    options: ClassVar[type[TrainingOptions]]
    choice: ClassVar[str] = "model"
    metadata: ClassVar[type[RunMetadata]]
    run: ClassVar[type[Run]]
    evaluation: ClassVar[type[Evaluation[Any, Any, Any]]]
    metrics: ClassVar[Mapping[str, str]]
    paired_metrics: ClassVar[tuple[str, ...]]
    lower_is_better: ClassVar[tuple[str, ...]] = ()

    # === Training ===

    @abstractmethod
    def parse(self, choice: str | None, options: Mapping[str, Any]) -> Hyperparameters[Any]:
        """Parses the value of the option `choice`, None for its default, and further hyperparameters by name.

        Raises:
            UsageError: An option is unknown or invalid.
        """

    @abstractmethod
    def check_shape(self, hyperparameters: Hyperparameters[Any], shape: tuple[int, ...], location: str) -> None:
        """Raises UsageError if the model does not read features of this shape."""

    @abstractmethod
    def select_tables(
        self, store: Store, options: TrainingOptions, hyperparameters: Hyperparameters[Any]
    ) -> TrainingTables:
        """Selects the tables to train on; raises StoreError if no table fits, or several do."""

    @abstractmethod
    def load_data(self, tables: TrainingTables) -> TrainingData[Any]:
        """Joins references to features; raises CaptError if the train split is empty."""

    def resolve(
        self,
        hyperparameters: Hyperparameters[Any],
        tables: TrainingTables,
        data: TrainingData[Any],
        warm_start: Run | None = None,
    ) -> Hyperparameters[Any]:
        """Returns the hyperparameters with those that follow from the data and the run of the initial weights.

        Raises:
            UsageError: The model cannot be trained on the data.
        """
        return hyperparameters

    @abstractmethod
    def job_class(self) -> "type[TrainingJob[Any, Any]]":
        """Imports Keras, and returns the class of the task's training jobs."""

    def make_job(
        self,
        root: Path,
        hyperparameters: Hyperparameters[Any],
        tables: TrainingTables,
        data: TrainingData[Any],
        warm_start: Run | None = None,
    ) -> "TrainingJob[Any, Any]":
        """Imports Keras, and returns the job of a run; arguments as of `TrainingJob`."""
        return self.job_class()(root, hyperparameters, tables, data, warm_start)

    # === Runs ===

    def default_training(self, metadata: RunMetadata) -> tuple[str, Mapping[str, Any]]:
        """Returns the name of a run's defaults, and the hyperparameters that they set, by name."""
        return f"the model {metadata.model}", metadata.config.training_defaults

    def export_graph(self, run: Any, options: Any, run_dir: Path) -> "tuple[GraphRun, int]":
        """Builds the TensorFlow graph of a run for `capt export`; `run_dir` has no characters of patterns.

        Returns:
            The graph, and the size of the vocabulary or character set.

        Raises:
            UsageError: The task or the options do not support export.
        """
        raise UsageError(f"runs of the task {self.name} cannot be exported", location=str(run.path))

    def combine(self, run: Any, others: Sequence[str]) -> Any:
        """Opens other runs and combines them with `run` to an ensemble, which is a run itself.

        Raises:
            UsageError: The task has no ensembles, or a run cannot be a member.
        """
        raise UsageError(f"the task {self.name} has no ensembles", location="--ensemble", hint="Omit the option.")

    # === Evaluation ===

    def check_evaluation(self, options: Evaluate) -> None:  # noqa: B027
        """Raises UsageError if the options of `capt evaluate` do not fit the task."""

    @abstractmethod
    def sample_metrics(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> MetricSamples:
        """Scores one predicted text per image for the paired bootstrap."""

    def read_scores(self, evaluated: Mapping[str, Any]) -> dict[str, Score]:
        """Returns the metrics in a result of `capt evaluate`, with their 95% confidence intervals."""
        intervals = evaluated["intervals"]
        return {name: Score.build(evaluated[name], intervals.get(name)) for name in self.metrics if name in evaluated}

    # === Retraining ===

    def text_length(self, text: str) -> int:
        """Returns the length of a reference: words of a caption, characters of a label."""
        return len(text.split())

    def oov_rate(self, run: Any, texts: Sequence[str]) -> float:
        """Returns the fraction of the words of references that are not in the run's vocabulary.

        Recognizers count labels with characters that they cannot output.
        """
        return 0.0
