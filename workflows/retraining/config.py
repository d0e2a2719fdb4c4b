"""Defines the settings of a retraining: datasets, training options, data checks, promotion gate, notifications."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_serializer, model_validator
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.options.base import Options
from schemas.secrets import strip_path
from schemas.yaml_file import read_settings
from workflows.prepared_tasks import PreparedTask, TaskName, errors_in, find_prepared_task

Values = dict[str, Any]
Outcome = Literal["promoted", "rejected", "stale", "stopped", "failed", "no_change"]


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"invalid regular expression: {error}") from None
    return text


def _check_url(url: str) -> str:
    try:
        host = parse_url(url).host
    except LocationParseError:
        host = None
    if not host:
        raise ValueError("the URL has no host")
    return url


class DataCheck(Settings):
    """Limits of one measurement of the new data. None disables a limit.

    Args:
        warn: Value above which capt logs a warning and records it with the decision.
        fail: Value above which capt does not train.
    """

    warn: float | None = Field(default=None, ge=0)
    fail: float | None = Field(default=None, ge=0)


class DataChecksConfig(Settings):
    """Requirements for new data. Fractions are between 0 and 1.

    Args:
        min_new_records: Minimum number of new or changed images and texts. With fewer, and the champion's settings, the
            outcome is `no_change`.
        removed_images: Fraction of the champion's images that were removed.
        failed_records: Fraction of the input records that failed, in the preparation with the most failures.
        length_change: Relative change of the mean text length, in words (captions) or characters (labels).
        oov_rate: Fraction of the words in new captions that are not in the champion's vocabulary; for CAPTCHAs,
            fraction of the new labels that have characters that the champion cannot output.
        drift_mean: Distance between the mean features; see `workflows.retraining.drift`.
        drift_covariance: Distance between the feature covariances; see `workflows.retraining.drift`.
    """

    min_new_records: int = Field(default=1, ge=1)
    removed_images: DataCheck = DataCheck(warn=0.02, fail=0.2)
    failed_records: DataCheck = DataCheck(warn=0.01, fail=0.05)
    length_change: DataCheck = DataCheck(warn=0.25, fail=1.0)
    oov_rate: DataCheck = DataCheck(warn=0.05, fail=0.25)
    drift_mean: DataCheck = DataCheck(warn=0.5)
    drift_covariance: DataCheck = DataCheck(warn=1.0)


class SliceConfig(Settings):
    """A subset of the evaluated images on which the challenger must not be worse.

    Args:
        pattern: Regular expression, case-insensitive. The slice is the images with a matching caption or label.
        max_regression: Maximum decrease of the metric. None: the decrease must not be statistically significant.
    """

    pattern: Annotated[str, AfterValidator(_check_pattern)]
    max_regression: float | None = Field(default=None, ge=0)


class GateConfig(Settings):
    """Requirements for the promotion of a challenger.

    Args:
        metric: `bleu_1` to `bleu_4`, `rouge_l`, `cider_d` or `exact_match`. None: `cider_d` or `exact_match`.
        min_improvement: The lower end of the confidence interval of the difference must exceed this value, on the
            champion's test split and on the new one. A negative value allows the challenger to be worse.
        confidence_level: Confidence level of the bootstrap interval, at least 0.5 and below 1.
        n_resamples: Number of bootstrap resamples.
        slices: Slices by name.
    """

    metric: str | None = None
    min_improvement: float = 0.0
    confidence_level: float = Field(default=0.95, ge=0.5, lt=1)
    n_resamples: int = Field(default=1000, ge=100)
    slices: dict[str, SliceConfig] = Field(default_factory=dict)


class NotificationsConfig(Settings):
    """Recipients of the outcome, as the JSON object that the command returns.

    A serialized config contains only the program's name and the URL's scheme, host and port: arguments, user and path
    often are secrets.

    Args:
        on: Outcomes to report.
        command: Program and arguments. The JSON object is its standard input.
        url: http(s) URL that receives the JSON object by POST.
        timeout: Maximum duration of the program and of the request in seconds. Afterwards, capt kills the program with
            its child processes, and closes the connection.
    """

    on: tuple[Outcome, ...] = ("promoted", "rejected", "stale", "stopped", "failed")
    command: tuple[str, ...] = Field(default=(), repr=False)
    url: Annotated[str, Field(pattern="^https?://"), AfterValidator(_check_url)] | None = Field(
        default=None, repr=False
    )
    timeout: float = Field(default=30, gt=0, le=3600)

    @field_serializer("command")
    def _hide_arguments(self, command: tuple[str, ...]) -> tuple[str, ...]:
        return command[:1]

    @field_serializer("url")
    def _hide_path(self, url: str | None) -> str | None:
        return strip_path(url) if url else None


class RetrainConfig(Settings):
    """A retraining, as its YAML file describes it.

    Args:
        store: Path or URI of the store.
        name: Name of the registered model.
        task: `captioner` or `captcha`.
        data: Datasets: options of `capt prepare` that select the records.
        features: Options of `capt prepare features` or `capt prepare captcha` for every dataset.
        captions: Options of `capt prepare captions` for every dataset.
        train: Options and hyperparameters of `capt train`.
        initialization: Initial weights: `random`, or the weights of the `champion`.
        vocabulary: `rebuild` builds a vocabulary from the new train split; `reuse` keeps the champion's. Captioners
            only.
        data_checks: Requirements for new data.
        gate: Requirements for the promotion of a challenger.
        notifications: Recipients of the outcome.
    """

    store: str
    name: str
    task: TaskName = "captioner"
    data: tuple[Values, ...] = Field(min_length=1)
    features: Values = Field(default_factory=dict)
    captions: Values = Field(default_factory=dict)
    train: Values = Field(default_factory=dict)
    initialization: Literal["random", "champion"] = "random"
    vocabulary: Literal["rebuild", "reuse"] = "rebuild"
    data_checks: DataChecksConfig = DataChecksConfig()
    gate: GateConfig = GateConfig()
    notifications: NotificationsConfig = NotificationsConfig()

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        metrics = self.training_task.task.paired_metrics
        if self.gate.metric not in (None, *metrics):
            names = ", ".join(metrics)
            raise ValueError(f"gate.metric: a {self.task} has no metric {self.gate.metric!r}; use one of {names}")
        if "captions" not in self.training_task.preparations:
            if self.captions:
                raise ValueError(f"captions: the task {self.task} has no captions")
            if self.vocabulary == "reuse":
                raise ValueError(f"vocabulary: the task {self.task} has no vocabulary")
        return self

    @property
    def metric(self) -> str:
        """The metric of the promotion gate."""
        return self.gate.metric or self.training_task.task.paired_metrics[0]

    @property
    def training_task(self) -> PreparedTask:
        return find_prepared_task(self.task)

    def preparation_options(self, table: str, dataset: Mapping[str, Any]) -> Values:
        """Returns the options that prepare one table (by key of `PreparedTask.preparations`) of one entry of `data`.

        Raises UsageError if the entry has an unknown option.
        """
        options = Options.named(dataset)
        preparations = self.training_task.preparations
        known = {name for preparation in preparations.values() for name in preparation.options.model_fields}
        if unknown := [name for name in options if name not in known]:
            hint = f"Use one of {', '.join(sorted(known))}."
            raise UsageError(f"unknown option {unknown[0]!r}", location="data", hint=hint)
        own = preparations[table].options.model_fields
        shared = {name: value for name, value in options.items() if name in own}
        return {**shared, **Options.named(self.features if table == "features" else self.captions)}


def read_config(path: str | Path) -> RetrainConfig:
    """Reads and checks a retraining file (YAML).

    Raises:
        UsageError: The file cannot be read, or a key or an option is unknown or invalid. The error names the key.
    """
    try:
        config = RetrainConfig(**read_settings(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = "See docs/how_to/retraining.md."
            raise UsageError(f"unknown key {key!r}", location=str(path), hint=hint) from None
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{key}: {message}" if key else message, location=str(path)) from None
    with errors_in(str(path)):
        for table, preparation in config.training_task.preparations.items():
            for dataset in config.data:
                preparation.parse(config.store, config.preparation_options(table, dataset))
        config.training_task.settings(config.train)
    return config
