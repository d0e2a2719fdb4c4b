"""What a retraining is set to: its data, how it learns, when it stops, and what the challenger must reach."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_serializer, model_validator
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.secrets import without_path
from schemas.settings import read_settings
from trainer.evaluation.paired_evaluation import CAPTION_METRICS, EXACT_MATCH
from workflows.tasks import Task, TaskName, task_of, underscored

Options = dict[str, Any]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _address(url: str) -> str:
    try:
        host = parse_url(url).host
    except LocationParseError:
        host = None
    if not host:
        raise ValueError("not an address with a host")
    return url


class DataCheck(Settings):
    """From which figure on a comparison warns, and from which it stops; None for never.

    Args:
        warn: float or None. Said in the log, and kept with the decision.
        stop: float or None. Nothing is trained.
    """

    warn: float | None = Field(None, ge=0)
    stop: float | None = Field(None, ge=0)


class DataChecksConfig(Settings):
    """What new data must be like.

    Args:
        least_new: int. Images and what is told of them, new or changed; with fewer there is nothing new.
        lost: Rule. Share of the images that the champion saw and that are gone.
        failed: Rule. Share of the records of the preparation that failed.
        length: Rule. By which share of the champion's what is newly told is longer or shorter, in words or letters.
        unknown: Rule. Share of the words newly told that the champion does not know.
        drift_mean: Rule. How far the features of new images lie from those that the champion saw,
            `workflows.retraining.drift`.
        drift_covariance: Rule. How differently they are spread.
    """

    least_new: int = Field(1, ge=1)
    lost: DataCheck = DataCheck(warn=0.02, stop=0.2)
    failed: DataCheck = DataCheck(warn=0.01, stop=0.05)
    length: DataCheck = DataCheck(warn=0.25, stop=1.0)
    unknown: DataCheck = DataCheck(warn=0.05, stop=0.25)
    drift_mean: DataCheck = DataCheck(warn=0.5)
    drift_covariance: DataCheck = DataCheck(warn=1.0)


class SliceConfig(Settings):
    """Images among the tested ones that are looked at apart.

    Args:
        pattern: str. A regular expression found in something told of the image, capitals or not.
        tolerance: float or None. By how much the metric may be lower there; None lets it be as low as chance explains.
    """

    pattern: Annotated[str, AfterValidator(_pattern)]
    tolerance: float | None = Field(None, ge=0)


class GateConfig(Settings):
    """What a challenger must reach.

    Args:
        metric: str or None. `bleu_1` … `bleu_4`, `rouge_l`, `cider_d`, or `exact_match`; None for `cider_d` or
            `exact_match`.
        margin: float. By how much the challenger must be better, at the low end of the interval: on the champion's own
            test split and on the new one. Below 0, by how much it may be worse.
        level: float. Of the interval, between 0.5 and 1.
        draws: int. Of the bootstrap.
        slices: dict of Slice. On none of them may the challenger be worse, by name.
    """

    metric: str | None = None
    margin: float = 0.0
    level: float = Field(0.95, ge=0.5, lt=1)
    draws: int = Field(1000, ge=100)
    slices: dict[str, SliceConfig] = Field(default_factory=dict)


class NotificationsConfig(Settings):
    """What is told of the outcome, as the JSON that the command returns.

    What is written of it, into a model's lineage for example, names only the program and the host: arguments, user and
    path often are secrets.

    Args:
        on: tuple of str. Of which outcomes: `promoted`, `rejected`, `stale`, `stopped`, `failed`,
            `nothing new`.
        command: tuple of str. A program with its arguments; the JSON is its standard input.
        url: str or None. An http(s) address that gets the JSON by POST.
        timeout: float. Seconds that either may take, at most 3600. Then the program is killed with all that it started,
            and the connection is broken off.
    """

    on: tuple[Literal["promoted", "rejected", "stale", "stopped", "failed", "nothing new"], ...] = (
        "promoted",
        "rejected",
        "stale",
        "stopped",
        "failed",
    )
    command: tuple[str, ...] = Field((), repr=False)
    url: Annotated[str, Field(pattern="^https?://"), AfterValidator(_address)] | None = Field(None, repr=False)
    timeout: float = Field(30, gt=0, le=3600)

    @field_serializer("command")
    def _program(self, command: tuple[str, ...]) -> tuple[str, ...]:
        return command[:1]

    @field_serializer("url")
    def _host(self, url: str | None) -> str | None:
        return without_path(url) if url else None


class RetrainConfig(Settings):
    """A retraining.

    Args:
        store: str. The store.
        name: str. The model's name in it.
        task: str. `captioner` or `captcha`.
        data: tuple of mapping. The datasets: options of `capt prepare` that say which records there are.
        features: mapping. Options of `capt prepare features`, or of `capt prepare captcha`, for all of them.
        captions: mapping. Options of `capt prepare captions` for all of them.
        train: mapping. Options of `capt train`.
        start: str. `scratch`, or `warm` with the champion's weights.
        vocabulary: str. `grown`: learned anew; `frozen`: the champion's. For captioners alone.
        rules: Rules. What new data must be like.
        gate: Gate. What a challenger must reach.
        hooks: Hooks. Who is told.
    """

    store: str
    name: str
    task: TaskName = "captioner"
    data: tuple[Options, ...] = Field(min_length=1)
    features: Options = Field(default_factory=dict)
    captions: Options = Field(default_factory=dict)
    train: Options = Field(default_factory=dict)
    start: Literal["scratch", "warm"] = "scratch"
    vocabulary: Literal["grown", "frozen"] = "grown"
    rules: DataChecksConfig = DataChecksConfig()
    gate: GateConfig = GateConfig()
    hooks: NotificationsConfig = NotificationsConfig()

    @model_validator(mode="after")
    def _is_of_its_task(self) -> Self:
        known = CAPTION_METRICS if self.task == "captioner" else (EXACT_MATCH,)
        if self.gate.metric not in (None, *known):
            raise ValueError(f"a {self.task} is not gated by {self.gate.metric}; use one of {', '.join(known)}")
        if self.task == "captcha" and self.captions:
            raise ValueError("captions are not for captcha")
        if self.task == "captcha" and self.vocabulary == "frozen":
            raise ValueError("captcha has no vocabulary to freeze")
        return self

    @property
    def metric(self) -> str:
        """The metric that the gate looks at."""
        return self.gate.metric or ("cider_d" if self.task == "captioner" else EXACT_MATCH)

    @property
    def doing(self) -> Task:
        """The task."""
        return task_of(self.task)

    def options(self, table: str, data: Mapping[str, Any]) -> Options:
        """The options of one preparation of one dataset.

        Args:
            table: str. `features` or `captions`.
            data: mapping. One of `data`.

        Raises:
            UsageError: an option is of neither preparation.
        """
        given = underscored(data)
        known = {name for one in self.doing.preparations.values() for name in one.options.model_fields}
        unknown = [name for name in given if name not in known]
        if unknown:
            raise UsageError(
                f"unknown option {unknown[0]!r}", location="data", hint=f"known: {', '.join(sorted(known))}"
            )
        own = self.doing.preparations[table].options.model_fields
        shared = {name: value for name, value in given.items() if name in own}
        return {**shared, **underscored(self.features if table == "features" else self.captions)}


def read_config(path: str | Path) -> RetrainConfig:
    """The retraining that a YAML file describes.

    Raises:
        UsageError: the file cannot be read, an entry is unknown or wrong; it is named.
    """
    try:
        config = RetrainConfig(**read_settings(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UsageError(f"unknown key {place!r}", location=str(path), hint="see docs/retraining.md") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{place}: {message}" if place else message, location=str(path)) from None
    _check(config, str(path))
    return config


def _check(config: RetrainConfig, path: str) -> None:
    """UsageError where options of preparing or training are wrong, before anything runs."""
    try:
        for table, preparation in config.doing.preparations.items():
            for data in config.data:
                preparation.parsed(config.store, config.options(table, data))
        config.doing.settings(config.train)
    except UsageError as error:
        raise UsageError(
            error.message, location=f"{path}: {error.location}" if error.location else path, hint=error.hint
        ) from None
