"""Implements `capt config`: the hyperparameters of a model as YAML, which `--config` reads, or its layers."""

from string import ascii_lowercase
from typing import Any

import yaml

from schemas.defaults import PUBLISHED_CAPTCHA_SIZE
from schemas.errors import UsageError
from schemas.options.training import Config
from schemas.table_config import SPECIAL_TOKENS
from schemas.terminal.console import Printer
from trainer.config import Hyperparameters
from trainer.models.custom_models import is_custom, read_custom_model
from trainer.models.model_specs import (
    MODELS,
    RECOGNIZER_INPUT,
    ModelSpec,
    RecognizerSpec,
    model_spec,
    recognizer_spec,
)
from trainer.profiles import PROFILES
from trainer.tasks.captcha import CaptchaTask
from trainer.tasks.captioning import CaptioningTask

_VOCAB_SIZE = 5000
_SPATIAL, _POOLED = (64, 2048), (2048,)  # of InceptionV3
# The published CAPTCHAs, for hyperparameters that otherwise follow from the data.
_LABELS = {"charset": ascii_lowercase, "max_label_length": 5}
_TRAIN_IMAGES = 100_000
_FROM_DATA = (*_LABELS, "filters")
_FOR_SUMMARY = ("feature_shape", "vocab_size", "output")


def model_defaults(options: Config) -> dict[str, Any]:
    """Returns the hyperparameters of a model, or with `--summary` its layers.

    Returns:
        The hyperparameters by name; with `--summary` `model`, `feature_shape`, `vocab_size` (captioners), `charset`,
        `max_label_length` and `filters` (recognizers; by default those of the published dataset), `layers` (`name`,
        `kind`, `output_shape` for one image and one token, `weights`, `trainable_weights` each), `weights`,
        `trainable_weights`, and `figure` (the path of `--output`).

    Raises:
        UsageError: An option is invalid, or not valid for the model.
    """
    model, settings = options.model, options.settings()
    is_own = is_custom(model)
    if read_custom_model(model).is_captioner if is_own else model in MODELS:
        if options.profile:
            hint = "Omit the option. Only recognizers have profiles."
            raise UsageError(f"{model} has no profiles", location="--profile", hint=hint)
        hyperparameters: Hyperparameters[Any] = CaptioningTask().parse(model, settings)
        spec: ModelSpec | RecognizerSpec = model_spec(hyperparameters.model, hyperparameters.source)
    else:
        hyperparameters = CaptchaTask().parse(options.profile, {**settings, **({"model": model} if is_own else {})})
        spec = recognizer_spec(hyperparameters.model, hyperparameters.source)
    if options.summary:
        return _summarize(options, hyperparameters, spec)
    for name in _FOR_SUMMARY:
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError("the option requires --summary", location=option, hint="Add --summary, or omit it.")
    return hyperparameters.to_dict(resolve=False)


def print_defaults(result: dict[str, Any]) -> None:
    """Prints the result of `model_defaults`: YAML, or a table of the layers."""
    if "layers" not in result:
        print(yaml.safe_dump(result, sort_keys=False), end="")
        return
    from trainer.reports.layer_figure import format_shape

    rows = [
        (one["name"], one["kind"], format_shape(one["output_shape"]), one["weights"] or None)
        for one in result["layers"]
    ]
    printer, frozen = Printer(), result["weights"] - result["trainable_weights"]
    title = f"{result['model']}: {result['weights']:,} weights, {frozen:,} of them not trainable"
    printer.table(title, ("layer", "class", "output"), ("weights",), rows)
    shape = "×".join(map(str, result["feature_shape"]))
    vocabulary = f", vocabulary {result['vocab_size']:,} (--vocab-size)" if "vocab_size" in result else ""
    if "charset" in result:
        characters, length = len(result["charset"]), result["max_label_length"]
        filters = ", ".join(map(str, result["filters"]))
        vocabulary = (
            f", {characters:,} characters (charset), labels of up to {length} (max_label_length), [{filters}] (filters)"
        )
    printer.line(f"Sizes: features {shape} (--feature-shape){vocabulary}. Outputs are for one image and one token.")
    if result.get("figure"):
        printer.line(f"Figure: {result['figure']}")


def _summarize(
    options: Config, hyperparameters: Hyperparameters[Any], spec: ModelSpec | RecognizerSpec
) -> dict[str, Any]:
    is_captioner = isinstance(spec, ModelSpec)
    shape = _parse_shape(options.feature_shape) or _default_shape(spec)
    if not (spec if isinstance(spec, ModelSpec) else RECOGNIZER_INPUT).fits(shape):
        example = ",".join(map(str, _default_shape(spec)))
        message = f"{spec.name} does not read features of shape {list(shape)}"
        raise UsageError(message, location="--feature-shape", hint=f"Write {example}, for example.")
    vocab_size = _check_vocab_size(options.vocab_size, is_captioner)
    # Importing Keras takes seconds, so all checks without Keras are first.
    from trainer.figures.figure_files import check_figure_path, save_figure

    output = check_figure_path(options.output, "--output") if options.output else None
    from trainer.models.layer_graph import trace_layers
    from trainer.reports.layer_figure import layer_figure

    config: Any = hyperparameters.architecture
    if not is_captioner:
        filters = PROFILES[hyperparameters.choice["profile"]].choose_filters(_TRAIN_IMAGES)
        published = {**_LABELS, "filters": filters}
        sizes = {name: value for name, value in published.items() if getattr(config, name) is None}
        config = config.model_copy(update=sizes)
    model = spec.build(config, vocab_size, shape) if isinstance(spec, ModelSpec) else spec.build(config, shape)
    graph = trace_layers(model, shape)
    if output:
        save_figure(layer_figure(graph, spec.name), output)
    return {
        "model": spec.name,
        "feature_shape": list(shape),
        **({"vocab_size": vocab_size} if is_captioner else {name: getattr(config, name) for name in _FROM_DATA}),
        "layers": [vars(layer) for layer in graph.layers],
        "weights": sum(layer.weights for layer in graph.layers),
        "trainable_weights": sum(layer.trainable_weights for layer in graph.layers),
        **({"figure": str(output)} if output else {}),
    }


def _default_shape(spec: ModelSpec | RecognizerSpec) -> tuple[int, ...]:
    if isinstance(spec, ModelSpec):
        return _SPATIAL if spec.spatial else _POOLED
    return *PUBLISHED_CAPTCHA_SIZE, 3


def _parse_shape(text: str | None) -> tuple[int, ...]:
    sizes = text.split(",") if text else []
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        hint = "Write 64,2048 for 64 locations with 2,048 channels, or 2048 for pooled features."
        raise UsageError(f"{text!r} is not a shape", location="--feature-shape", hint=hint)
    return tuple(map(int, sizes))


def _check_vocab_size(size: int | None, is_captioner: bool) -> int:
    if size is not None and not is_captioner:
        raise UsageError("a recognizer has no vocabulary", location="--vocab-size", hint="Omit the option.")
    if size is not None and size < len(SPECIAL_TOKENS):
        message = f"expected at least {len(SPECIAL_TOKENS)}, the number of special tokens, got {size}"
        raise UsageError(message, location="--vocab-size")
    return size or _VOCAB_SIZE
