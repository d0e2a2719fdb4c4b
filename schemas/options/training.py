"""Declares the options of `capt config` and `capt train`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from schemas.choices import CaptionsPerImage, LanguageModel, Objective, RnnCell
from schemas.options.base import Argument, Count, Natural, Option, Options, option
from schemas.options.shared import CAPTION_TABLE

Profile = Literal["quick", "default", "best"]
CaptionerName = Literal[
    "soft_attention", "hard_attention", "transformer", "nic", "m_rnn", "init_inject", "par_inject", "merge"
]
RECOGNIZER = "recognizer"


def _check_model(*names: str) -> AfterValidator:
    """Accepts the names of models, and `FILE.py:Class`."""

    def check(model: str) -> str:
        if model not in names and not model.rpartition(":")[0].endswith(".py"):
            expected = f"{', '.join(names)} or FILE.py:Class"
            raise PydanticCustomError("model", "{expected}", {"expected": expected})
        return model

    return AfterValidator(check)


CaptionerModel = Annotated[str, _check_model(*get_args(CaptionerName))]
RecognizerModel = Annotated[str, _check_model(RECOGNIZER)]
AnyModel = Annotated[str, _check_model(*get_args(CaptionerName), RECOGNIZER)]
Rate = Annotated[float, Field(gt=0, lt=1)]
_OWN = "or FILE.py:Class for a model of your own."

StoreToRead = Annotated[str, Option("Store to read: a local directory, or an s3:// or gs:// URI.", "STORE")]
RunDir = Annotated[
    str,
    Option("Run directory. Created if it does not exist. An unfinished run resumes from its last checkpoint.", "DIR"),
]
DATASETS = option((), "Dataset in the store to train on. Repeatable. [default: the only dataset that fits]", "NAME")
STEPS_PER_EPOCH = option(
    None,
    "Number of steps per epoch. If set, images are sampled with replacement. [default: one pass over the train split]",
)
SAVE_STEPS = option(
    None, "Number of steps between checkpoints, in addition to one after each epoch. [default: after each epoch only]"
)
WARM_START_FROM = option(
    None,
    "Run that the initial weights are copied from. The model and its sizes must be the same; the vocabulary of a "
    "captioner, and characters and label length of a recognizer, may differ. [default: random initialization]",
    "RUN",
)


class TrainingOptions(Options):
    """Options of every training command."""

    hyperparameters: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def named(cls, values: Mapping[str, Any], location: str = "") -> dict[str, Any]:
        """Returns values by the names of options. Values of other names are hyperparameters."""
        named = super().named(values, location)
        own = {name: value for name, value in named.items() if name in cls.model_fields}
        rest = {name: value for name, value in named.items() if name not in own}
        return {**own, "hyperparameters": {**own.get("hyperparameters", {}), **rest}}

    def settings(self) -> dict[str, Any]:
        """Returns the hyperparameters, including those that are options. Options take precedence."""
        given = self.model_dump(include=set(_HYPERPARAMETERS), exclude_none=True)
        return {**self.hyperparameters, **given}


_HYPERPARAMETERS = (
    *("seed", "epochs", "steps_per_epoch", "save_steps"),
    *("objective", "captions_per_image", "rnn_cell", "dataset_weights", "language_model"),
)


class Config(TrainingOptions):
    """Print the settings of a model as YAML, in the form that `capt train --config` reads, or its layers.

    Hyperparameters are read from --config; the others have their defaults.
    """

    model: Annotated[
        AnyModel,
        Argument(
            "Model: soft_attention, hard_attention, transformer, nic, m_rnn, init_inject, par_inject, merge, "
            f"recognizer, {_OWN}",
            "MODEL",
        ),
    ]
    profile: Profile | None = option(
        None, "Profile of the recognizer: quick, default or best. Not valid for captioners. [default: default]"
    )
    summary: bool = option(
        False, "Print the layers with their output shapes and numbers of weights instead of the settings."
    )
    feature_shape: str | None = option(
        None,
        "Shape of the features of one image, such as 64,2048. Requires --summary. [default: 64,2048 for models with "
        "spatial features, 2048 for models with pooled features, 80,160,3 for the recognizer]",
        "SHAPE",
    )
    vocab_size: Count | None = option(
        None,
        "Vocabulary size with the special tokens, at least 4. Requires --summary. Captioners only. [default: 5000]",
    )
    output: str | None = option(
        None,
        "Image file for a figure of the layers, such as model.png. Requires --summary. [default: no figure]",
        "FILE",
    )


class TrainCaptioner(TrainingOptions):
    """Train a captioning model. Hyperparameters are read from --config; `capt config MODEL` lists them."""

    store: StoreToRead
    run_dir: RunDir
    model: CaptionerModel = option(
        "soft_attention",
        f"Captioner: soft_attention, hard_attention, transformer, nic, m_rnn, init_inject, par_inject, merge, {_OWN}",
        "MODEL",
    )
    dataset: tuple[str, ...] = DATASETS
    feature_table: str | None = option(
        None,
        "Feature table, by fingerprint or the beginning of one. [default: the only table that fits]",
        "FINGERPRINT",
    )
    caption_table: str | None = CAPTION_TABLE
    seed: Natural | None = option(
        None, "Seed of weight initialization, shuffling, dropout, augmentation and caption sampling. [default: 0]"
    )
    epochs: Count | None = option(None, "Number of epochs. [default: 20, unless --config sets it]")
    steps_per_epoch: Count | None = STEPS_PER_EPOCH
    save_steps: Count | None = SAVE_STEPS
    objective: Objective | None = option(
        None,
        "Training objective: cross_entropy, or cider_d (self-critical sequence training: a second stage after "
        "--warm-start-from). [default: cross_entropy]",
    )
    captions_per_image: CaptionsPerImage | None = option(
        None, "Captions per image and epoch: all of them, or one random caption. [default: all; init_inject: one]"
    )
    rnn_cell: RnnCell | None = option(
        None,
        "RNN cell: rnn, lstm or gru; m_rnn also has adding (the cell of its paper). Not valid for transformer. "
        "[default: depends on the model]",
    )
    warm_start_from: str | None = WARM_START_FROM


class TrainCaptcha(TrainingOptions):
    """Train a CAPTCHA recognizer. Hyperparameters are read from --config; `capt config recognizer` lists them."""

    store: StoreToRead
    run_dir: RunDir
    model: RecognizerModel = option(RECOGNIZER, f"Model: recognizer, {_OWN}", "MODEL")
    profile: Profile = option(
        "default",
        "Set of default hyperparameters: quick (fewer epochs), default, or best (a larger model, more epochs).",
    )
    dataset: tuple[str, ...] = DATASETS
    feature_table: str | None = option(
        None,
        "Feature table with pixels, by fingerprint or the beginning of one. [default: the only table that fits]",
        "FINGERPRINT",
    )
    seed: Natural | None = option(
        None, "Seed of weight initialization, shuffling, dropout and augmentation. [default: 0]"
    )
    epochs: Count | None = option(
        None, "Number of epochs. [default: depends on --profile and the number of train images]"
    )
    steps_per_epoch: Count | None = STEPS_PER_EPOCH
    dataset_weights: str | None = option(
        None,
        "Fraction of an epoch that each --dataset fills, in the order of the option, comma-separated: with 1,3, every "
        "fourth image is one of the first dataset. [default: every image once]",
        "WEIGHTS",
    )
    language_model: LanguageModel | None = option(
        None,
        "Whether the recognizer may learn which characters follow each other: words, none, or auto (words, unless a "
        "test finds that the train labels are random). [default: words, unless --config sets it]",
    )
    save_steps: Count | None = SAVE_STEPS
    warm_start_from: str | None = WARM_START_FROM
    learning_curve: bool = option(
        False,
        "Also train on nested fractions of the train split, and estimate how many more labels the target exact match "
        "needs. Takes up to four times as long.",
    )
    target_exact_match: Rate | None = option(
        None, "Exact match that --learning-curve estimates the labels for, between 0 and 1. [default: 0.99]"
    )

    @field_validator("dataset_weights", mode="before")
    @classmethod
    def _join_weights(cls, value: Any) -> Any:
        """Accepts a list of numbers, as in a YAML file."""
        return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    def settings(self) -> dict[str, Any]:
        """Returns the hyperparameters, and `model` for a model of one's own."""
        return {**super().settings(), **({} if self.model == RECOGNIZER else {"model": self.model})}
