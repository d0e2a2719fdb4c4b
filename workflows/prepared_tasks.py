"""Prepares, trains and evaluates the runs of a task from mappings of options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from features.io.atomic_files import hash_file
from features.io.locations import parse_location
from features.store import Store
from pipelines.prepare_captcha import build_pixel_options, prepare_captcha
from pipelines.prepare_captions import prepare_captions
from pipelines.prepare_features import build_table_config, prepare_features
from schemas.errors import UsageError
from schemas.options.base import Options
from schemas.options.inference import Evaluate
from schemas.options.prepare import PrepareCaptcha, PrepareCaptions, PrepareFeatures
from trainer.evaluation.command import evaluate
from trainer.task_registry import TASKS, find_task
from trainer.tasks.task import Task
from trainer.training.hyperparameters import Hyperparameters
from trainer.training.train import train

# These options determine the images and captions of a dataset, and how a job runs. The others determine rows.
_DATASET_OPTIONS = (
    "dataset_type",
    "dataset_name",
    "images",
    "annotations",
    "labels",
    "split_sizes",
    "split_ratios",
    "seed",
    "limit_images",
    "limit_captions",
    "max_failures",
    "max_image_pixels",
    "max_image_bytes",
    "retry_failed",
    "rehash",
    "allow_mixed_numerics",
    "allow_private_addresses",
    "beam_options",
)
_STORE_OPTIONS = ("store", "dry_run")
# Options of training and evaluation that may name a file.
_FILE_OPTIONS = ("extractor", "extractor_weights", "labels")
# Options of training that are not hyperparameters.
_RUN_OPTIONS = ("store", "run_dir", "dataset", "feature_table", "caption_table", "hyperparameters")
# The option of training that selects a table, by kind of table.
_TABLE_OPTIONS = {"features": "feature_table", "captions": "caption_table"}


@dataclass(frozen=True)
class Preparation:
    """A `capt prepare` command that writes one kind of table.

    Args:
        command: Name after `capt prepare`.
        options: Class of the options.
        run: Function of the command.
        compute_fingerprint: Computes the fingerprint of the table from options and store; None if only a dry run can
            compute it.
    """

    command: str
    options: type[Options]
    run: Callable[..., dict[str, Any]]
    compute_fingerprint: Callable[[Any, Store], str] | None = None

    @property
    def dataset_options(self) -> tuple[str, ...]:
        """Names of the options that determine the records. These options are equal for all tables of a dataset."""
        return tuple(name for name in self.options.model_fields if name in _DATASET_OPTIONS)

    @property
    def row_options(self) -> tuple[str, ...]:
        """Names of the options that determine the rows of a table, or how its job computes them."""
        others = (*_DATASET_OPTIONS, *_STORE_OPTIONS)
        return tuple(name for name in self.options.model_fields if name not in others)

    def prepare(self, store: str | Path, options: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Runs the command and returns its result.

        Args:
            store: The store.
            options: Options of the command by name. A single path is accepted as a list of one.
            dry_run: Whether to write nothing.

        Raises:
            UsageError: An option is unknown or invalid.
        """
        return self.run(self.parse(store, options).model_copy(update={"dry_run": dry_run}))

    def fingerprint(self, store: Store, options: Mapping[str, Any]) -> str:
        """Returns the fingerprint of the table that the command would write."""
        if self.compute_fingerprint is None:
            return str(self.prepare(store.path, options, dry_run=True)["fingerprint"])
        return self.compute_fingerprint(self.parse(store.path, options), store)

    def parse(self, store: str | Path, options: Mapping[str, Any]) -> Options:
        """Parses the options.

        Raises:
            UsageError: An option is unknown, invalid, or set by the workflow.
        """
        location = f"prepare {self.command}"
        for name in underscored(options):
            if name in _STORE_OPTIONS:
                raise UsageError(f"{name} is not an option of a table", location=location, hint="Omit the option.")
        return self.options.parse({**options, "store": str(store)}, location)


def _features_fingerprint(options: PrepareFeatures, store: Store) -> str:
    return build_table_config(options, store).fingerprint


def _pixels_fingerprint(options: PrepareCaptcha, store: Store) -> str:
    return _features_fingerprint(build_pixel_options(options), store)


# The preparations of each task, by kind of table: `features`, and `captions` if the task has caption tables.
PREPARATIONS: dict[str, dict[str, Preparation]] = {
    "captioner": {
        "features": Preparation("features", PrepareFeatures, prepare_features, _features_fingerprint),
        "captions": Preparation("captions", PrepareCaptions, prepare_captions),
    },
    "captcha": {"features": Preparation("captcha", PrepareCaptcha, prepare_captcha, _pixels_fingerprint)},
}


@dataclass(frozen=True)
class PreparedTask:
    """A task together with the preparation of its tables; find it with `find_prepared_task`."""

    name: str

    @cached_property
    def task(self) -> Task:
        """The task."""
        return find_task(self.name)

    @property
    def preparations(self) -> Mapping[str, Preparation]:
        """The preparations by kind of table."""
        return PREPARATIONS[self.name]

    @property
    def has_captions(self) -> bool:
        """Returns whether the task has caption tables, and thus a vocabulary."""
        return "captions" in self.preparations

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns all hyperparameters of a run by name, defaults included.

        Args:
            options: Options and hyperparameters of `capt train`.

        Raises:
            UsageError: An option is unknown or invalid.
        """
        return self._parse(options).to_dict()

    def check_shape(self, options: Mapping[str, Any], shape: tuple[int, ...], location: str) -> None:
        """Raises UsageError if the model does not read features of this shape.

        Args:
            options: As for `settings`.
            shape: The shape of the features of one image.
            location: The feature table, for errors.
        """
        self.task.check_shape(self._parse(options), shape, location)

    def train(
        self,
        store: str | Path,
        run_dir: str | Path,
        options: Mapping[str, Any],
        tables: Mapping[str, str],
        dataset: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Trains or resumes a run and returns the result of the training command.

        Args:
            store: The store.
            run_dir: The run directory.
            options: As for `settings`.
            tables: Fingerprints by kind of table.
            dataset: Names of the datasets; None if the store contains only one that fits.
        """
        fixed = {"store": str(store), "run_dir": str(run_dir), "dataset": tuple(dataset or ())}
        selected = {_TABLE_OPTIONS[kind]: fingerprint for kind, fingerprint in tables.items()}
        return train(self.task, self.task.options.parse({**_hyperparameters(options), **fixed, **selected}, "train"))

    def check_evaluation(self, options: Mapping[str, Any]) -> None:
        """Raises UsageError if these options of `capt evaluate` do not fit the task."""
        try:
            self.task.check_evaluation(Evaluate.parse({"runs": ("RUN",), **options}, "evaluate"))
        except UsageError as error:
            location = error.location
            if not location.startswith("evaluate"):
                location = f"evaluate: {location}" if location else "evaluate"
            raise UsageError(error.message, location=location, hint=error.hint) from None

    def _parse(self, options: Mapping[str, Any]) -> Hyperparameters[Any]:
        given = _hyperparameters(options)
        return self.task.parse(given.pop(self.task.choice, None), given)


def find_prepared_task(name: str) -> PreparedTask:
    """Returns the task with this name and its preparations.

    Raises:
        UsageError: The task is unknown.
    """
    return PreparedTask(_check_task_name(name))


def _check_task_name(name: str) -> str:
    if name not in TASKS or name not in PREPARATIONS:
        raise UsageError(f"there is no task {name!r}", hint=f"Use one of {', '.join(TASKS)}.")
    return name


def _validate_task_name(name: str) -> str:
    try:
        return _check_task_name(name)
    except UsageError as error:
        raise ValueError(str(error)) from None


TaskName = Annotated[str, AfterValidator(_validate_task_name)]


def evaluate_run(store: str | Path, run_dir: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates one run and returns the result of `capt evaluate`.

    Args:
        store: The store.
        run_dir: The run directory.
        options: Options of `capt evaluate` by name.

    Raises:
        UsageError: An option is unknown or invalid.
    """
    return evaluate(Evaluate.parse({**options, "runs": (str(run_dir),), "store": str(store)}, "evaluate"))


def underscored(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with underscores instead of dashes in their names.

    Raises:
        UsageError: An option is set in both spellings.
    """
    named: dict[str, Any] = {}
    for key, value in options.items():
        name = str(key).replace("-", "_")
        if name in named:
            raise UsageError(f"{name} is set twice, with a dash and with an underscore", hint="Keep one of the two.")
        named[name] = value
    return named


def files_named(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of each file that options name, by option. The content affects results, the path does not.

    Args:
        options: Options of training or evaluation.
    """
    named = {name: str(value).removeprefix("custom:") for name, value in underscored(options).items() if value}
    files = {name: parse_location(path) for name, path in named.items() if name in _FILE_OPTIONS}
    return {name: hash_file(path) for name, path in files.items() if path.is_file()}


def _hyperparameters(options: Mapping[str, Any]) -> dict[str, Any]:
    given = underscored(options)
    for name in _RUN_OPTIONS:
        if name in given:
            raise UsageError(f"{name} is not a hyperparameter", hint="Omit the option. The workflow sets it.")
    return given
