"""Declares the options of `capt config` and `capt train`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.choices import CaptionsPerImage, RnnCell
from schemas.options.base import Argument, Count, Natural, Option, Options
from schemas.options.shared import CaptionTable, Datasets, RunDir, SaveSteps, StepsPerEpoch, StoreToRead, WarmStartFrom

Profile = Literal["default", "quick"]
CaptionerName = Literal[
    "soft_attention", "hard_attention", "transformer", "nic", "m_rnn", "init_inject", "par_inject", "merge"
]
ModelName = CaptionerName | Literal["recognizer"]


class Config(Options):
    """Print the default settings of a model as YAML, in the form that `capt train --config` reads."""

    model: Annotated[
        ModelName,
        Argument(
            "Model: soft_attention, hard_attention, transformer, nic, m_rnn, init_inject, par_inject, merge or "
            "recognizer.",
            "MODEL",
        ),
    ]
    profile: Annotated[
        Profile | None,
        Option("Profile of the recognizer: default or quick. Not valid for captioners.", default="default"),
    ] = None


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


_HYPERPARAMETERS = ("seed", "epochs", "steps_per_epoch", "save_steps", "captions_per_image", "rnn_cell")


class TrainCaptioner(TrainingOptions):
    """Train a captioning model. Hyperparameters are read from --config; `capt config MODEL` lists them."""

    store: StoreToRead
    run_dir: RunDir
    model: Annotated[
        CaptionerName,
        Option(
            "Captioner: soft_attention, hard_attention, transformer, nic, m_rnn, init_inject, par_inject or merge.",
            "MODEL",
        ),
    ] = "soft_attention"
    dataset: Datasets = ()
    feature_table: Annotated[
        str | None,
        Option(
            "Feature table, by fingerprint or the beginning of one.", "FINGERPRINT", default="the only table that fits"
        ),
    ] = None
    caption_table: CaptionTable = None
    seed: Annotated[
        Natural | None,
        Option("Seed of weight initialization, shuffling, dropout, augmentation and caption sampling.", default="0"),
    ] = None
    epochs: Annotated[Count | None, Option("Number of epochs.", default="20, unless --config sets it")] = None
    steps_per_epoch: StepsPerEpoch = None
    save_steps: SaveSteps = None
    captions_per_image: Annotated[
        CaptionsPerImage | None,
        Option(
            "Captions per image and epoch: all of them, or one random caption.",
            default="all; init_inject: one",
        ),
    ] = None
    rnn_cell: Annotated[
        RnnCell | None,
        Option(
            "RNN cell: rnn, lstm or gru; m_rnn also has adding. Not valid for transformer.",
            default="depends on the model",
        ),
    ] = None
    warm_start_from: WarmStartFrom = None


class TrainCaptcha(TrainingOptions):
    """Train a CAPTCHA recognizer. Hyperparameters are read from --config; `capt config recognizer` lists them."""

    store: StoreToRead
    run_dir: RunDir
    profile: Annotated[
        Profile, Option("Set of default hyperparameters: default (for 100,000 images) or quick (for 20,000 images).")
    ] = "default"
    dataset: Datasets = ()
    feature_table: Annotated[
        str | None,
        Option(
            "Feature table with pixels, by fingerprint or the beginning of one.",
            "FINGERPRINT",
            default="the only table that fits",
        ),
    ] = None
    seed: Annotated[
        Natural | None, Option("Seed of weight initialization, shuffling, dropout and augmentation.", default="0")
    ] = None
    epochs: Annotated[Count | None, Option("Number of epochs.", default="12; quick: 10")] = None
    steps_per_epoch: StepsPerEpoch = None
    save_steps: SaveSteps = None
    warm_start_from: WarmStartFrom = None
