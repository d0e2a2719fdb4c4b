"""capt: prepare image-text data once, train many times. The front door: every command is one Python function.

On the command line `capt prepare features --store S …`; in a notebook `capt.prepare_features(store=S, …)`, which
takes the same arguments and returns what `--json` prints. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import inspect
import json as jsonlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import CaptError, ExitStatus, UsageError
from schemas.printing import printable
from schemas.settings import read_settings

if TYPE_CHECKING:
    from features.store import Store
    from trainer.runs.captioner_run import CaptionerRun
    from trainer.runs.recognizer_run import RecognizerRun

__version__ = "0.1.0"

app = typer.Typer(
    help="Prepare image-text data once, train many times.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # in rich markup the [defaults] that help texts end with would vanish
    context_settings={"help_option_names": ["-h", "--help"]},
)
prepare = typer.Typer(help="Images and captions into the store.", no_args_is_help=True)
store_app = typer.Typer(help="Look into a store and take care of it.", no_args_is_help=True)
train = typer.Typer(help="Train from the store.", no_args_is_help=True)
models = typer.Typer(help="Which trained runs answer, and why.", no_args_is_help=True)
synth = typer.Typer(help="Make data.", no_args_is_help=True)
predict = typer.Typer(help="Answers for whole folders.", no_args_is_help=True)
experiment = typer.Typer(help="Many runs from one store, and what came of them.", no_args_is_help=True)
app.add_typer(prepare, name="prepare")
app.add_typer(store_app, name="store")
app.add_typer(train, name="train")
app.add_typer(models, name="models")
app.add_typer(synth, name="synth")
app.add_typer(predict, name="predict")
app.add_typer(experiment, name="experiment")


# The argument of a command that gets what --config holds besides options; it is no option itself.
SETTINGS = "options"
_SETTINGS = "capt.settings"
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


# === Options that several commands share ===

StoreOption = Annotated[str, typer.Option("--store", help="Directory of the store, or its address: s3://…, gs://….")]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="Kind: coco, karpathy, flickr8k, flickr30k, conceptual, iapr, csv, jsonl, or folder (no captions).",
    ),
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the dataset in the store [the kind].")]
AnnotationsOption = Annotated[list[str], typer.Option("--annotations", help="Annotation file, or its zip; repeats.")]
LimitImagesOption = Annotated[int | None, typer.Option("--limit-images", help="Take so many images.", min=1)]
LimitCaptionsOption = Annotated[int | None, typer.Option("--limit-captions", help="Take so many captions.", min=1)]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of what is drawn.", min=0)]
SplitOption = Annotated[str, typer.Option("--split", help="own, or shares such as 0.8,0.1,0.1.")]
MaxFailuresOption = Annotated[
    str | None, typer.Option("--max-failures", help="Share or count that may fail [5%; conceptual: 100%].")
]
FormatOption = Annotated[str, typer.Option("--format", help="tfrecord or parquet.")]
CompressionOption = Annotated[
    str, typer.Option("--compression", help="none, or zstd: smaller where features are sparse.")
]
ShardsOption = Annotated[int | None, typer.Option("--shards", help="Pin the shard count, a power of two.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what would be done; change nothing.")]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Try remembered failures again.")]
RehashOption = Annotated[bool, typer.Option("--rehash", help="Hash every image again.")]
AllowMixedOption = Annotated[
    bool, typer.Option("--allow-mixed", help="Add rows whose bits another machine or library made.")
]
BeamOptions = Annotated[
    list[str], typer.Argument(help="After --: options for Beam and its runner.", show_default=False)
]
BeamOption = Annotated[int | None, typer.Option("--beam", help="Captions kept in mind; 1 is greedy [1].")]
LengthPenaltyOption = Annotated[
    float | None, typer.Option("--length-penalty", help="Beams are compared per word to this power [1].")
]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", help="Draw words; less than 1 is bolder.")]
TopKOption = Annotated[int | None, typer.Option("--top-k", help="Draw from so many words.")]
TopPOption = Annotated[float | None, typer.Option("--top-p", help="Draw from words of so much probability.")]
NoRepeatOption = Annotated[int | None, typer.Option("--no-repeat", help="Say no run of so many words twice.")]
BanOption = Annotated[list[str], typer.Option("--ban", help="Word that is not said; repeats.")]
MaxWordsOption = Annotated[int | None, typer.Option("--max-words", help="Words at most [the longest learned from].")]
DecodeOption = Annotated[
    str, typer.Option("--decode", help="greedy, beam, or lexicon: words of the train split alone.")
]
WarmFromOption = Annotated[
    str | None, typer.Option("--warm-from", help="Run of the same model, whose weights are the first ones.")
]
Settings = dict[str, Any] | None
RunArgument = Annotated[str, typer.Argument(help="Directory of a training run, or STORE/models/NAME: its champion.")]
ModelOption = Annotated[str | None, typer.Option("--name", help="Model in the store [the only one].")]
StoreArgument = Annotated[str, typer.Argument(help="Directory of the store, or its address.")]


def _read_config(context: typer.Context, path: str | None) -> str | None:
    """Take a YAML file's entries as the command's defaults; refuse those that are no options."""
    if path is not None:
        with _one_line_errors(debug=False, as_json=False):
            rest = _take_defaults(context, path)
            if rest:
                names = ", ".join(sorted(p.name for p in context.command.params if p.name))
                raise UsageError(f"unknown key {next(iter(rest))!r}", where=str(path), mend=f"known: {names}")
    return path


def _read_settings(context: typer.Context, path: str | None) -> str | None:
    """Take a YAML file's entries as the command's defaults; the others are settings for the command to check."""
    if path is not None:
        with _one_line_errors(debug=False, as_json=False):
            context.meta[_SETTINGS] = _take_defaults(context, path)
    return path


def _take_defaults(context: typer.Context, path: str) -> dict[str, Any]:
    """Entries that name options become defaults; the others are returned."""
    # A file that names another is read no further.
    options = [option for option in context.command.params if option.name and option.name != "config"]
    by_name = {name.lstrip("-"): option for option in options for name in (*option.opts, option.name or "")}
    defaults: dict[str, Any] = {}
    rest = {}
    for key, value in read_settings(path).items():
        option = by_name.get(key)
        if option is None or not option.name:
            rest[key] = value
            continue
        if option.name in defaults:
            raise UsageError(f"{key} is set twice, with a dash and with an underscore", where=path)
        if isinstance(value, bool) and not getattr(option, "is_flag", False):
            mend = "YAML reads yes, no, on and off as true and false. Quote text."
            raise UsageError(f"{key}: expected a value, got {str(value).lower()}", where=path, mend=mend)
        defaults[option.name] = value
    context.default_map = defaults
    return rest


def _common_options(takes_settings: bool) -> list[inspect.Parameter]:
    """The options that every command has."""
    read, holds = (_read_settings, "options and settings") if takes_settings else (_read_config, "options")
    options = {
        "json": (bool, False, typer.Option("--json", help="Print the figures as JSON, on the last line.")),
        "quiet": (bool, False, typer.Option("--quiet", "-q", help="Errors only.")),
        "debug": (bool, False, typer.Option("--debug", help="Everything, with tracebacks.")),
        "log_file": (str | None, None, typer.Option("--log-file", help="Write the log there too.")),
        "config": (
            str | None,
            None,
            typer.Option("--config", help=f"YAML with {holds} of the command.", is_eager=True, callback=read),
        ),
    }
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
        for name, (kind, default, option) in options.items()
    ]


# === The table of commands ===


def command(
    group: typer.Typer, name: str, runs: str, show: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command whose options and help are those of the decorated function, which only declares them.

    Args:
        group: typer.Typer. The group it belongs to.
        name: str. What the command line calls it.
        runs: str. `module:function` that takes the arguments as keywords and does the work.
        show: str. `module:function` that prints the result for people.
    """

    def register(declared: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(declared, eval_str=True)

        @functools.wraps(declared)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            _refuse_empty(bound.arguments)
            _load("features.keras_backend:choose_backend")()
            return _validated(_load(runs), bound.arguments)

        takes_settings = SETTINGS in signature.parameters

        def run(
            context: typer.Context,
            json: bool,
            quiet: bool,
            debug: bool,
            log_file: str | None,
            config: str | None,
            **given: Any,
        ) -> None:
            if takes_settings and config:
                given[SETTINGS] = context.meta[_SETTINGS]
            with _one_line_errors(debug, json):
                _start_logging(quiet, debug, log_file)
                result = call(**given)
                if json:
                    print(jsonlib.dumps(result))
                elif not quiet:
                    (_load(show) if show else show_figures)(result)

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in signature.parameters.items()
            if name != SETTINGS
        ]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *own, *_common_options(takes_settings)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = declared.__doc__
        group.command(name)(run)
        return call

    return register


@command(app, "fetch", runs="pipelines.fetching:fetch_dataset", show="pipelines.fetching:print_fetched")
def fetch(
    dataset: Annotated[str, typer.Argument(help="coco2014, coco2017, flickr8k or conceptual.")],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Directory for the files.")],
    only: Annotated[list[str], typer.Option("--only", help="File to take, by its name; repeats.")] = [],  # noqa: B006
    mirror: Annotated[
        str | None, typer.Option("--mirror", help="Address below which the files lie instead, by their names.")
    ] = None,
) -> dict[str, Any]:
    """Fetch a dataset's published files: resumed after a break, checked, never half taken for whole."""


@command(prepare, "features", runs="pipelines.prepare_features:prepare_features")
def prepare_features(
    store: StoreOption,
    dataset: DatasetOption,
    images: Annotated[list[str], typer.Option("--images", help="Directory, zip or tar with images; repeats.")],
    annotations: AnnotationsOption = [],  # noqa: B006
    name: NameOption = None,
    extractor: Annotated[
        str, typer.Option(help="Network of keras.applications, such as vgg16; custom:FILE.keras; or pixels.")
    ] = "inception_v3",
    weights: Annotated[str | None, typer.Option(help="imagenet, random:SEED, or a weights file [imagenet].")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to keep, any [the last before pooling].")] = None,
    pooling: Annotated[str, typer.Option(help="none keeps places, avg averages them.")] = "none",
    height: Annotated[int | None, typer.Option(help="Input height in pixels [the network's own].", min=1)] = None,
    width: Annotated[int | None, typer.Option(help="Input width in pixels [the network's own].", min=1)] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="Scaling for custom: none (0…255), unit (0…1), tf, caffe or torch [none].")
    ] = None,
    resize: Annotated[
        str, typer.Option(help="pillow is antialiased, draft too, of JPEGs decoded smaller; tf is tf.image.resize.")
    ] = "pillow",
    fit: Annotated[str, typer.Option(help="stretch, or in proportion: crop the middle, pad with black.")] = "stretch",
    shorter_side: Annotated[
        int | None, typer.Option("--shorter-side", help="Shorter side before --fit crop [least that covers].", min=1)
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="Storage: float16, float32, bfloat16, int8 [float16]; pixels: uint8.")
    ] = None,
    format: FormatOption = "tfrecord",  # noqa: A002
    compression: CompressionOption = "none",
    batch_size: Annotated[str, typer.Option(help="Images a call of the network; auto or a number.")] = "auto",
    shards: ShardsOption = None,
    limit_images: LimitImagesOption = None,
    limit_captions: LimitCaptionsOption = None,
    seed: SeedOption = 0,
    split: SplitOption = "own",
    max_failures: MaxFailuresOption = None,
    plan: PlanOption = False,
    assume_images: Annotated[
        int | None, typer.Option(help="With --plan: what so many images like these would take.", min=1)
    ] = None,
    retry_failed: RetryFailedOption = False,
    rehash: RehashOption = False,
    max_image_pixels: Annotated[int | None, typer.Option(help="Refuse images of more pixels [178956970].")] = None,
    max_image_bytes: Annotated[int | None, typer.Option(help="Refuse images of more bytes [268435456].")] = None,
    allow_mixed: AllowMixedOption = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Download from private addresses too.")
    ] = False,
    resource_hint: Annotated[
        list[str],
        typer.Option("--resource-hint", help="What extraction asks of the engine, such as min_ram=16GB; repeats."),
    ] = [],  # noqa: B006
    beam_options: BeamOptions = [],  # noqa: B006
) -> dict[str, Any]:
    """Extract the features of the images that the store lacks."""


@command(prepare, "captions", runs="pipelines.prepare_captions:prepare_captions")
def prepare_captions(
    store: StoreOption,
    dataset: DatasetOption,
    annotations: AnnotationsOption = [],  # noqa: B006
    name: NameOption = None,
    vocab_size: Annotated[int | None, typer.Option(help="Ids at most, the 4 special ones too [5000].")] = None,
    min_count: Annotated[int | None, typer.Option(help="Rarer words are unknown [1].")] = None,
    vocab: Annotated[str | None, typer.Option(help="Reuse the vocabulary of this fingerprint.")] = None,
    standardize: Annotated[str, typer.Option(help="keras, alnum or punctuation.")] = "keras",
    max_length: Annotated[int, typer.Option(help="Tokens at most, start and end too; 0 for no bound.")] = 0,
    limit_images: LimitImagesOption = None,
    limit_captions: LimitCaptionsOption = None,
    seed: SeedOption = 0,
    split: SplitOption = "own",
    max_failures: MaxFailuresOption = None,
    plan: PlanOption = False,
    beam_options: BeamOptions = [],  # noqa: B006
) -> dict[str, Any]:
    """Tokenize captions, with a vocabulary learned on the train split."""


@command(prepare, "captcha", runs="pipelines.prepare_captcha:prepare_captcha")
def prepare_captcha(
    store: StoreOption,
    images: Annotated[list[str], typer.Option("--images", help="Directory or zip with a0.png, a1.png, …; repeats.")],
    labels: Annotated[str, typer.Option("--labels", help="Lines `a0 thus`, or the zip with spec_train_val.txt.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the dataset in the store [captcha].")] = None,
    splits: Annotated[
        str | None, typer.Option("--splits", help="Images of train, val and test, in order [5/7, 1/7, 1/7].")
    ] = None,
    height: Annotated[int, typer.Option(help="Height that is kept, in pixels.", min=1)] = 80,
    width: Annotated[int, typer.Option(help="Width that is kept, in pixels.", min=1)] = 160,
    format: FormatOption = "tfrecord",  # noqa: A002
    compression: CompressionOption = "none",
    shards: ShardsOption = None,
    max_failures: MaxFailuresOption = None,
    plan: PlanOption = False,
    retry_failed: RetryFailedOption = False,
    rehash: RehashOption = False,
    allow_mixed: AllowMixedOption = False,
    beam_options: BeamOptions = [],  # noqa: B006
) -> dict[str, Any]:
    """Keep the pixels of CAPTCHAs at one size, with their words."""


@command(train, "captioner", runs="trainer.training:train_captioner")
def train_captioner(
    store: StoreOption,
    run_dir: Annotated[str, typer.Option("--run-dir", help="Directory of the run; an unfinished one goes on.")],
    model: Annotated[str, typer.Option("--model", help="Captioner.")] = "soft_attention",
    dataset: Annotated[list[str], typer.Option("--dataset", help="Dataset in the store [the only one]; repeats.")] = [],  # noqa: B006
    features: Annotated[
        str | None, typer.Option("--features", help="Feature table's fingerprint [the only one].")
    ] = None,
    captions: Annotated[str | None, typer.Option("--captions", help="Text table's fingerprint [the only one].")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights, order and dropout [0].")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the train split [20].")] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(help="Steps an epoch, drawn with replacement.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints, besides each epoch's.")
    ] = None,
    captions_per_image: Annotated[str | None, typer.Option(help="all in a pass, or one drawn at random.")] = None,
    cell: Annotated[str | None, typer.Option(help="rnn, lstm or gru, for models with a recurrence.")] = None,
    warm_from: WarmFromOption = None,
    options: Settings = None,
) -> dict[str, Any]:
    """Train a captioner; --config may also hold the model's and the training's hyper-parameters."""


@command(train, "captcha", runs="trainer.training_words:train_captcha")
def train_captcha(
    store: StoreOption,
    run_dir: Annotated[str, typer.Option("--run-dir", help="Directory of the run; an unfinished one goes on.")],
    profile: Annotated[str, typer.Option("--profile", help="Which defaults: default, or quick.")] = "default",
    dataset: Annotated[list[str], typer.Option("--dataset", help="Dataset in the store [the only one]; repeats.")] = [],  # noqa: B006
    features: Annotated[
        str | None, typer.Option("--features", help="Table of pixels' fingerprint [the only one].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of weights, order, dropout, augmentation [0].")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the train split [the profile's].")] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(help="Steps an epoch, drawn with replacement.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints, besides each epoch's.")
    ] = None,
    warm_from: WarmFromOption = None,
    options: Settings = None,
) -> dict[str, Any]:
    """Train a recognizer of CAPTCHA words; --config may also hold its and the training's hyper-parameters."""


@command(app, "config", runs="trainer.defaults:model_defaults", show="trainer.defaults:print_defaults")
def config(
    model: Annotated[str, typer.Argument(help="Captioner, or recognizer.")],
    profile: Annotated[str | None, typer.Option("--profile", help="Of the recognizer: default or quick.")] = None,
) -> dict[str, Any]:
    """A model's defaults as YAML, for --config of `capt train`."""


@command(app, "caption", runs="trainer.captioning:caption", show="trainer.captioning:print_captions")
def caption(
    run: RunArgument,
    images: Annotated[list[str], typer.Argument(help="Image, folder, zip, tar or http(s) address; repeats.")],
    attention: Annotated[str | None, typer.Option(help="Draw where the model looked, one panel a word.")] = None,
    beam: BeamOption = None,
    length_penalty: LengthPenaltyOption = None,
    n_best: Annotated[int | None, typer.Option(help="Captions of each image, best first [1].")] = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = 0,
    no_repeat: NoRepeatOption = None,
    ban: BanOption = [],  # noqa: B006
    max_words: MaxWordsOption = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Ask addresses outside the public internet too.")
    ] = False,
) -> dict[str, Any]:
    """Caption images with a trained run."""


@command(app, "evaluate", runs="trainer.evaluation:evaluate", show="trainer.evaluation:print_evaluation")
def evaluate(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Directory of a training run; repeats.")],
    split: Annotated[str, typer.Option("--split", help="Split to score; val where there is no test.")] = "test",
    store: Annotated[
        str | None, typer.Option("--store", help="Directory of the store [where each run was trained from].")
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", help="Best and worst captions, or worst words, on the page; 0: none.", min=0)
    ] = 6,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Words that the store does not know: lines `a0 thus`.")
    ] = None,
    beam: BeamOption = None,
    length_penalty: LengthPenaltyOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = 0,
    no_repeat: NoRepeatOption = None,
    ban: BanOption = [],  # noqa: B006
    max_words: MaxWordsOption = None,
) -> dict[str, Any]:
    """Score runs on held-out images: BLEU, METEOR, ROUGE-L, CIDEr-D of captions; words read right of CAPTCHAs."""


@command(predict, "captions", runs="trainer.predicting:predict_captions")
def predict_captions(
    run: RunArgument,
    images: Annotated[list[str], typer.Option("--images", help="Folder, zip or tar; repeats.")],
    out: Annotated[str, typer.Option("--out", help="File for the captions, a JSON line an image.")],
    beam: BeamOption = None,
    length_penalty: LengthPenaltyOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = 0,
    no_repeat: NoRepeatOption = None,
    ban: BanOption = [],  # noqa: B006
    max_words: MaxWordsOption = None,
) -> dict[str, Any]:
    """Caption whole folders into a file; a killed run goes on where it stopped."""


@command(predict, "captcha", runs="trainer.predicting_words:predict_captcha")
def predict_captcha(
    run: RunArgument,
    images: Annotated[list[str], typer.Option("--images", help="Folder, zip or tar with a0.png, a1.png, …; repeats.")],
    ids: Annotated[str, typer.Option("--ids", help="FROM:TO, TO not taken, such as 120000:140000.")],
    out: Annotated[str, typer.Option("--out", help="File for the words, a line `a120000 fail` an id.")],
    decode: DecodeOption = "greedy",
    on_error: Annotated[
        str | None, typer.Option("--on-error", help="Word of an image that cannot be read [then no file is written].")
    ] = None,
) -> dict[str, Any]:
    """Read the words of a range of ids into a file; a killed run goes on where it stopped."""


@command(app, "read", runs="trainer.reading:read", show="trainer.reading:print_readings")
def read(
    run: RunArgument,
    images: Annotated[list[str], typer.Argument(help="Image, folder, zip, tar or http(s) address; repeats.")],
    decode: DecodeOption = "greedy",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Ask addresses outside the public internet too.")
    ] = False,
) -> dict[str, Any]:
    """Read the word in each CAPTCHA with a trained run."""


@command(app, "export", runs="trainer.export:export_run")
def export(
    run: RunArgument,
    out: Annotated[str, typer.Argument(help="Directory to make.")],
    beam: BeamOption = None,
    length_penalty: LengthPenaltyOption = None,
    no_repeat: NoRepeatOption = None,
    ban: BanOption = [],  # noqa: B006
    max_words: MaxWordsOption = None,
) -> dict[str, Any]:
    """Write a run as a SavedModel from encoded images to captions or words, for TensorFlow Serving and the like."""


@command(synth, "scenes", runs="features.scenes:make_scenes")
def synth_scenes(
    out: Annotated[str, typer.Argument(help="Directory to make.")],
    count: Annotated[int, typer.Option("--count", help="Scenes.", min=5)] = 400,
    seed: SeedOption = 0,
    objects: Annotated[str, typer.Option("--objects", help="How many objects a scene has: some of 1,2,3.")] = "1,2,3",
    held_out_combinations: Annotated[
        float, typer.Option("--held-out", help="Share of colour, shape and relation that training lacks, to 0.25.")
    ] = 0.0,
) -> dict[str, Any]:
    """Make synthetic scenes with captions, in COCO's layout."""


@command(synth, "captcha", runs="features.captchas:make_captchas")
def synth_captcha(
    out: Annotated[str, typer.Argument(help="Directory to make.")],
    count: Annotated[int, typer.Option("--count", help="CAPTCHAs.", min=1)],
    labelled: Annotated[
        int | None, typer.Option("--labelled", help="Words of the first so many are told [6/7].", min=0)
    ] = None,
    seed: SeedOption = 0,
    fonts: Annotated[
        str | None, typer.Option("--fonts", help="Directory with .ttf or .otf files [four of Matplotlib's].")
    ] = None,
    words: Annotated[str | None, typer.Option("--words", help="File of words, one a line [2,500 of capt's].")] = None,
) -> dict[str, Any]:
    """Make CAPTCHAs like the published ones, with their words."""


@command(app, "retrain", runs="workflows.retraining:retrain", show="workflows.retraining:print_retrained")
def retrain(
    path: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, see examples/retrain.yaml.")],
    plan: PlanOption = False,
) -> dict[str, Any]:
    """Prepare what is new, train where the rules say so, promote what is better; safe to run from cron."""


@command(models, "ls", runs="features.store.models:list_models", show="features.store.models:print_models")
def models_ls(store: StoreArgument) -> dict[str, Any]:
    """List models and their champions."""


@command(models, "show", runs="features.store.models:show_model", show="features.store.models:print_model")
def models_show(store: StoreArgument, name: ModelOption = None) -> dict[str, Any]:
    """Every decision about a model, and why."""


@command(models, "promote", runs="features.store.models:promote_model")
def models_promote(
    store: StoreArgument,
    run: Annotated[str, typer.Argument(help="Run that a retraining finished, or how its name begins.")],
    name: ModelOption = None,
) -> dict[str, Any]:
    """Make a run the champion, whatever was decided of it."""


@command(models, "rollback", runs="features.store.models:rollback_model")
def models_rollback(store: StoreArgument, name: ModelOption = None) -> dict[str, Any]:
    """Make the champion before the present one the champion again."""


@command(app, "demo", runs="workflows.demo:demo", show="workflows.demo:show_demo")
def demo(
    out: Annotated[str, typer.Option("--out", help="Directory to leave everything in.")] = "demo",
) -> dict[str, Any]:
    """The whole chain on data it makes; ends with captions, plots and a report."""


@command(store_app, "ls", runs="features.store.inventory:list_store", show="features.store.inventory_tables:print_list")
def store_ls(store: StoreArgument) -> dict[str, Any]:
    """List tables and datasets."""


@command(
    store_app,
    "stats",
    runs="features.store.inventory:store_stats",
    show="features.store.inventory_tables:print_stats",
)
def store_stats(store: StoreArgument) -> dict[str, Any]:
    """Counts, sizes, unknown words, failures with examples."""


@command(store_app, "show", runs="workflows.show:show_examples", show="workflows.show:print_examples")
def store_show(
    store: StoreArgument,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Dataset in the store [the only one].")] = None,
    captions: Annotated[str | None, typer.Option("--captions", help="Text table's fingerprint [the only one].")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write a page of examples there.")] = None,
    count: Annotated[int, typer.Option("--count", help="Examples.", min=1)] = 24,
    split: Annotated[str | None, typer.Option("--split", help="Of this split only.")] = None,
    seed: SeedOption = 0,
) -> dict[str, Any]:
    """Show training examples: image, captions, split, tokens."""


@command(store_app, "verify", runs="features.store.verify:verify_store")
def store_verify(store: StoreArgument) -> dict[str, Any]:
    """Hash everything again; name damaged, missing and foreign files."""


@command(store_app, "compact", runs="features.store.compact:compact_store")
def store_compact(
    store: StoreArgument,
    shards: ShardsOption = None,
    table: Annotated[str | None, typer.Option("--table", help="Feature table's fingerprint [all].")] = None,
) -> dict[str, Any]:
    """Merge the commits of feature tables, keeping the rows that a dataset names; extracts nothing."""


@command(store_app, "drop", runs="features.store.removal:drop_dataset")
def store_drop(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="Dataset to take out.")],
) -> dict[str, Any]:
    """Take a dataset out; compact and gc then free what it alone used."""


@command(store_app, "gc", runs="features.store.garbage:collect_garbage")
def store_gc(
    store: StoreArgument,
    older_than: Annotated[str, typer.Option("--older-than", help="Unnamed for so long: 24h, 7d, 0s.")] = "24h",
    plan: Annotated[bool, typer.Option("--plan", help="Say what would go; delete nothing.")] = False,
) -> dict[str, Any]:
    """Delete files that no commit has named for a while."""


@command(
    experiment,
    "run",
    runs="workflows.experiments.running:run_experiment",
    show="workflows.experiments.running:print_experiment",
)
def experiment_run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML that says store, tables, models and seeds.")],
    plan: PlanOption = False,
) -> dict[str, Any]:
    """Train and score every combination that a file names; what is done already is not done again."""


@command(
    experiment,
    "report",
    runs="workflows.experiments.reporting:report_experiment",
    show="workflows.experiments.reporting:print_report",
)
def experiment_report(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Directory of an experiment, its `out`.")],
    out: Annotated[str | None, typer.Option("--out", help="File to write [DIR/report.html].")] = None,
    images: Annotated[int, typer.Option("--images", help="Images shown side by side.", min=0)] = 12,
) -> dict[str, Any]:
    """Write one page of scores, curves, costs, captions side by side, and what differs between any two trials."""


# === For notebooks ===


def open_store(path: str | Path) -> Store:
    """The store in a directory or at an address; see `features.store`."""
    from features import store

    return store.open_store(path)


def load_run(path: str | Path) -> CaptionerRun | RecognizerRun:
    """A training run, ready to caption or to read: `load_run(R).caption(image)`, `load_run(R).read(image)`."""
    from trainer.runs import run as runs

    return runs.load_run(path)


# === Running a command ===


def main() -> None:
    """Run the command line."""
    app()


def show_figures(result: dict[str, Any]) -> None:
    """Print a command's figures for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for key, value in result.items():
        if value or isinstance(value, (int, float)):
            is_count = isinstance(value, int) and not isinstance(value, bool)
            table.add_row(key, Text(f"{value:,}" if is_count else printable(value)))
    Console(stderr=True).print(table)


def _load(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def _refuse_empty(arguments: dict[str, Any]) -> None:
    """Refuse empty text, such as a shell's variable that is not set, which would count as an option left out."""
    for name, value in arguments.items():
        if value == "" or (isinstance(value, (list, tuple)) and "" in value):
            raise UsageError("it is empty", where="--" + name.replace("_", "-"), mend="leave it out, or give a value")


def _validated(target: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return target(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
        # An option of two types, such as `auto` or a number, has an error for each.
        wanted = [
            one["msg"].removeprefix("Input should be ") for one in error.errors() if one["loc"][:1] == first["loc"][:1]
        ]
        raise UsageError(
            f"expected {' or '.join(dict.fromkeys(wanted))}, got {first['input']!r}", where=option
        ) from error


@contextlib.contextmanager
def _one_line_errors(debug: bool, as_json: bool) -> Iterator[None]:
    try:
        yield
    except CaptError as error:
        if as_json and error.figures is not None:
            print(jsonlib.dumps(error.figures))
        _complain(str(error), debug)
        raise typer.Exit(error.status) from None
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on where it stopped", debug)
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_ALLOWED:
            what = f"{error.filename}: {error.strerror} (check whose it is, or name another place)"
        else:
            what = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]} (--debug shows where)"
        _complain(what, debug)
        raise typer.Exit(ExitStatus.FAILED) from None


def _complain(line: str, debug: bool) -> None:
    if debug:
        print(printable(traceback.format_exc()), file=sys.stderr, end="")
    print(printable(f"capt: {line}"), file=sys.stderr)
    logging.getLogger("capt").debug(line, exc_info=True)


class _PrintableFormatter(logging.Formatter):
    """Formats messages and tracebacks without characters that could steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _start_logging(quiet: bool, debug: bool, log_file: str | None) -> None:
    logging.getLogger().addHandler(logging.NullHandler())
    log = logging.getLogger("capt")
    log.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file:
        handlers.append(_log_file(log_file))
    for handler in handlers:
        handler.setFormatter(_PrintableFormatter("%(message)s"))
        log.addHandler(handler)
    if not debug:
        _silence_libraries()


def _log_file(path: str) -> logging.Handler:
    where = f"--log-file {path}"
    if "://" in path:
        raise UsageError("an address, and a path on this machine is needed", where=where, mend="Name a local path.")
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the log cannot be written there: {error.strerror}", where=where) from None


def _silence_libraries() -> None:
    """Keep the libraries' chatter from standard error: what native code writes there goes nowhere."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    own = os.dup(sys.stderr.fileno())
    sys.stderr = os.fdopen(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    for handler in logging.getLogger("capt").handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)


if __name__ == "__main__":
    main()
