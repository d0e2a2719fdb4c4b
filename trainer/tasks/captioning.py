"""Implements the task `captioner`: generation of captions for images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from features.store import Store
from schemas.errors import UsageError
from schemas.options.inference import Evaluate, Export
from schemas.options.training import TrainCaptioner, TrainingOptions
from schemas.table_config import UNKNOWN
from trainer.config import OBJECTIVE_DEFAULTS, CaptionerTraining, Hyperparameters, parse_options
from trainer.data.caption_data import Captions, join_captions
from trainer.data.table_selection import TrainingTables, select_tables
from trainer.data.training_data import TrainingData
from trainer.decoding.generation import parse_generation
from trainer.evaluation.bootstrap import MetricSamples, sample_captions
from trainer.evaluation.caption_evaluation import CaptionEvaluation
from trainer.evaluation.slices import parse_slices
from trainer.metrics.caption_metrics import METRICS, RESAMPLED_METRICS, TITLES, Scorer
from trainer.models.model_specs import ModelSpec, PixelInput, model_spec
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.directory import TRANSFORM
from trainer.runs.metadata import CaptionerMetadata, RunMetadata
from trainer.runs.run import Run
from trainer.tasks.task import Task
from trainer.training.sample_images import check_sample_images
from trainer.training.train import train

if TYPE_CHECKING:
    from trainer.export.run_graph import GraphRun
    from trainer.tasks.captioning_job import CaptioningJob

# CIDEr-D agrees best with human judgment.
_PRIMARY_METRIC = "cider_d"
_TOKENIZED_AT_ONCE = 4096
_SENTENCE_TOKENS = 2  # start and end token

_Hyperparameters = Hyperparameters[CaptionerTraining]


class CaptioningTask(Task):
    """Captions images, from a feature table and a caption table."""

    name = "captioner"
    description = "captions images"
    command = "capt caption"
    options = TrainCaptioner
    metadata = CaptionerMetadata
    run = CaptionerRun
    evaluation = CaptionEvaluation
    metrics: ClassVar[Mapping[str, str]] = {name: TITLES[name] for name in sorted(METRICS, key=_PRIMARY_METRIC.__ne__)}
    paired_metrics = tuple(name for name in metrics if name in RESAMPLED_METRICS)

    def parse(self, choice: str | None, options: Mapping[str, Any]) -> _Hyperparameters:
        spec = model_spec(choice or TrainCaptioner.model_fields["model"].default)
        if "rnn_cell" in options and "rnn_cell" not in spec.config.model_fields:
            raise UsageError(f"{spec.name} has no RNN cell", location="--rnn-cell", hint="Omit the option.")
        training, architecture = parse_options(spec.config, options)
        return Hyperparameters({"model": choice or spec.name}, spec.name, training, architecture, spec.source)

    def check_shape(self, hyperparameters: _Hyperparameters, shape: tuple[int, ...], location: str) -> None:
        _input_check(hyperparameters).check_shape(shape, location)

    def select_tables(
        self, store: Store, options: TrainingOptions, hyperparameters: _Hyperparameters
    ) -> TrainingTables:
        assert isinstance(options, TrainCaptioner)
        inputs = _input_check(hyperparameters)
        return select_tables(store, inputs, options.dataset, options.feature_table, options.caption_table)

    def load_data(self, tables: TrainingTables) -> TrainingData[Captions]:
        return join_captions(tables)

    def resolve(
        self,
        hyperparameters: _Hyperparameters,
        tables: TrainingTables,
        data: TrainingData[Captions],
        warm_start: Run | None = None,
    ) -> _Hyperparameters:
        check_sample_images(hyperparameters.training.sample_images)
        limit = hyperparameters.architecture.max_caption_length
        if limit is None:
            return hyperparameters
        if data.max_length > limit:
            raise UsageError(
                f"the longest caption has {data.max_length} tokens, and the model reads at most {limit}",
                hint=f"Set max_length to {data.max_length}, or prepare captions with --max-length {limit + 2}.",
            )
        requested = hyperparameters.training.max_new_tokens or 0
        if requested > limit + 1:
            raise UsageError(f"max_new_tokens is {requested}, and the model generates at most {limit + 1} tokens")
        return hyperparameters

    def job_class(self) -> "type[CaptioningJob]":
        from trainer.tasks.captioning_job import CaptioningJob

        return CaptioningJob

    def make_job(
        self,
        root: Path,
        hyperparameters: _Hyperparameters,
        tables: TrainingTables,
        data: TrainingData[Captions],
        warm_start: Run | None = None,
    ) -> "CaptioningJob":
        if hyperparameters.training.objective == "cross_entropy":
            return self.job_class()(root, hyperparameters, tables, data, warm_start)
        from trainer.tasks.self_critical_job import SelfCriticalJob

        return SelfCriticalJob(root, hyperparameters, tables, data, warm_start)

    def default_training(self, metadata: RunMetadata) -> tuple[str, Mapping[str, Any]]:
        name, values = super().default_training(metadata)
        assert isinstance(metadata, CaptionerMetadata)
        return name, {**values, **OBJECTIVE_DEFAULTS[metadata.training.objective]}

    def export_graph(self, run: CaptionerRun, options: Export, run_dir: Path) -> "tuple[GraphRun, int]":
        from trainer.export.run_graph import build_captioner_graph

        return build_captioner_graph(run, run.decoding(**options.generation()), run_dir), len(run.vocabulary)

    def combine(self, run: CaptionerRun, others: Sequence[str]) -> CaptionerRun:
        from trainer.runs.captioner_ensemble import combine_captioners

        return combine_captioners(run, others)

    def check_evaluation(self, options: Evaluate) -> None:
        if options.labels is not None:
            raise UsageError("captioners do not use a label file", location="--labels", hint="Omit the option.")
        for flag, value in (("--teacher-forced", options.teacher_forced), ("--attention", options.attention)):
            if value and options.ensemble:
                raise UsageError("an ensemble does not use this option", location=flag, hint="Evaluate one run.")
        parse_slices(options.slice)
        parse_generation({"max_new_tokens": 1, **options.generation(), "bad_words": None})

    def sample_metrics(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> MetricSamples:
        with Scorer(self.paired_metrics) as scorer:
            return sample_captions(scorer.score(texts, references))

    def oov_rate(self, run: CaptionerRun, texts: Sequence[str]) -> float:
        from features.text.tokenizer import Tokenizer

        tokenizer = Tokenizer(run.path / TRANSFORM)
        unknown = total = 0
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            tokens = tokenizer.tokenize(list(texts[start : start + _TOKENIZED_AT_ONCE]))
            unknown += int((tokens.ids == UNKNOWN).sum())
            total += len(tokens.ids) - _SENTENCE_TOKENS * len(tokens.lengths)
        return unknown / max(1, total)


def train_captioner(options: TrainCaptioner) -> dict[str, Any]:
    """Trains a captioner; see `trainer.training.train.train`."""
    return train(CaptioningTask(), options)


def _input_check(hyperparameters: _Hyperparameters) -> ModelSpec | PixelInput:
    if hyperparameters.training.extractor:
        return PixelInput()
    return model_spec(hyperparameters.model, hyperparameters.source)
