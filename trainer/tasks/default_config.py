"""Implements `capt config`: the hyperparameters of a model as YAML, which `--config` reads, or its layers."""

from typing import Any

import yaml

from features.io.locations import local_path
from schemas.errors import UsageError
from schemas.options.prepare import PrepareCaptcha
from schemas.options.training import Config
from schemas.table_config import SPECIAL_TOKENS
from schemas.terminal.console import Printer
from trainer.config import Hyperparameters
from trainer.models.configs import RecognizerConfig
from trainer.models.model_specs import MODELS, RECOGNIZER_INPUT, ModelSpec, model_spec
from trainer.tasks.captcha import CaptchaTask
from trainer.tasks.captioning import CaptioningTask

_VOCAB_SIZE = 5000
_SPATIAL, _POOLED = (64, 2048), (2048,)  # of InceptionV3
_FOR_SUMMARY = ("feature_shape", "vocab_size", "output")


def model_defaults(options: Config) -> dict[str, Any]:
    """Returns the hyperparameters of a model, or with `--summary` its layers.

    Returns:
        The hyperparameters by name; with `--summary` `model`, `feature_shape`, `vocab_size` (captioners), `layers`
        (`name`, `kind`, `output_shape` for one image and one token, `weights`, `trainable_weights` each), `weights`,
        `trainable_weights`, and `figure` (the path of `--output`).

    Raises:
        UsageError: An option is invalid, or not valid for the model.
    """
    is_captioner = options.model in MODELS
    if is_captioner and options.profile:
        hint = "Omit the option. Only the recognizer has profiles."
        raise UsageError(f"{options.model} has no profiles", location="--profile", hint=hint)
    task, choice = (CaptioningTask(), options.model) if is_captioner else (CaptchaTask(), options.profile)
    hyperparameters = task.parse(choice, options.settings())
    if options.summary:
        return _summarize(options, hyperparameters)
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
    printer.line(f"Sizes: features {shape} (--feature-shape){vocabulary}. Outputs are for one image and one token.")
    if result.get("figure"):
        printer.line(f"Figure: {result['figure']}")


def _summarize(options: Config, hyperparameters: Hyperparameters[Any]) -> dict[str, Any]:
    spec = model_spec(options.model) if options.model in MODELS else None
    shape = _parse_shape(options.feature_shape) or _default_shape(spec)
    if not (spec or RECOGNIZER_INPUT).fits(shape):
        example = ",".join(map(str, _default_shape(spec)))
        message = f"{hyperparameters.model} does not read features of shape {list(shape)}"
        raise UsageError(message, location="--feature-shape", hint=f"Write {example}, for example.")
    vocab_size = _check_vocab_size(options, spec)
    output = local_path(options.output, "--output") if options.output else None
    # Importing Keras takes seconds, so all checks without Keras are first.
    from trainer.models.layer_graph import trace_layers
    from trainer.reports.layer_figure import layer_figure
    from trainer.reports.plots import save_figure

    graph = trace_layers(_build(spec, hyperparameters, vocab_size, shape), shape)
    if output:
        save_figure(layer_figure(graph, hyperparameters.model), output)
    return {
        "model": hyperparameters.model,
        "feature_shape": list(shape),
        **({"vocab_size": vocab_size} if spec else {}),
        "layers": [vars(layer) for layer in graph.layers],
        "weights": sum(layer.weights for layer in graph.layers),
        "trainable_weights": sum(layer.trainable_weights for layer in graph.layers),
        **({"figure": str(output)} if output else {}),
    }


def _build(
    spec: ModelSpec | None, hyperparameters: Hyperparameters[Any], vocab_size: int, shape: tuple[int, ...]
) -> Any:
    if spec:
        return spec.build(hyperparameters.architecture, vocab_size, shape)
    from trainer.models.recognizer import Recognizer

    assert isinstance(hyperparameters.architecture, RecognizerConfig)
    model = Recognizer(hyperparameters.architecture)
    model.build((None, *shape))
    return model


def _default_shape(spec: ModelSpec | None) -> tuple[int, ...]:
    if spec:
        return _SPATIAL if spec.spatial else _POOLED
    height, width = (PrepareCaptcha.model_fields[name].default for name in ("height", "width"))
    return height, width, 3


def _parse_shape(text: str | None) -> tuple[int, ...]:
    sizes = text.split(",") if text else []
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        hint = "Write 64,2048 for 64 locations with 2,048 channels, or 2048 for pooled features."
        raise UsageError(f"{text!r} is not a shape", location="--feature-shape", hint=hint)
    return tuple(map(int, sizes))


def _check_vocab_size(options: Config, spec: ModelSpec | None) -> int:
    size = options.vocab_size
    if size is not None and spec is None:
        hint = "Omit the option."
        raise UsageError("the recognizer has no vocabulary", location="--vocab-size", hint=hint)
    if size is not None and size < len(SPECIAL_TOKENS):
        message = f"expected at least {len(SPECIAL_TOKENS)}, the number of special tokens, got {size}"
        raise UsageError(message, location="--vocab-size")
    return size or _VOCAB_SIZE
