"""Implements the task `captcha`: recognition of the text in CAPTCHA images."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from features.store import Store
from schemas.choices import LanguageModel
from schemas.errors import CaptError, UsageError
from schemas.options.inference import Evaluate, Export, SearchOptions
from schemas.options.training import RECOGNIZER, TrainCaptcha, TrainingOptions
from schemas.terminal.console import Printer
from schemas.terminal.summary import print_summary
from trainer.config import Hyperparameters, RecognizerTraining, parse_recognizer
from trainer.data.captcha_data import LabelledImages, join_labels
from trainer.data.label_dependence import measure_dependence
from trainer.data.label_limits import LabelLimits, check_text_rows, check_time_steps, resolve_config
from trainer.data.table_selection import TrainingTables, select_labelled_tables
from trainer.data.training_data import TrainingData
from trainer.evaluation.bootstrap import MetricSamples, sample_labels
from trainer.evaluation.recognition_evaluation import RecognitionEvaluation
from trainer.models.configs import RecognizerConfig
from trainer.models.model_specs import RECOGNIZER_INPUT, recognizer_spec
from trainer.profiles import DEFAULT_PROFILE, PROFILES
from trainer.runs.metadata import RecognizerMetadata, RunMetadata
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import Run
from trainer.tasks.task import Task
from trainer.training.train import train

if TYPE_CHECKING:
    from trainer.export.run_graph import GraphRun
    from trainer.tasks.captcha_job import CaptchaJob

_Hyperparameters = Hyperparameters[RecognizerTraining]

_log = logging.getLogger("capt.training")


class CaptchaTask(Task):
    """Recognizes the text in CAPTCHA images, from a feature table with pixels."""

    name = "captcha"
    description = "recognizes text in CAPTCHA images"
    command = "capt recognize"
    options = TrainCaptcha
    choice = "profile"
    metadata = RecognizerMetadata
    run = RecognizerRun
    evaluation = RecognitionEvaluation
    metrics: ClassVar[Mapping[str, str]] = {
        "exact_match": "exact match",
        "exact_match_beam": "exact match, beam search",
        "exact_match_lexicon": "exact match, lexicon",
        "cer": "CER",
    }
    paired_metrics = ("exact_match",)
    lower_is_better = ("cer",)

    def parse(self, choice: str | None, options: Mapping[str, Any]) -> _Hyperparameters:
        profile, model = choice or DEFAULT_PROFILE, options.get("model", RECOGNIZER)
        spec = recognizer_spec(model)
        rest = {name: value for name, value in options.items() if name != "model"}
        training, architecture = parse_recognizer(profile, rest, spec.config)
        chosen = {"profile": profile, **({"model": model} if spec.source else {})}
        return Hyperparameters(chosen, spec.name, training, architecture, spec.source)

    def check_shape(self, hyperparameters: _Hyperparameters, shape: tuple[int, ...], location: str) -> None:
        RECOGNIZER_INPUT.check_shape(shape, location)

    def select_tables(
        self, store: Store, options: TrainingOptions, hyperparameters: _Hyperparameters
    ) -> TrainingTables:
        assert isinstance(options, TrainCaptcha)
        tables = select_labelled_tables(store, RECOGNIZER_INPUT, options.dataset, options.feature_table)
        _check_dataset_weights(hyperparameters.training.dataset_weights, [dataset.name for dataset in tables.datasets])
        return tables

    def load_data(self, tables: TrainingTables) -> TrainingData[LabelledImages]:
        return join_labels(tables)

    def resolve(
        self,
        hyperparameters: _Hyperparameters,
        tables: TrainingTables,
        data: TrainingData[LabelledImages],
        warm_start: Run | None = None,
    ) -> _Hyperparameters:
        """Sets the number of epochs, filters, language model, characters and maximum length of the labels.

        Held-out labels with other characters, or longer ones, are counted.
        """
        weights = hyperparameters.training.dataset_weights
        with_images = sorted({dataset for dataset, _ in data.train.names})
        if weights and len(with_images) < len(weights):
            message = f"only {', '.join(with_images)} has labelled images in train"
            raise UsageError(message, location="--dataset-weights", hint="Omit the other --dataset and its weight.")
        if warm_start:
            hyperparameters = _copy_layers(hyperparameters, warm_start)
        hyperparameters = _apply_profile(hyperparameters, len(data.train))
        hyperparameters = _choose_language_model(hyperparameters, data.train.labels)
        assert isinstance(hyperparameters.architecture, RecognizerConfig)
        config = resolve_config(hyperparameters.architecture, data.train.labels)
        time_steps = None
        # The time steps of a user's own model are known when it is built.
        if hyperparameters.source is None:
            height, width = tables.features.shape[:2]
            check_text_rows(config, height)
            time_steps = config.count_time_steps(width)
            check_time_steps(data.train.labels, width, time_steps, config.find_width)
        limits = LabelLimits(config.characters, config.num_positions, time_steps)
        check_held_out_labels(limits, data, hyperparameters.training.num_validation_images)
        return replace(hyperparameters, architecture=config)

    def job_class(self) -> "type[CaptchaJob]":
        from trainer.tasks.captcha_job import CaptchaJob

        return CaptchaJob

    def default_training(self, metadata: RunMetadata) -> tuple[str, Mapping[str, Any]]:
        """Returns the profile from which the fewest hyperparameters of the run differ, because a run records none."""
        assert isinstance(metadata, RecognizerMetadata)
        images = metadata.num_images

        # A model of one's own may have filters of its own.
        has_filters = type(metadata.config).model_fields["filters"].default is not None

        def list_defaults(profile: str) -> dict[str, Any]:
            chosen = PROFILES[profile]
            values = {**chosen.training, "epochs": _count_epochs(profile, metadata.training, images)}
            return values if has_filters else {**values, "filters": chosen.choose_filters(images)}

        values = {**dict(metadata.config), **dict(metadata.training)}

        def count_differences(profile: str) -> int:
            return sum(values[name] != value for name, value in list_defaults(profile).items())

        name = min(PROFILES, key=count_differences)
        return f"the profile {name}", list_defaults(name)

    def export_graph(self, run: RecognizerRun, options: Export, run_dir: Path) -> "tuple[GraphRun, int]":
        from trainer.export.run_graph import build_recognizer_graph

        _refuse_generation_options(options)
        return build_recognizer_graph(run), len(run.metadata.config.characters.characters)

    def check_evaluation(self, options: Evaluate) -> None:
        for flag, value in (
            ("--slice", options.slice),
            ("--beside", options.beside),
            ("--attention", options.attention),
            ("--ensemble", options.ensemble),
        ):
            if value:
                raise UsageError("recognizers do not use this option", location=flag, hint="Omit the option.")
        _refuse_generation_options(options)
        if options.teacher_forced:
            message = "recognizers do not predict words from earlier ones"
            raise UsageError(message, location="--teacher-forced", hint="Omit the option.")

    def sample_metrics(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> MetricSamples:
        return sample_labels(np.array([labels[0] for labels in references]) == np.array(texts))

    def text_length(self, text: str) -> int:
        return len(text)

    def oov_rate(self, run: RecognizerRun, texts: Sequence[str]) -> float:
        known = set(run.metadata.config.characters.characters)
        return float(np.mean([not known.issuperset(text) for text in texts]))


def train_captcha(options: TrainCaptcha) -> dict[str, Any]:
    """Trains a CAPTCHA recognizer. The best epoch has the highest exact match on validation, by greedy decoding.

    Returns:
        As `capt train captioner`, and with `learning_curve` a key of this name: `target_exact_match`; `status`
        (`reached`; `estimated`; `at_least` if the 95% interval has no upper end; `unknown`), for `unknown` its `reason`
        (`too_few_sizes`, `no_errors` or `flat`); `more_labels` (null if there is no most probable number) and
        `more_labels_interval` (low and high, which may be null), in addition to the present labels; `statement`, the
        same in words; `curve` (`a`, `b` and `c`); `dispersion` (factor of the scatter around the curve in excess of
        chance); `split` of the evaluation; `sizes`, with `fraction`, `labels`, `errors` of `evaluated`, `exact_match`,
        its 95% `interval`, `is_used` (whether the curve is fitted to it) and `run_dir` each; and `figure_path`.

    Raises:
        UsageError: An option is unknown, invalid or has no effect.
        CaptError: As `trainer.training.train.train` and `trainer.tasks.learning_curve.train_learning_curve`.
    """
    if options.learning_curve:
        from trainer.tasks.learning_curve import train_learning_curve

        return train_learning_curve(options)
    if options.target_exact_match is not None:
        message = "the option has no effect without --learning-curve"
        raise UsageError(message, location="--target-exact-match", hint="Add --learning-curve, or omit the option.")
    return train(CaptchaTask(), options)


def _copy_layers(hyperparameters: _Hyperparameters, run: Run) -> _Hyperparameters:
    """Sets the language model, filters and blocks to those of the run of the initial weights, unless they are given."""
    architecture, theirs = hyperparameters.architecture, run.metadata.config
    assert isinstance(architecture, RecognizerConfig)
    assert isinstance(theirs, RecognizerConfig)
    layers: dict[str, Any] = {}
    is_open = "language_model" not in architecture.model_fields_set or architecture.language_model == "auto"
    if is_open and architecture.head == "ctc":
        layers["language_model"] = theirs.language_model
    stages = {name: getattr(theirs, name) for name in ("filters", "blocks_per_stage")}
    if not stages.keys() & architecture.model_fields_set:
        layers |= stages
    return replace(hyperparameters, architecture=architecture.model_copy(update=layers))


def _choose_language_model(hyperparameters: _Hyperparameters, labels: Sequence[str]) -> _Hyperparameters:
    """Replaces `auto` by the language model that the train labels require."""
    architecture = hyperparameters.architecture
    assert isinstance(architecture, RecognizerConfig)
    if architecture.language_model != "auto":
        return hyperparameters
    chosen: LanguageModel = "words"
    # A model of one's own, and the attention head, have all of `words`.
    if hyperparameters.source is None and architecture.head == "ctc":
        dependence = measure_dependence(labels)
        chosen = dependence.language_model
        _log.info("language_model %s: %s.", chosen, dependence.reason)
    return replace(hyperparameters, architecture=architecture.model_copy(update={"language_model": chosen}))


def _apply_profile(hyperparameters: _Hyperparameters, train_images: int) -> _Hyperparameters:
    """Sets the hyperparameters that follow from profile and number of train images, unless they are given."""
    training, architecture = hyperparameters.training, hyperparameters.architecture
    assert isinstance(architecture, RecognizerConfig)
    profile, changes = hyperparameters.choice["profile"], []
    if training.epochs is None:
        training = training.model_copy(update={"epochs": _count_epochs(profile, training, train_images)})
        changes.append(f"epochs {training.epochs}")
    if architecture.filters is None:
        filters = PROFILES[profile].choose_filters(train_images)
        architecture = architecture.model_copy(update={"filters": filters})
        changes.append(f"filters {filters}")
    if changes:
        _log.info("The profile %s sets %s for %s train images.", profile, " and ".join(changes), f"{train_images:,}")
    return replace(hyperparameters, training=training, architecture=architecture)


def _count_epochs(profile: str, training: RecognizerTraining, train_images: int) -> int:
    # The batches of an epoch are full.
    steps = training.steps_per_epoch or -(-train_images // training.batch_size)
    return PROFILES[profile].count_epochs(train_images, steps * training.batch_size)


def print_trained(result: Mapping[str, Any]) -> None:
    """Prints the result of `train_captcha`: a plain table, and the learning curve."""
    print_summary({name: value for name, value in result.items() if name != "learning_curve"})
    if curve := result.get("learning_curve"):
        printer = Printer()
        rows = [
            [one["fraction"], one["labels"], one["errors"], one["evaluated"], f"{100 * one['exact_match']:.2f}"]
            for one in curve["sizes"]
        ]
        headings = ("labels", "errors", f"images of {curve['split']}", "exact match, %")
        printer.table("learning curve", ("fraction",), headings, rows)
        printer.line(curve["statement"])


def _check_dataset_weights(weights: Sequence[float] | None, datasets: Sequence[str]) -> None:
    if weights and len(weights) != len(datasets):
        message = f"got {len(weights)} weights for {len(datasets)} datasets ({', '.join(datasets)})"
        raise UsageError(message, location="--dataset-weights", hint="Write one weight per --dataset, in their order.")


def check_held_out_labels(limits: LabelLimits, data: TrainingData[LabelledImages], num_validation: int | None) -> None:
    """Warns of labels of val and test that the recognizer cannot output; CaptError if validation has no others."""
    for name in ("val", "test"):
        labels = data.splits[name].labels
        if problems := limits.describe_problems(labels):
            count = len(labels) - int(limits.allows(labels).sum())
            message = "%s: %s of %s labels cannot be recognized and count as wrong: %s."
            _log.warning(message, name, f"{count:,}", f"{len(labels):,}", problems)
    split = data.validation_split
    if split and not limits.allows(data.splits[split].first(num_validation).labels).any():
        message = (
            f"no label of the {split} split can be recognized: {limits.describe_problems(data.splits[split].labels)}"
        )
        raise CaptError(message, hint="Prepare splits whose labels have the same characters.")


def _refuse_generation_options(options: SearchOptions) -> None:
    given = {name: value for name, value in options.generation().items() if name != "seed"}  # of random examples
    if given:
        option = f"--{next(iter(given))}".replace("_", "-")
        raise UsageError("recognizers do not use this option", location=option, hint="Omit the option.")
