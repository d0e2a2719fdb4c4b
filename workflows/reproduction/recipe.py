"""Defines recipes: pinned data, settings and seeds, and the scores that they give."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from features.store import check_dataset_name
from schemas.choices import Split
from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.options.base import Options, Seed
from workflows.experiments.config import NONE_TO_EMPTY, SEED, TO_SEQUENCE, Values
from workflows.prepared_tasks import PREPARATIONS, PreparedTask, TaskName, dataset_name, errors_in, find_prepared_task

BANDED_SPLIT: Split = "val"
CUSTOM = "custom:"

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Names = Annotated[tuple[str, ...], TO_SEQUENCE]
# The reproduction sets these options of `capt evaluate`.
_EVALUATION_SET = ("runs", "store", "split", "dataset", "caption_table", "ensemble", "labels", "epoch", "answers")
# The work directory, --images and --annotations set these options of `capt prepare`.
_DATA_SET = ("images", "annotations", "labels")
_PLACEHOLDERS = {"images": ["IMAGES"], "annotations": ["ANNOTATIONS"], "labels": "LABELS"}
_TABLE_KEYS = tuple(dict.fromkeys(one.command for tables in PREPARATIONS.values() for one in tables.values()))
_TRAINING_KEYS = ("train", "stages", "ensemble")


class FetchedFiles(Settings):
    """Files of `capt fetch`.

    Args:
        dataset: Dataset of `capt fetch`.
        images: Names of the archives with images.
        annotations: Names of the annotation files, or of files in archives: `caption_datasets.zip/dataset_coco.json`.
    """

    dataset: str
    images: Names = Field(min_length=1)
    annotations: Names = Field(min_length=1)


class GeneratedData(Settings):
    """Data of `capt synth`.

    Args:
        command: Command that generates the data.
        options: Options of the command.
    """

    command: Literal["scenes", "captcha"]
    options: Annotated[Values, NONE_TO_EMPTY] = Field(default_factory=dict)


class RecipeData(Settings):
    """The data of a recipe.

    Args:
        title: The data in a few words.
        options: Options of `capt prepare` that are equal for all tables, such as `dataset_type`.
        fetch: Files to download if --images and --annotations are omitted.
        synth: Data to generate.
        checksums: File in the format of `sha256sum` with the name and SHA-256 of every image, beside the recipe.
        files: SHA-256 of each annotation file by its name. Several are equivalent copies.
        split_files: Names of the annotation files that only one split requires, by split.
    """

    title: str
    options: Values = Field(default_factory=dict)
    fetch: FetchedFiles | None = None
    synth: GeneratedData | None = None
    checksums: str | None = None
    files: dict[str, Annotated[tuple[Sha256, ...], TO_SEQUENCE]] = Field(default_factory=dict)
    split_files: dict[Split, Names] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fetch and self.synth:
            raise ValueError("data are either fetched or generated")
        return self


class Measurement(Settings):
    """The run that a band was measured with.

    Args:
        command: The command.
        machine: The machine.
        date: The date, YYYY-MM-DD.
        minutes: Minutes that the command took.
    """

    command: str
    machine: str
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    minutes: float | None = Field(None, gt=0)


class ExpectedScores(Settings):
    """The band of each score on the validation split.

    Args:
        scores: Lowest and highest value of each score by its name, as fractions.
        derivation: How the bands were derived, such as `mean ± 3 standard deviations of the seeds 0, 1 and 2`.
        measured: The run that they were measured with; null for bands from a paper.
    """

    scores: dict[str, tuple[float, float]] = Field(min_length=1)
    derivation: str
    measured: Measurement | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in self.scores.items():
            if not low <= high:
                raise ValueError(f"the band of {name} begins above its end")
        return self


class Recipe(Settings):
    """A recipe, complete: `capt reproduce NAME --dry-run` prints it.

    Args:
        description: What the recipe reproduces, in one sentence.
        task: `captioner` or `captcha`.
        data: Source, checksums and splits of the data; null for an ensemble, which has the data of its members.
        features: Options of `capt prepare features`. `extractor: custom:NAME.keras` requires --extractor.
        captions: Options of `capt prepare captions`.
        captcha: Options of `capt prepare captcha`.
        extractor_sha256: SHA-256 of the file of a custom extractor.
        train: Options and hyperparameters of `capt train` for all stages.
        stages: Training stages: options and hyperparameters that differ from `train`. The first stage begins with
            random weights. Each further stage begins with the weights of the stage before.
        seeds: Seeds of the training. Each seed trains one run; the scores are the means of the runs.
        ensemble: Recipes of equal data and captions whose runs predict together, in place of `data`, tables and
            `train`. Each is trained with every seed of this recipe.
        evaluate: Options of `capt evaluate`.
        expected: Bands of the scores; null if they are not known yet.
        not_run: Reason why the recipe was not run; null if its bands were measured.
        minutes: Expected duration in minutes on two cores.
        gigabytes: Expected disk usage in gigabytes.
    """

    description: str
    task: TaskName = "captioner"
    data: RecipeData | None = None
    features: Annotated[Values, NONE_TO_EMPTY] = Field(default_factory=dict)
    captions: Annotated[Values, NONE_TO_EMPTY] = Field(default_factory=dict)
    captcha: Annotated[Values, NONE_TO_EMPTY] = Field(default_factory=dict)
    extractor_sha256: Sha256 | None = None
    train: Annotated[Values, NONE_TO_EMPTY] = Field(default_factory=dict)
    stages: tuple[Values, ...] = Field(({},), min_length=1)
    seeds: Annotated[tuple[Seed, ...], TO_SEQUENCE] = Field(default=(0,), min_length=1)
    ensemble: Annotated[tuple[str, ...], TO_SEQUENCE] = ()
    evaluate: Annotated[Values, NONE_TO_EMPTY] = Field(default_factory=dict)
    expected: ExpectedScores | None = None
    not_run: str | None = None
    minutes: float | None = Field(None, gt=0)
    gigabytes: float | None = Field(None, gt=0)

    @property
    def training_task(self) -> PreparedTask:
        return find_prepared_task(self.task)

    @property
    def data_options(self) -> dict[str, Any]:
        """Options of `capt prepare` that are equal for all tables."""
        return Options.named(self.data.options) if self.data else {}

    @property
    def dataset(self) -> str:
        """Name of the dataset in the store."""
        return dataset_name(self.data_options, self.task)

    @property
    def model(self) -> str | None:
        """The model or profile of its runs; None for an ensemble."""
        choice = self.training_task.task.choice
        return None if self.ensemble else str(self.list_stages()[0][choice])

    def has_tables_of(self, other: "Recipe") -> bool:
        """Returns whether the recipes train on equal tables."""
        names = ("task", "data", *_TABLE_KEYS, "extractor_sha256")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def preparation_options(self, kind: str, sources: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options that prepare a table by key of `PreparedTask.preparations`.

        `sources` are the options that name files, such as `images`.
        """
        preparation = self.training_task.preparations[kind]
        data = {**self.data_options, **sources}
        shared = {name: value for name, value in data.items() if name in preparation.dataset_options}
        return {**shared, **Options.named(getattr(self, preparation.command))}

    def list_stages(self) -> list[dict[str, Any]]:
        """Lists the options and hyperparameters of each stage by name, without the seed."""
        stages = [{**Options.named(self.train), **Options.named(stage)} for stage in self.stages]
        task = self.training_task
        return [{task.task.choice: task.settings(stage)[task.task.choice], **stage} for stage in stages]

    def resolve(self) -> dict[str, Any]:
        """Returns the complete recipe, all defaults included, in the form of a recipe file."""
        written = self.model_dump(mode="json", exclude={*_TRAINING_KEYS, *_TABLE_KEYS}, exclude_none=True)
        if self.ensemble:
            return {**written, "ensemble": list(self.ensemble)}
        task = self.training_task
        tables = {
            preparation.command: _list_row_options(self._parse_table(kind), preparation.row_options)
            for kind, preparation in task.preparations.items()
        }
        stages = [task.settings(stage) for stage in self.list_stages()]
        shared = {name: value for name, value in stages[0].items() if all(one.get(name) == value for one in stages)}
        differing = [{name: value for name, value in one.items() if name not in shared} for one in stages]
        del shared[SEED]
        return {**written, **tables, "train": shared, "stages": differing}

    def check(self, location: str) -> None:
        """Checks that every option is known, valid, and not set by the reproduction.

        Raises:
            UsageError: An option is unknown or invalid, or a key does not fit the task or the other keys.
        """
        if self.ensemble:
            self._check_ensemble(location)
        else:
            self._check_data(location)
            self._check_tables(location)
            self._check_training(location)
        with errors_in(f"{location}: evaluate"):
            _refuse(self.evaluate, _EVALUATION_SET)
        with errors_in(location):
            ensemble = {"ensemble": ("RUN",)} if self.ensemble else {}
            self.training_task.check_evaluation({**self.evaluate, **ensemble})
        metrics = self.training_task.task.metrics
        for name in self.expected.scores if self.expected else ():
            if name not in metrics:
                hint = f"Use one of {', '.join(metrics)}."
                raise UsageError(f"unknown score {name!r}", location=f"{location}: expected.scores", hint=hint)
        measured = self.expected.measured if self.expected else None
        if bool(measured) == bool(self.not_run):
            message = "expected one of expected.measured and not_run"
            hint = "Write to `not_run:` why the recipe was not run, or to `expected.measured:` how it was."
            raise UsageError(message, location=location, hint=hint)

    def _check_ensemble(self, location: str) -> None:
        for name in ("data", "extractor_sha256", "train", *_TABLE_KEYS):
            if getattr(self, name):
                hint = f"Remove `{name}:` or `ensemble:`."
                raise UsageError(f"an ensemble has no {name} of its own", location=location, hint=hint)

    def _check_data(self, location: str) -> None:
        if self.data is None:
            raise UsageError("the key 'data' is missing", location=location, hint="Add `data:` or `ensemble:`.")
        known = {name for one in self.training_task.preparations.values() for name in one.dataset_options}
        with errors_in(f"{location}: data.options"):
            _refuse(self.data.options, _DATA_SET)
            for name in self.data_options:
                if name not in known:
                    raise UsageError(f"unknown option {name!r}", hint=f"Use one of {', '.join(sorted(known))}.")
            check_dataset_name(self.dataset)

    def _check_tables(self, location: str) -> None:
        task = self.training_task
        own = [one.command for one in task.preparations.values()]
        for command in _TABLE_KEYS:
            if command not in own and getattr(self, command):
                message = f"the task {self.task} has no {command} tables"
                raise UsageError(message, location=location, hint=f"Remove `{command}:`.")
        for kind, preparation in task.preparations.items():
            with errors_in(f"{location}: {preparation.command}"):
                self._parse_table(kind)
        is_custom = str(Options.named(self.features).get("extractor", "")).startswith(CUSTOM)
        if is_custom != bool(self.extractor_sha256):
            message = "extractor_sha256 is missing" if is_custom else "extractor_sha256 requires a custom extractor"
            hint = "Set extractor_sha256 for `extractor: custom:NAME.keras`, and for no other extractor."
            raise UsageError(message, location=location, hint=hint)

    def _check_training(self, location: str) -> None:
        for number, stage in enumerate(self.stages, 1):
            with errors_in(f"{location}: stage {number}"):
                options = {**Options.named(self.train), **Options.named(stage)}
                if SEED in options:
                    raise UsageError("seed is not an option of a stage", hint="Move the option to `seeds:`.")
                self.training_task.settings(options)

    def _parse_table(self, kind: str) -> Options:
        options = self.preparation_options(kind, _PLACEHOLDERS)
        return self.training_task.preparations[kind].parse("STORE", options)


def _refuse(options: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in Options.named(options):
            raise UsageError(f"{name} is set by `capt reproduce`", hint="Remove the option.")


def _list_row_options(options: Options, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the options of a table that are set, defaults included."""
    values = options.model_dump(mode="json", include=set(names), exclude_none=True)
    return {name: value for name, value in values.items() if value != []}
