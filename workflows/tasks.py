"""Tasks: what runs learn to do, each prepared, trained and evaluated from plain mappings of options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from pydantic import ValidationError

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
from schemas.options.training import TrainCaptcha, TrainCaptioner, TrainingOptions
from trainer.config import parse_options, parse_recognizer
from trainer.decoding.generation import GenerationConfig
from trainer.evaluation.evaluate import evaluate
from trainer.metrics import METRICS, TITLES
from trainer.models.configs import DEFAULT_PROFILE
from trainer.models.model_specs import RECOGNIZER_INPUT, PixelInput, model_spec
from trainer.runs.recognizer_run import refuse_generation_options
from trainer.tasks.train_captioner import train_captioner
from trainer.tasks.train_recognizer import train_captcha

TaskName = Literal["captioner", "captcha"]
TrainingKind = TypeVar("TrainingKind", bound=TrainingOptions)

# What decides which images and captions a dataset has, and how a job runs; the other options say what a row means.
_OF_DATASET = (
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
_OF_PLACE = ("store", "dry_run")
# Options of training and evaluation that may name a file.
_FILES = ("extractor", "extractor_weights", "labels")
# Arguments of training that say where it reads and writes, not how it learns.
_OF_RUN = ("store", "run_dir", "dataset", "feature_table", "caption_table", "hyperparameters")
# The option of training that takes the fingerprint of a table, by the kind of the table.
_TABLE_OPTIONS = {"features": "feature_table", "captions": "caption_table"}
# The score of captions that best agrees with what people think of them, which tables begin with.
_TELLING = "cider_d"


@dataclass(frozen=True)
class Preparation:
    """A job that fills a table of the store, and a dataset.

    Args:
        command: str. What `capt prepare` calls it.
        options: type. Its options.
        run: function. The job; takes the options and returns its figures.
        tells: function of options and store, or None. The fingerprint of the table, known without running the job; None
            where the job's plan must tell.
    """

    command: str
    options: type[Options]
    run: Callable[..., dict[str, Any]]
    tells: Callable[[Any, Store], str] | None

    @property
    def of_dataset(self) -> tuple[str, ...]:
        """Names of the options that decide which records there are: one table's are the same as another's."""
        return tuple(name for name in self.options.model_fields if name in _OF_DATASET)

    @property
    def of_rows(self) -> tuple[str, ...]:
        """Names of the options that decide what a row means, or how its job computes."""
        return tuple(name for name in self.options.model_fields if name not in (*_OF_DATASET, *_OF_PLACE))

    def prepare(self, store: str | Path, options: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Run the job, or say what it would do.

        Args:
            store: str or Path. The store.
            options: mapping. Options of the command, by name; a path alone may stand for a list of one.
            dry_run: bool. As `--dry-run` of the command.

        Raises:
            UsageError: an option is unknown or wrong.
            CaptError: as the command says.
        """
        return self.run(self.parsed(store, options).model_copy(update={"dry_run": dry_run}))

    def fingerprint(self, store: Store, options: Mapping[str, Any]) -> str:
        """The fingerprint of the table that these options make."""
        if self.tells is None:
            return str(self.prepare(store.path, options, dry_run=True)["fingerprint"])
        return self.tells(self.parsed(store.path, options), store)

    def parsed(self, store: str | Path, options: Mapping[str, Any]) -> Options:
        """The options, typed; UsageError by name where one is unknown, wrong, or said elsewhere."""
        location = f"prepare {self.command}"
        for name in underscored(options):
            if name in _OF_PLACE:
                raise UsageError(f"{name} is not an option of a table", location=location, hint="Leave it out.")
        return self.options.parse({**options, "store": str(store)}, location)


@dataclass(frozen=True)
class Score:
    """A score of a run.

    Args:
        value: float. As `capt evaluate` has it.
        interval: (low, high) or None. Where 95 % of the draws of as many images lie; None where that is not known.
    """

    value: float
    interval: tuple[float, float] | None = None


class Task(Protocol):
    """What runs learn to do.

    Attributes:
        name: str. What records of runs call it.
        preparations: mapping of Preparation. By the name under which training takes the table's fingerprint.
        scores: mapping of str. What scores are called on pages, by name, the telling one first.
    """

    name: TaskName
    preparations: Mapping[str, Preparation]
    scores: Mapping[str, str]

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a run by name, those included that the options leave at their defaults.

        Args:
            options: mapping. As `capt train` takes them on the command line and in `--config`, together.

        Raises:
            UsageError: an option is unknown or wrong.
        """

    def check_shape(self, options: Mapping[str, Any], shape: tuple[int, ...], location: str) -> None:
        """UsageError where features of this shape are not what the model reads; `where` names their table."""

    def train(
        self,
        store: str | Path,
        run_dir: str | Path,
        options: Mapping[str, Any],
        tables: Mapping[str, str],
        dataset: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Train a run, or go on with it; the figures of the training command.

        Args:
            store: str or Path. The store.
            run_dir: str or Path. The run directory.
            options: mapping. As `settings` takes them.
            tables: mapping of str. Fingerprints, by the names of `preparations`.
            dataset: sequence of str or None. Names of the datasets; None where the store holds one that fits.
        """

    def check_evaluation(self, options: Mapping[str, Any]) -> None:
        """UsageError where these are no options of `capt evaluate` for such runs, as far as that shows without one."""

    def scored(self, evaluated: Mapping[str, Any]) -> dict[str, Score]:
        """The scores of one run, of what `evaluate_run` returned."""


def _features_fingerprint(options: PrepareFeatures, store: Store) -> str:
    return build_table_config(options, store).fingerprint


def _pixels_fingerprint(options: PrepareCaptcha, store: Store) -> str:
    return _features_fingerprint(build_pixel_options(options), store)


class CaptionerTask:
    """Captions of images, from a table of features and one of tokens."""

    name: TaskName = "captioner"
    preparations: Mapping[str, Preparation] = {
        "features": Preparation("features", PrepareFeatures, prepare_features, _features_fingerprint),
        "captions": Preparation("captions", PrepareCaptions, prepare_captions, None),
    }
    scores: Mapping[str, str] = {name: TITLES[name] for name in sorted(METRICS, key=_TELLING.__ne__)}

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task` says."""
        given = _of_training(options)
        model = given.pop("model", "soft_attention")
        training, sizes = parse_options(model_spec(model).config, given)
        return {"model": model, **sizes.model_dump(mode="json"), **training.resolved().model_dump(mode="json")}

    def check_shape(self, options: Mapping[str, Any], shape: tuple[int, ...], location: str) -> None:
        """As `Task` says."""
        settings = self.settings(options)
        wanted = PixelInput() if settings["extractor"] else model_spec(settings["model"])
        wanted.check_shape(shape, location)

    def train(
        self,
        store: str | Path,
        run_dir: str | Path,
        options: Mapping[str, Any],
        tables: Mapping[str, str],
        dataset: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """As `Task` says."""
        return train_captioner(_parsed(TrainCaptioner, store, run_dir, options, tables, dataset))

    def check_evaluation(self, options: Mapping[str, Any]) -> None:
        """As `Task` says."""
        given = _of_evaluation(options)
        if given.labels is not None:
            raise UsageError("captions are in the store", location="evaluate: --labels", hint="Leave it out.")
        generation = given.generation()
        generation.pop("bad_words", None)
        try:
            GenerationConfig(**{"max_new_tokens": 1, **generation})
        except ValidationError as error:
            raise UsageError(error.errors()[0]["msg"], location="evaluate") from None

    def scored(self, evaluated: Mapping[str, Any]) -> dict[str, Score]:
        """As `Task` says."""
        intervals = evaluated["intervals"]
        names = [name for name in METRICS if name in evaluated]
        return {name: Score(evaluated[name], _pair(intervals.get(name))) for name in names}


class CaptchaTask:
    """Words of CAPTCHAs, from a table of pixels."""

    name: TaskName = "captcha"
    preparations: Mapping[str, Preparation] = {
        "features": Preparation("captcha", PrepareCaptcha, prepare_captcha, _pixels_fingerprint)
    }
    scores: Mapping[str, str] = {
        "exact_match": "words right",
        "exact_match_beam": "words right, beam",
        "exact_match_lexicon": "words right, lexicon",
        "character_error_rate": "wrong letters",
    }

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task` says."""
        given = _of_training(options)
        profile = given.pop("profile", DEFAULT_PROFILE)
        training, sizes = parse_recognizer(profile, given)
        return {"profile": profile, **sizes.model_dump(mode="json"), **training.resolved().model_dump(mode="json")}

    def check_shape(self, options: Mapping[str, Any], shape: tuple[int, ...], location: str) -> None:
        """As `Task` says."""
        RECOGNIZER_INPUT.check_shape(shape, location)

    def train(
        self,
        store: str | Path,
        run_dir: str | Path,
        options: Mapping[str, Any],
        tables: Mapping[str, str],
        dataset: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """As `Task` says."""
        return train_captcha(_parsed(TrainCaptcha, store, run_dir, options, tables, dataset))

    def check_evaluation(self, options: Mapping[str, Any]) -> None:
        """As `Task` says."""
        refuse_generation_options(_of_evaluation(options))

    def scored(self, evaluated: Mapping[str, Any]) -> dict[str, Score]:
        """As `Task` says."""
        decoded = {"exact_match": "greedy", "exact_match_beam": "beam", "exact_match_lexicon": "lexicon"}
        right = {name: Score(evaluated[name], _pair(evaluated[how]["interval"])) for name, how in decoded.items()}
        return {**right, "character_error_rate": Score(evaluated["greedy"]["character_error_rate"])}


TASKS: Mapping[TaskName, Task] = {"captioner": CaptionerTask(), "captcha": CaptchaTask()}


def task_of(name: str) -> Task:
    """The task called `name`; UsageError naming the ones there are."""
    for task in TASKS.values():
        if task.name == name:
            return task
    raise UsageError(f"there is no task {name!r}", hint=f"use one of {', '.join(get_args(TaskName))}")


def evaluate_run(store: str | Path, run_dir: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of one run on held-out images of the store, as `capt evaluate` returns them.

    Args:
        store: str or Path. The store.
        run_dir: str or Path. The run directory.
        options: mapping. Options of `capt evaluate`, by name: `split`, `beam`, …

    Raises:
        UsageError: an option is unknown or wrong.
    """
    return evaluate(Evaluate.parse({**options, "runs": (str(run_dir),), "store": str(store)}, "evaluate"))


def underscored(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the names that Python has for them; those of the command line have dashes.

    Raises:
        UsageError: An option stands there with a dash and with an underscore, and one would be ignored.
    """
    named: dict[str, Any] = {}
    for name, value in options.items():
        own = str(name).replace("-", "_")
        if own in named:
            raise UsageError(
                f"{own} stands there twice, with a dash and with an underscore", hint="keep one of the two"
            )
        named[own] = value
    return named


def files_named(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of each file that options name, by option: it decides results, and its path does not.

    Args:
        options: Options of training or evaluation.
    """
    named = {name: str(value).removeprefix("custom:") for name, value in underscored(options).items() if value}
    files = {name: parse_location(path) for name, path in named.items() if name in _FILES}
    return {name: hash_file(path) for name, path in files.items() if path.is_file()}


def _of_training(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run, by name; UsageError where one says where it reads or writes."""
    given = underscored(options)
    for name in _OF_RUN:
        if name in given:
            raise UsageError(f"{name} is not how a run learns", hint="leave it out; it is said elsewhere")
    return given


def _of_evaluation(options: Mapping[str, Any]) -> Evaluate:
    """The options of an evaluation; UsageError where one is unknown or wrong."""
    return Evaluate.parse({"runs": ("RUN",), **options}, "evaluate")


def _parsed(
    kind: type[TrainingKind],
    store: str | Path,
    run_dir: str | Path,
    options: Mapping[str, Any],
    tables: Mapping[str, str],
    dataset: Sequence[str] | None,
) -> TrainingKind:
    """The options of a training command: those that are none of its own are hyperparameters."""
    location = {"store": str(store), "run_dir": str(run_dir), "dataset": tuple(dataset or ())}
    named = {_TABLE_OPTIONS[name]: fingerprint for name, fingerprint in tables.items()}
    return kind.parse({**_of_training(options), **location, **named}, "train")


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))
