"""Prepares, trains and evaluates the runs of a task from mappings of options."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from features.io.atomic_files import hash_file
from features.io.locations import parse_location
from features.runtime.keras_backend import VARIABLE as BACKEND_VARIABLE
from pipelines.prepare_captcha import prepare_captcha
from pipelines.prepare_captions import prepare_captions
from pipelines.prepare_features import prepare_features
from schemas.errors import CaptError, UsageError
from schemas.options.base import Options
from schemas.options.inference import Evaluate
from schemas.options.prepare import PrepareCaptcha, PrepareCaptions, PrepareFeatures
from schemas.table_config import SHORT_FINGERPRINT
from trainer.config import Hyperparameters
from trainer.evaluation.evaluate import evaluate
from trainer.models.custom_models import is_custom
from trainer.task_registry import TASKS, find_task
from trainer.tasks.task import Task
from trainer.training.train import train

# These options are equal for all tables of a dataset: they select records, limit failures or choose where a job runs.
# The others may differ per table: they determine rows, or how their values are computed and stored.
_DATASET_OPTIONS = {
    *("dataset_type", "dataset_name", "images", "annotations", "labels", "split_sizes", "split_ratios", "seed"),
    *(
        "limit_images",
        "limit_captions",
        "sample_captions",
        "whole_descriptions",
        "max_failures",
        "max_image_pixels",
        "max_image_bytes",
        "retry_failed",
        "rehash",
    ),
    *("caption_column", "caption_field", "id_column", "group_column", "hash_column"),
    *("label_pattern", "image_column", "label_column", "split_column", "charset", "fold_case"),
    *("allow_mixed_numerics", "allow_private_addresses", "ignore_robots_tag", "beam_options"),
}
_STORE_OPTIONS = ("store", "dry_run")
# Options of training and evaluation that may name a file.
_FILE_OPTIONS = ("extractor", "extractor_weights", "labels")
# Options of training that are not hyperparameters.
_RUN_OPTIONS = ("store", "run_dir", "dataset", "feature_table", "caption_table", "hyperparameters")
# The option of training that selects a table, by kind of table.
_TABLE_OPTIONS = {"features": "feature_table", "captions": "caption_table"}


@dataclass(frozen=True)
class Preparation:
    """A `capt prepare` command that writes one kind of table: its name, the class of its options, and its function."""

    command: str
    options: type[Options]
    run: Callable[..., dict[str, Any]]

    @property
    def dataset_options(self) -> tuple[str, ...]:
        """Names of the options that are equal for all tables of a dataset."""
        return tuple(name for name in self.options.model_fields if name in _DATASET_OPTIONS)

    @property
    def row_options(self) -> tuple[str, ...]:
        """Names of the options that may differ per table."""
        others = _DATASET_OPTIONS.union(_STORE_OPTIONS)
        return tuple(name for name in self.options.model_fields if name not in others)

    def prepare(self, store: str | Path, options: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Runs the command with options as for `parse`, and returns its result."""
        parsed = self.parse(store, options).model_copy(update={"dry_run": dry_run})
        try:
            return self.run(parsed)
        except CaptError as error:
            # It is not a result of the workflow's command.
            error.summary = None
            raise

    def parse(self, store: str | Path, options: Mapping[str, Any]) -> Options:
        """Parses options by name. A single path is accepted as a list of one.

        Raises UsageError if an option is unknown, invalid, or set by the workflow or its process.
        """
        location = f"prepare {self.command}"
        for name in Options.named(options):
            if name in _STORE_OPTIONS:
                raise UsageError(f"{name} is not an option of a table", location=location, hint="Omit the option.")
            if name == "backend":  # Training in the same process would use it, too.
                hint = f"Set the environment variable {BACKEND_VARIABLE}."
                raise UsageError("a workflow has one backend", location=f"{location}: backend", hint=hint)
        return self.options.parse({**options, "store": str(store)}, location)


# The preparations of each task, by kind of table: `features`, and `captions` if the task has caption tables.
PREPARATIONS: dict[str, dict[str, Preparation]] = {
    "captioner": {
        "features": Preparation("features", PrepareFeatures, prepare_features),
        "captions": Preparation("captions", PrepareCaptions, prepare_captions),
    },
    "captcha": {"features": Preparation("captcha", PrepareCaptcha, prepare_captcha)},
}


@dataclass(frozen=True)
class PreparedTask:
    """A task together with the preparation of its tables; find it with `find_prepared_task`."""

    name: str

    @cached_property
    def task(self) -> Task:
        return find_task(self.name)

    @property
    def preparations(self) -> Mapping[str, Preparation]:
        """The preparations by kind of table."""
        return PREPARATIONS[self.name]

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns all hyperparameters by name that affect a run, defaults included, from options of `capt train`.

        Raises UsageError if an option is unknown or invalid.
        """
        return self._parse(options).to_dict()

    def effective(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options of `capt train` without those that have no effect on weights and scores."""
        without = self._parse(options).training.without_effect
        return {name: value for name, value in options.items() if str(name).replace("-", "_") not in without}

    def check_shape(self, options: Mapping[str, Any], shape: tuple[int, ...], location: str) -> None:
        """Raises UsageError if the model of these options (see `settings`) does not read features of this shape."""
        self.task.check_shape(self._parse(options), shape, location)

    def train(
        self,
        store: str | Path,
        run_dir: str | Path,
        options: Mapping[str, Any],
        tables: Mapping[str, str],
        dataset: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Trains or resumes a run with options of `capt train`, and returns the result of the command.

        `tables` are fingerprints by kind of table. `dataset` may be None if the store contains only one that fits.
        """
        fixed = {"store": str(store), "run_dir": str(run_dir), "dataset": tuple(dataset or ())}
        selected = {_TABLE_OPTIONS[kind]: fingerprint for kind, fingerprint in tables.items()}
        return train(self.task, self.task.options.parse({**_hyperparameters(options), **fixed, **selected}, "train"))

    def check_evaluation(self, options: Mapping[str, Any]) -> None:
        """Raises UsageError if these options of `capt evaluate` do not fit the task."""
        parsed = Evaluate.parse({"runs": ("RUN",), **options}, "evaluate")
        with errors_in("evaluate"):
            self.task.check_evaluation(parsed)

    def _parse(self, options: Mapping[str, Any]) -> Hyperparameters[Any]:
        given = _hyperparameters(options)
        return self.task.parse(given.pop(self.task.choice, None), given)


def find_prepared_task(name: str) -> PreparedTask:
    """Returns the task with this name and its preparations. Raises UsageError if the task is unknown."""
    if name not in TASKS or name not in PREPARATIONS:
        raise UsageError(f"there is no task {name!r}", hint=f"Use one of {', '.join(TASKS)}.")
    return PreparedTask(name)


def _check_task_name(name: str) -> str:
    try:
        return find_prepared_task(name).name
    except UsageError as error:
        raise ValueError(str(error)) from None


TaskName = Annotated[str, AfterValidator(_check_task_name)]


@contextmanager
def errors_in(location: str) -> Iterator[None]:
    """Raises the errors of options as UsageError that begins with the location of the options, such as a file."""
    try:
        yield
    except CaptError as error:
        location = f"{location}: {error.location}" if error.location else location
        raise UsageError(error.message, location=location, hint=error.hint) from None


def evaluate_run(store: str | Path, run_dir: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates one run with options of `capt evaluate`, and returns the result of the command."""
    return evaluate(Evaluate.parse({**options, "runs": (str(run_dir),), "store": str(store)}, "evaluate"))


def check_same_table(summaries: Sequence[Mapping[str, Any]]) -> None:
    """Raises UsageError if the features of several datasets are in different tables: a run reads one table.

    `summaries` are the results of the preparations, at least with `dataset` and `fingerprint`.
    """
    first = summaries[0]
    for other in summaries[1:]:
        if other["fingerprint"] != first["fingerprint"]:
            message = f"a run reads one feature table, but {_describe_table(first)}, and {_describe_table(other)}"
            raise UsageError(message, hint="Set height, width and resize_mode.")


def _describe_table(summary: Mapping[str, Any]) -> str:
    table = f"the images of {summary['dataset']} are in {summary['fingerprint'][:SHORT_FINGERPRINT]}"
    size = summary.get("input_size")
    return f"{table} ({size['height']}×{size['width']}, {size['resize_mode']})" if size else table


def dataset_name(options: Mapping[str, Any], task: str) -> str:
    """Returns the name of the dataset that these options of `capt prepare` write."""
    return str(options.get("dataset_name") or options.get("dataset_type") or task)


def files_named(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of each file that options of training or evaluation name, by option.

    The content affects results, the path does not.
    """
    named = {name: str(value).removeprefix("custom:") for name, value in Options.named(options).items() if value}
    files = {name: parse_location(path) for name, path in named.items() if name in _FILE_OPTIONS}
    if is_custom(model := named.get("model", "")):
        files["model"] = parse_location(model.rpartition(":")[0])
    return {name: hash_file(path) for name, path in files.items() if path.is_file()}


def _hyperparameters(options: Mapping[str, Any]) -> dict[str, Any]:
    given = Options.named(options)
    for name in _RUN_OPTIONS:
        if name in given:
            raise UsageError(f"{name} is not a hyperparameter", hint="Omit the option. The workflow sets it.")
    return given
