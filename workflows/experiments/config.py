"""Definitions: what an experiment's file says, typed, and unknown keys refused by name."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeInt, ValidationError

from schemas.errors import CaptError, UsageError
from schemas.frozen import Settings
from schemas.settings import read_settings
from workflows.tasks import Task, TaskName, task_of, underscored

MODEL, SEED = "model", "seed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


def _emptied(value: Any) -> Any:
    return {} if value is None else value


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


Options = Annotated[dict[str, Any], BeforeValidator(_emptied)]
Sets = Annotated[dict[str, Options], BeforeValidator(_emptied)]
Names = Annotated[tuple[str | int, ...], BeforeValidator(_listed)]
Choice = dict[str, Names]


class ExperimentConfig(Settings):
    """What an experiment's file says; see docs/experiments.md.

    Args:
        task: str. What the runs learn: `captioner` or `captcha`.
        store: str. Directory of the store.
        out: str. Directory of the runs and of what is found out.
        prepare: dict. Options of `capt prepare` that say which images, captions and words there are.
        features, captions, captcha: dict. By a name of your own: options that decide what the rows of a table mean.
        models: dict. By a name of your own: options of `capt train`, hyper-parameters among them.
        train: dict. The same for all models; a model's own go before.
        seeds: tuple of int. Of the training.
        evaluate: dict. Options of `capt evaluate`.
        skip: tuple of dict. Which trials of the grid there are not to be.
        trials: tuple of dict. Which there are to be, in place of the whole grid.
    """

    task: TaskName = "captioner"
    store: str
    out: str
    prepare: Options
    features: Sets = Field(default_factory=dict)
    captions: Sets = Field(default_factory=dict)
    captcha: Sets = Field(default_factory=dict)
    models: Sets = Field(min_length=1)
    train: Options = Field(default_factory=dict)
    seeds: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_listed)] = Field((0,), min_length=1)
    evaluate: Options = Field(default_factory=dict)
    skip: tuple[Choice, ...] = ()
    trials: tuple[Choice, ...] = ()

    @property
    def of_task(self) -> Task:
        """The task."""
        return task_of(self.task)

    @property
    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The named options of each table's kind; kinds as `Task.preparations` has them."""
        each = self.of_task.preparations.items()
        return {kind: getattr(self, preparation.command) for kind, preparation in each}

    @property
    def axes(self) -> dict[str, tuple[str | int, ...]]:
        """What trials differ in, in the order that their names have: each axis with its names."""
        each = self.of_task.preparations.values()
        kinds = {preparation.command: tuple(getattr(self, preparation.command)) for preparation in each}
        return {MODEL: tuple(self.models), **kinds, SEED: self.seeds}

    @property
    def dataset(self) -> str:
        """The dataset's name in the store."""
        given = underscored(self.prepare)
        return str(given.get("dataset_name") or given.get("dataset_type") or self.task)

    def preparing(self, kind: str, name: str) -> dict[str, Any]:
        """The options of the job that makes a table.

        Args:
            kind: str. A name of `Task.preparations`.
            name: str. A name that the file gives to such a table.
        """
        known = self.of_task.preparations[kind].of_dataset
        shared = {key: value for key, value in underscored(self.prepare).items() if key in known}
        return {**shared, **underscored(self.tables[kind][name])}

    def training(self, model: str, seed: int) -> dict[str, Any]:
        """The options that a model is trained with."""
        own = underscored(self.models[model])
        default = {MODEL: model} if self.task == "captioner" else {}
        return {**default, **underscored(self.train), **own, SEED: seed}


def read_experiment_config(path: str | Path) -> ExperimentConfig:
    """The experiment that a YAML file defines.

    Raises:
        UsageError: it cannot be read, a key or an option is unknown, or a value is wrong; the message says which.
    """
    return parse_experiment_config(read_settings(path), str(path))


def parse_experiment_config(entries: Mapping[str, Any], location: str) -> ExperimentConfig:
    """The experiment that these entries define.

    Args:
        entries: mapping. As the file has them.
        location: str. What errors call the place that they come from.

    Raises:
        UsageError: a key or an option is unknown, or a value is wrong; the message says which.
    """
    try:
        definition = ExperimentConfig(**{str(key): value for key, value in entries.items()})
    except ValidationError as error:
        raise _refused(error, location) from None
    _check_sets(definition, location)
    _check_options(definition, location)
    _check_choices(definition, location)
    return definition


def _refused(error: ValidationError, location: str) -> UsageError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return UsageError(
            f"unknown key {name!r}", location=location, hint=f"known: {', '.join(ExperimentConfig.model_fields)}"
        )
    if first["type"] == "missing":
        return UsageError(f"{name} is not said", location=location, hint=f"add `{name}:`")
    return UsageError(f"{name}: {first['msg']}, got {first['input']!r}", location=location)


def _check_sets(definition: ExperimentConfig, location: str) -> None:
    """UsageError where a kind of table is missing or of the other task, or a name could name no directory."""
    wanted = {preparation.command for preparation in definition.of_task.preparations.values()}
    for kind in ("features", "captions", "captcha"):
        given = getattr(definition, kind)
        if kind in wanted and not given:
            raise UsageError(
                f"{kind} names no table", location=location, hint=f"add `{kind}:` with a name and its options"
            )
        if kind not in wanted and given:
            raise UsageError(f"{kind} is not for the task {definition.task}", location=location, hint="leave it out")
    for axis, names in definition.axes.items():
        for name in names:
            if not _NAME.fullmatch(str(name)):
                hint = "use letters, digits, dot, dash and underscore, 60 at most"
                raise UsageError(f"{name!r} cannot name a {axis}", location=location, hint=hint)


def _check_options(definition: ExperimentConfig, location: str) -> None:
    """UsageError where an option is unknown, wrong, or stands in the wrong place."""
    task = definition.of_task
    known = {name for preparation in task.preparations.values() for name in preparation.of_dataset}
    of_rows = {name: each.command for each in task.preparations.values() for name in each.of_rows}
    for name in underscored(definition.prepare):
        if name in of_rows:
            hint = f"say it under `{of_rows[name]}:`"
            raise UsageError(f"{name} decides what rows mean", location=f"{location}: prepare", hint=hint)
        if name not in known:
            hint = f"it could be one of {', '.join(sorted(known))}"
            raise UsageError(f"unknown option {name!r}", location=f"{location}: prepare", hint=hint)
    for kind, sets in definition.tables.items():
        preparation = task.preparations[kind]
        for name, options in sets.items():
            place = f"{location}: {preparation.command}.{name}"
            for option in underscored(options):
                if option in preparation.of_dataset:
                    raise UsageError(
                        f"{option} is the same for all tables", location=place, hint="say it under `prepare:`"
                    )
            _told(partial(_parse, definition, kind, name), place)
    for model, options in definition.models.items():
        if SEED in {**underscored(definition.train), **underscored(options)}:
            raise UsageError("seed is one of what trials differ in", location=location, hint="say it under `seeds:`")
        _told(partial(task.settings, definition.training(model, 0)), f"{location}: models.{model}")
    _told(partial(task.check_evaluation, definition.evaluate), location)


def _parse(definition: ExperimentConfig, kind: str, name: str) -> None:
    definition.of_task.preparations[kind].parsed(definition.store, definition.preparing(kind, name))


def _told(check: Callable[[], object], place: str) -> None:
    """Run a check; what it finds wrong is told with the place in the file."""
    try:
        check()
    except CaptError as error:
        message = f"{error.location}: {error.message}" if error.location else error.message
        raise UsageError(message, location=place, hint=error.hint) from None


def _check_choices(definition: ExperimentConfig, location: str) -> None:
    """UsageError where a choice of trials names what is not there."""
    for key, choices in (("skip", definition.skip), ("trials", definition.trials)):
        for number, choice in enumerate(choices, 1):
            place = f"{location}: {key}, entry {number}"
            for axis, names in choice.items():
                if axis not in definition.axes:
                    hint = f"trials differ in {', '.join(definition.axes)}"
                    raise UsageError(f"unknown key {axis!r}", location=place, hint=hint)
                for name in names:
                    if name not in definition.axes[axis]:
                        hint = f"it could be one of {', '.join(map(str, definition.axes[axis]))}"
                        raise UsageError(f"there is no {axis} {name!r}", location=place, hint=hint)
