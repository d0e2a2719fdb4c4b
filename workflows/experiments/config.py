"""Reads and checks the file of an experiment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.options.base import Options, Seed
from schemas.options.prepare import PrepareCaptcha
from schemas.yaml_file import read_settings
from workflows.prepared_tasks import PREPARATIONS, PreparedTask, TaskName, dataset_name, errors_in, find_prepared_task

MODEL, DATASET, SEED = "model", "dataset", "seed"
_NAME_OPTION = "dataset_name"
# The experiment sets these options of `capt evaluate`.
_EVALUATED_TABLES = ("dataset", "caption_table")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")

NONE_TO_EMPTY = BeforeValidator(lambda value: {} if value is None else value)
TO_SEQUENCE = BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else (value,))

Values = Annotated[dict[str, Any], NONE_TO_EMPTY]
NamedValues = Annotated[dict[str, Values], NONE_TO_EMPTY]
# Options of one dataset, or the names of datasets that are trained on together.
DatasetEntry = Annotated[Values | tuple[str, ...], NONE_TO_EMPTY]
TrialFilter = dict[str, Annotated[tuple[str | int, ...], TO_SEQUENCE]]


class ExperimentConfig(Settings):
    """The entries of an experiment file. The names of tables and models are chosen by the user.

    Args:
        task: `captioner` or `captcha`.
        store: Path or URI of the store.
        output_dir: Directory of the runs and results.
        data: Options of `capt prepare` that select the images, captions and labels. These options are equal for all
            tables and datasets.
        datasets: Datasets to compare, by name in the store: further options as under `data`, or a list of names of
            other entries, which are trained on together. Every trial is evaluated on all datasets. If omitted, the
            experiment has the one dataset of `data`.
        features: Options of `capt prepare features` by table name.
        captions: Options of `capt prepare captions` by table name.
        captcha: Options of `capt prepare captcha` by table name.
        models: Options and hyperparameters of `capt train` by model name.
        train: Options and hyperparameters of all models. The options of a model take precedence.
        seeds: Seeds of the training runs.
        evaluate: Options of `capt evaluate`.
        exclude: Trials of the grid that are not run.
        include: Trials to run instead of the whole grid.
    """

    task: TaskName = "captioner"
    store: str
    output_dir: str
    data: Values = Field(default_factory=dict)
    datasets: Annotated[dict[str, DatasetEntry], NONE_TO_EMPTY] = Field(default_factory=dict)
    features: NamedValues = Field(default_factory=dict)
    captions: NamedValues = Field(default_factory=dict)
    captcha: NamedValues = Field(default_factory=dict)
    models: NamedValues = Field(min_length=1)
    train: Values = Field(default_factory=dict)
    seeds: Annotated[tuple[Seed, ...], TO_SEQUENCE] = Field(default=(0,), min_length=1)
    evaluate: Values = Field(default_factory=dict)
    exclude: tuple[TrialFilter, ...] = ()
    include: tuple[TrialFilter, ...] = ()

    @property
    def training_task(self) -> PreparedTask:
        return find_prepared_task(self.task)

    @property
    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The named options of tables, by key of `PreparedTask.preparations`."""
        preparations = self.training_task.preparations.items()
        return {kind: getattr(self, preparation.command) for kind, preparation in preparations}

    @property
    def axes(self) -> dict[str, tuple[str | int, ...]]:
        """The axes of the grid and their values, in the order of trial names."""
        preparations = self.training_task.preparations
        tables = {preparations[kind].command: tuple(tables) for kind, tables in self.tables.items()}
        datasets = {DATASET: tuple(self.datasets)} if self.datasets else {}
        return {MODEL: tuple(self.models), **datasets, **tables, SEED: self.seeds}

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """The options that select images, captions and labels, by name of the dataset in the store."""
        data = Options.named(self.data)
        if not self.datasets:
            return {dataset_name(data, self.task): data}
        return {
            name: {**data, **Options.named(entry), _NAME_OPTION: name}
            for name, entry in self.datasets.items()
            if isinstance(entry, dict)
        }

    def training_datasets(self, dataset: str | None) -> tuple[str, ...]:
        """Returns the names in the store of the datasets behind a name of the axis; None if there is no such axis."""
        if dataset is None:
            return tuple(self.sources)
        entry = self.datasets[dataset]
        return (dataset,) if isinstance(entry, dict) else entry

    def preparation_options(self, kind: str, name: str, dataset: str) -> dict[str, Any]:
        """Returns the options that prepare a table by key of `PreparedTask.preparations`, name and dataset."""
        known = self.training_task.preparations[kind].dataset_options
        shared = {option: value for option, value in self.sources[dataset].items() if option in known}
        return {**shared, **Options.named(self.tables[kind][name])}

    def label_table(self, name: str, dataset: str, vocabulary: str = "") -> str:
        """Returns the name of a table, with its dataset and the dataset of its vocabulary if there are several."""
        return "+".join((name, dataset, *([vocabulary] if vocabulary else []))) if self.datasets else name

    def training_options(self, model: str, seed: int) -> dict[str, Any]:
        """Returns the options and hyperparameters that a model is trained with."""
        default = {MODEL: model} if self.training_task.task.choice == MODEL else {}
        return {**default, **Options.named(self.train), **Options.named(self.models[model]), SEED: seed}


def read_experiment_config(path: str | Path) -> ExperimentConfig:
    """Reads and checks an experiment file (YAML).

    Raises:
        UsageError: The file cannot be read, or a key, option or value is invalid. The error names it.
    """
    return parse_experiment_config(read_settings(path), str(path))


def parse_experiment_config(entries: Mapping[str, Any], location: str) -> ExperimentConfig:
    """Checks the entries of an experiment file; `location` names it in errors. Raises as `read_experiment_config`."""
    try:
        config = ExperimentConfig(**{str(key): value for key, value in entries.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message, hint = f"{key}: {first['msg'].removeprefix('Value error, ').rstrip('.')}, got {first['input']!r}", ""
        if first["type"] == "extra_forbidden":
            message, hint = f"unknown key {key!r}", f"Use one of {', '.join(ExperimentConfig.model_fields)}."
        elif first["type"] == "missing":
            message, hint = f"the key {key!r} is missing", f"Add `{key}:`."
        raise UsageError(message, location=location, hint=hint) from None
    _check_names(config, location)
    _check_datasets(config, location)
    _check_options(config, location)
    _check_filters(config, location)
    return config


def _check_names(config: ExperimentConfig, location: str) -> None:
    """Checks that the tables fit the task, and that names are valid directory names."""
    commands = {preparation.command for preparation in config.training_task.preparations.values()}
    every = [preparation.command for one in PREPARATIONS.values() for preparation in one.values()]
    for command in dict.fromkeys(every):
        tables = getattr(config, command)
        if command in commands and not tables:
            hint = f"Add `{command}:` with a name and its options."
            raise UsageError(f"{command} has no table", location=location, hint=hint)
        if command not in commands and tables:
            message = f"the task {config.task} has no {command} tables"
            raise UsageError(message, location=location, hint=f"Remove `{command}:`.")
    for axis, names in config.axes.items():
        for name in names:
            if not _NAME.fullmatch(str(name)):
                hint = "Use at most 60 letters, digits, dots, dashes and underscores."
                raise UsageError(f"{axis}: invalid name {name!r}", location=location, hint=hint)


def _check_datasets(config: ExperimentConfig, location: str) -> None:
    """Checks that lists under `datasets` name other entries, and that the keys are the only names of datasets."""
    if not config.data and not config.datasets:
        raise UsageError("the key 'data' is missing", location=location, hint="Add `data:` or `datasets:`.")
    known = [name for name, entry in config.datasets.items() if isinstance(entry, dict)]
    for name, entry in config.datasets.items():
        if isinstance(entry, dict):
            continue
        place = f"{location}: datasets.{name}"
        if unknown := [one for one in entry if one not in known]:
            hint = f"Use the names of entries with options: {', '.join(known) or 'there are none'}."
            raise UsageError(f"unknown dataset {unknown[0]!r}", location=place, hint=hint)
        if len(set(entry)) < max(len(entry), 2):
            raise UsageError("a list must have at least two different datasets", location=place)
    for place, options in _data_entries(config).items():
        if config.datasets and _NAME_OPTION in Options.named(options):
            hint = "Remove the option. The keys of `datasets:` are the names in the store."
            raise UsageError(
                f"{_NAME_OPTION} is not valid with `datasets:`", location=f"{location}: {place}", hint=hint
            )


def _data_entries(config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """Returns the options under `data` and those of each dataset, by their place in the file."""
    entries = {f"datasets.{name}": entry for name, entry in config.datasets.items() if isinstance(entry, dict)}
    return {"data": config.data, **entries}


def _check_options(config: ExperimentConfig, location: str) -> None:
    """Checks that every option is known, valid, and under the right key."""
    task = config.training_task
    preparations = task.preparations.values()
    data_options = {name for preparation in preparations for name in preparation.dataset_options}
    table_options = {name: preparation.command for preparation in preparations for name in preparation.row_options}
    for place, entry in _data_entries(config).items():
        for name in Options.named(entry):
            if name in table_options:
                hint = f"Move the option to a table under `{table_options[name]}:`."
                raise UsageError(f"{name} is an option of a table", location=f"{location}: {place}", hint=hint)
            if name not in data_options:
                hint = f"Use one of {', '.join(sorted(data_options))}."
                raise UsageError(f"unknown option {name!r}", location=f"{location}: {place}", hint=hint)
    for kind, tables in config.tables.items():
        preparation = task.preparations[kind]
        for name, options in tables.items():
            table = f"{location}: {preparation.command}.{name}"
            missing = [side for side in ("height", "width") if side not in Options.named(options)]
            if preparation.options is PrepareCaptcha and len(tables) > 1 and missing:
                # By default a dataset keeps the size of the table that was prepared first.
                message = f"{' and '.join(missing)} of one of several tables is not set"
                raise UsageError(message, location=table, hint="Set height and width of every table.")
            for option in Options.named(options):
                if option in preparation.dataset_options:
                    hint = "Move the option to `data:`."
                    raise UsageError(f"{option} must be equal for all tables", location=table, hint=hint)
            for dataset in config.sources:
                with errors_in(f"{table}: datasets.{dataset}" if config.datasets else table):
                    preparation.parse(config.store, config.preparation_options(kind, name, dataset))
    for model, options in config.models.items():
        if SEED in {**Options.named(config.train), **Options.named(options)}:
            raise UsageError("seed is an axis of the grid", location=location, hint="Move the option to `seeds:`.")
        with errors_in(f"{location}: models.{model}"):
            task.settings(config.training_options(model, 0))
    for name in Options.named(config.evaluate):
        if name in _EVALUATED_TABLES:
            hint = "Remove the option. Trials are evaluated on all datasets of the experiment."
            raise UsageError(f"{name} is set by the experiment", location=f"{location}: evaluate", hint=hint)
    with errors_in(location):
        task.check_evaluation(config.evaluate)


def _check_filters(config: ExperimentConfig, location: str) -> None:
    """Checks that the entries of `exclude` and `include` name axes and their values."""
    for key, filters in (("exclude", config.exclude), ("include", config.include)):
        for number, one in enumerate(filters, 1):
            entry = f"{location}: {key}, entry {number}"
            for axis, names in one.items():
                if axis not in config.axes:
                    hint = f"Use one of {', '.join(config.axes)}."
                    raise UsageError(f"unknown key {axis!r}", location=entry, hint=hint)
                for name in names:
                    if name not in config.axes[axis]:
                        hint = f"Use one of {', '.join(map(str, config.axes[axis]))}."
                        raise UsageError(f"{axis}: unknown name {name!r}", location=entry, hint=hint)
