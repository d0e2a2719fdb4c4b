"""Implements the extractors `keras_hub:PRESET`: the image backbones of KerasHub, such as CLIP, SigLIP and DINOv2.

    preset → backbone, or its vision encoder → patches, pooled, output or a layer
           → image converter → Rescaling, input size and resize mode

A preset is a directory that `save_to_preset` wrote, or a name that KerasHub downloads. It is loaded in safe mode, and
may name only classes of Keras and KerasHub.
"""

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from features.extractors.extractor import ExtractorConfig, check_unchanged, resolve_dtype
from features.extractors.output_layers import (
    OUTPUT,
    ModelFunction,
    build_in_thread,
    build_model_function,
    describe_unknown_layer,
    summarize_error,
    truncate_model,
)
from features.extractors.registered_layers import KERAS_HUB as NAME
from features.extractors.registered_layers import check_keras_hub, register_layers
from features.extractors.rescaling import Rescaling
from features.io.atomic_files import hash_file
from schemas.choices import ResizeMode
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig, compute_digest

PREFIX = f"{NAME}:"
PATCHES = "patches"
POOLED = "pooled"

_SCHEMES = ("kaggle://", "hf://")
_CONFIG, _CONVERTER = "config.json", "image_converter.json"
_WEIGHTS, _WEIGHTS_INDEX = "model.weights.h5", "model.weights.json"  # in one file, or in several
_HINT = "Use a directory that save_to_preset of an image backbone and of its image converter wrote."


@dataclass(frozen=True)
class ImageConverter:
    """What the image converter of a preset does.

    Args:
        rescaling: Scale and offset of the pixels.
        size: Height and width to which it resizes, in pixels; None if it does not resize.
        resize_mode: Aspect ratio.
    """

    rescaling: Rescaling
    size: tuple[int, int] | None
    resize_mode: ResizeMode


class KerasHubExtractor:
    """The extractor `keras_hub:PRESET`."""

    def __init__(self, options: ExtractorOptions) -> None:
        check_keras_hub()
        self._options = options
        self._name = options.extractor.removeprefix(PREFIX)
        self._is_directory = Path(self._name).is_dir()
        if not self._is_directory and not self._name.startswith(_SCHEMES) and not self._name.isidentifier():
            raise UsageError("the directory of the preset does not exist", location=options.extractor, hint=_HINT)
        own = {
            "--weights": (options.weights is not None, "weights"),
            "--preprocess": (options.preprocess is not None, "preprocessing"),
        }
        for option, (is_given, what) in own.items():
            if is_given:
                raise UsageError(f"a preset has its own {what}", location=option, hint="Omit the option.")
        resolve_dtype(options, pixels=False)

    def resolve_config(self) -> ExtractorConfig:
        """Returns the settings for the table config."""
        weights = f"sha256:{_hash_preset(self._directory, self._name)}"
        height, width = self._size
        layer = self._options.layer or PATCHES
        preprocess = self._converter.rescaling.load_preprocessing()
        build_model_function(self._build_model(layer), preprocess, self._options.pooling, height, width)
        self._check_unchanged(weights)
        return ExtractorConfig(
            extractor=NAME,
            weights=weights,
            layer=layer,
            height=height,
            width=width,
            dtype=resolve_dtype(self._options, pixels=False),
            preprocess=str(self._converter.rescaling),
            fit=self._converter.resize_mode,
        )

    def build_function(self, table_config: FeatureTableConfig) -> ModelFunction:
        """Builds the encoder up to the table config's layer, after the rescaling of the image converter."""
        preprocess = self._converter.rescaling.load_preprocessing()
        model = self._build_model(table_config.layer)
        self._check_unchanged(table_config.weights)
        return build_model_function(model, preprocess, table_config.pooling, table_config.height, table_config.width)

    def _build_model(self, layer: str) -> Any:
        """Returns the `keras.Model` from pixels [N, height, width, 3] to a layer's output."""
        return build_in_thread(lambda: select_output(_copy_in_float32(self._encoder, self._name), layer, *self._size))

    def _check_unchanged(self, weights: str) -> None:
        check_unchanged(weights, f"sha256:{_hash_preset(self._directory, self._name)}", self._name)

    @cached_property
    def _directory(self) -> Path:
        """The directory of the preset's files; KerasHub downloads them there."""
        return Path(self._name).absolute() if self._is_directory else _download(self._name)

    @cached_property
    def _converter(self) -> ImageConverter:
        return _load_converter(self._directory, self._name)

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        fixed = self._own_encoder.inputs[0].shape[1:3]
        default = self._converter.size or (None, None) if None in fixed else fixed
        height, width = self._options.height or default[0], self._options.width or default[1]
        if height is None or width is None:
            message = "the preset does not fix the input size"
            raise UsageError(message, location=self._name, hint="Add --height N --width N.")
        return height, width

    @cached_property
    def _own_encoder(self) -> Any:
        """The encoder for the preset's own input size."""
        return _load_encoder(self._directory, self._name)

    @cached_property
    def _encoder(self) -> Any:
        fixed = tuple(self._own_encoder.inputs[0].shape[1:3])
        if None in fixed or fixed == self._size:
            return self._own_encoder
        problem = ""
        try:
            encoder = _load_encoder(self._directory, self._name, image_shape=(*self._size, 3))
            if tuple(encoder.inputs[0].shape[1:3]) == self._size:  # Backbones that do not know the setting ignore it.
                return encoder
        except CaptError as error:
            problem = f": {error.message}"
        message = f"the preset does not support {self._size[0]}×{self._size[1]}{problem}"
        raise UsageError(message, location="--height, --width", hint="Omit the options.")


# === Output layers ===


def select_output(encoder: Any, layer: str, height: int, width: int) -> Any:
    """Returns the `keras.Model` from pixels [N, height, width, 3] to `patches`, `pooled`, `output` or a layer.

    `patches` is the last spatial output. Class, distillation and register tokens, which precede the patches, are left
    out: [N, tokens, channels] becomes [N, patches, channels]. `pooled` is the model's own vector, such as that of
    SigLIP's attention pooling; else the class token; else the mean over the locations.

    Raises:
        UsageError: The layer does not exist, or the model has no spatial output.
    """
    if layer not in (PATCHES, POOLED):
        names = [one.name for one in encoder.layers]
        if layer not in (OUTPUT, *names):
            raise describe_unknown_layer(layer, [*names, PATCHES, POOLED, OUTPUT], type(encoder).__name__)
        model = _nest_if_needed(encoder) if layer == OUTPUT else encoder
        return _Tokens(truncate_model(model, layer, type(encoder).__name__), encoder, height, width).whole
    if layer == POOLED and len(encoder.outputs[0].shape) == 2:
        return truncate_model(encoder, OUTPUT, type(encoder).__name__)
    tokens = _Tokens(_find_spatial_model(encoder), encoder, height, width)
    return tokens.patches if layer == PATCHES else tokens.pooled


class _Tokens:
    """Parts of the output of a model: a feature map, or tokens, of which the last ones are the patches."""

    def __init__(self, model: Any, encoder: Any, height: int, width: int) -> None:
        self._model = model
        # KerasHub states another number of tokens for SigLIP than it computes.
        self._shape = tuple(model(np.zeros((1, height, width, 3), np.float32), training=False).shape[1:])
        patch = getattr(encoder, "patch_size", None)
        rows, columns = (patch, patch) if isinstance(patch, int) else patch or (1, 1)
        patches = (height // rows) * (width // columns)
        self._extra = max(0, self._shape[0] - patches) if len(self._shape) == 2 and patch else 0

    @property
    def whole(self) -> Any:
        return self._slice(0, self._shape[0]) if len(self._shape) == 2 else self._model

    @property
    def patches(self) -> Any:
        return self._slice(self._extra, self._shape[0] - self._extra) if len(self._shape) == 2 else self._model

    @property
    def pooled(self) -> Any:
        from features.runtime.keras_settings import keras

        if len(self._shape) == 3:
            layer = keras.layers.GlobalAveragePooling2D(name=POOLED)
            return keras.Model(self._model.inputs[0], layer(self._model.outputs[0]))
        tokens = self._slice(0, 1) if self._extra else self.whole
        layer = keras.layers.GlobalAveragePooling1D(name=POOLED)  # of one class token, it is that token
        return keras.Model(tokens.inputs[0], layer(tokens.outputs[0]))

    def _slice(self, first: int, count: int) -> Any:
        from features.extractors.token_layers import TokenSlice
        from features.runtime.keras_settings import keras

        if (first, count) == (0, self._model.outputs[0].shape[1]):
            return self._model
        layer = TokenSlice(first, count, name="tokens")
        return keras.Model(self._model.inputs[0], layer(self._model.outputs[0]))


def _find_spatial_model(encoder: Any) -> Any:
    """Returns the model up to its last output [N, tokens, channels] or [N, height, width, channels]."""
    from features.runtime.keras_settings import keras

    outputs = [encoder.outputs[0], *(one.output for one in reversed(encoder.layers) if hasattr(one.output, "shape"))]
    spatial = next((one for one in outputs if len(one.shape) in (3, 4)), None)
    if spatial is None or spatial is encoder.inputs[0]:
        message = f"{type(encoder).__name__} has no spatial output"
        raise UsageError(message, location="--layer", hint=f"Use --layer {OUTPUT}.")
    if spatial is encoder.outputs[0]:
        return _nest_if_needed(encoder)
    return keras.Model(encoder.inputs[0], spatial)


def _nest_if_needed(encoder: Any) -> Any:
    """Returns the encoder, as one layer of a model if some of its layers cannot be saved alone, as in ViT and DeiT.

    The settings of these layers in KerasHub are incomplete; those of the encoder are complete.
    """
    from features.runtime.keras_settings import keras

    try:
        for layer in encoder.layers:
            type(layer).from_config(layer.get_config())
    except (AttributeError, TypeError, ValueError):
        pixels = keras.Input(encoder.inputs[0].shape[1:], name="pixels")
        return keras.Model(pixels, encoder(pixels))
    return keras.Model(encoder.inputs[0], encoder.outputs[0])


def _copy_in_float32(encoder: Any, name: str) -> Any:
    """Returns a copy that computes in float32. Its layers have the same names in every process."""
    try:
        copy = type(encoder).from_config(encoder.get_config() | {"dtype": "float32"})
        copy.set_weights(encoder.get_weights())
    except (ValueError, TypeError) as error:
        message = f"the preset cannot compute in float32: {summarize_error(error)}"
        raise UsageError(message, location=name, hint="Choose a preset that is not quantized.") from error
    return copy


# === Presets ===


def _load_encoder(directory: Path, name: str, **changes: Any) -> Any:
    """Loads the image backbone of a preset, or its vision encoder.

    Args:
        directory: The directory of the preset.
        name: What the user calls the preset.
        **changes: Settings of the backbone that replace those of the preset.

    Raises:
        UsageError: The preset is not one of an image backbone.
        CaptError: The preset is corrupt, or does not support the changes.
    """
    from features.runtime.keras_settings import keras  # noqa: F401 (chooses the backend before KerasHub is imported)

    register_layers(NAME)
    import keras_hub

    _check_classes(directory / _CONFIG, name)
    encoder = _load(lambda: keras_hub.models.Backbone.from_preset(str(directory), **changes), name)
    encoder = getattr(encoder, "vision_encoder", encoder)
    inputs: Any = getattr(encoder, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[3] != 3:
        raise UsageError("the preset has no image backbone with one input [N, H, W, 3]", location=name, hint=_HINT)
    return encoder


def _load_converter(directory: Path, name: str) -> ImageConverter:
    """Loads the image converter of a preset; raises as `_load_encoder`."""
    register_layers(NAME)
    import keras_hub

    if not (directory / _CONVERTER).is_file():
        raise UsageError(f"the preset has no {_CONVERTER}", location=name, hint=_HINT)
    _check_classes(directory / _CONVERTER, name)
    converter = _load(lambda: keras_hub.layers.ImageConverter.from_preset(str(directory)), name)
    return ImageConverter(
        _read_rescaling(converter, name),
        (converter.image_size[0], converter.image_size[1]) if converter.image_size else None,
        "crop" if converter.crop_to_aspect_ratio else "pad" if converter.pad_to_aspect_ratio else "stretch",
    )


def _load(load: Callable[[], Any], name: str) -> Any:
    try:
        return build_in_thread(load)
    except Exception as error:  # Keras raises errors of many classes for untrusted files, clients for the network.
        message = f"KerasHub cannot load the preset: {summarize_error(error)}"
        raise CaptError(message, location=name, hint=_HINT) from error


def _download(name: str) -> Path:
    """Downloads the files of a preset that determine features; returns their directory."""
    from features.runtime.keras_settings import keras  # noqa: F401 (chooses the backend before KerasHub is imported)

    register_layers(NAME)
    import keras_hub
    from keras_hub.src.utils.preset_utils import check_file_exists, get_file

    known = keras_hub.models.Backbone.presets
    if not name.startswith(_SCHEMES) and name not in known:
        near = difflib.get_close_matches(name, known) or ["a directory, kaggle://… or hf://…"]
        raise UsageError("KerasHub has no such preset", location=name, hint=f"Use {', '.join(near)}.")
    try:
        paths = [Path(get_file(name, file)) for file in (_CONFIG, _CONVERTER)]
        weights = _WEIGHTS if check_file_exists(name, _WEIGHTS) else _WEIGHTS_INDEX
        paths.append(Path(get_file(name, weights)))
        paths += [Path(get_file(name, file)) for file in _list_weights(paths[0].parent, name)]
    except CaptError:
        raise
    except Exception as error:  # The clients raise errors of many classes.
        message = f"the preset cannot be downloaded: {summarize_error(error)}"
        hint = "Check the network, or download it elsewhere and use keras_hub:DIRECTORY."
        raise CaptError(message, location=name, hint=hint) from error
    if len({path.parent for path in paths}) > 1:
        message = "the files of the preset are of several versions"
        raise CaptError(message, location=name, hint="Download it elsewhere and use keras_hub:DIRECTORY.")
    return paths[0].parent


def _list_weights(directory: Path, name: str) -> list[str]:
    """Returns the names of the files from which KerasHub loads the weights of a preset, with their index if it has one.

    Raises:
        UsageError: The preset has no weights.
        CaptError: The index is corrupt, or names a file outside the directory.
    """
    if (directory / _WEIGHTS).is_file():
        return [_WEIGHTS]
    if not (directory / _WEIGHTS_INDEX).is_file():
        raise UsageError("the preset has no weights", location=name, hint=_HINT)
    try:
        values = json.loads((directory / _WEIGHTS_INDEX).read_bytes())["weight_map"].values()
        files = {file for value in values for file in ([value] if isinstance(value, str) else value)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CaptError(f"{_WEIGHTS_INDEX} of the preset is corrupt", location=name, hint=_HINT) from error
    if not files:
        raise UsageError("the preset has no weights", location=name, hint=_HINT)
    if strange := [file for file in files if not isinstance(file, str) or file == ".." or Path(file).name != file]:
        message = f"{_WEIGHTS_INDEX} of the preset names {strange[0]!r}, which is not a file of its directory"
        raise CaptError(message, location=name, hint=_HINT)
    return [_WEIGHTS_INDEX, *sorted(files)]


def _check_classes(path: Path, name: str) -> None:
    """Raises UsageError if a config of a preset names a class that belongs neither to Keras nor to KerasHub."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path.name} of the preset is missing or corrupt"
        raise CaptError(message, location=name, hint=_HINT) from error
    if not isinstance(config, dict) or not str(config.get("registered_name")).startswith(f"{NAME}>"):
        raise UsageError(f"{path.name} is not that of a KerasHub preset", location=name, hint=_HINT)
    for one in _list_objects(config):
        module, registered = str(one.get("module")), str(one.get("registered_name"))
        if not registered.startswith(f"{NAME}>") and module.partition(".")[0] != "keras":
            message = f"{path.name} names {one['class_name']}, which is not a class of Keras or KerasHub"
            raise UsageError(message, location=name, hint=_HINT)


def _list_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields the serialized objects in a config."""
    if isinstance(config, dict) and "class_name" in config:
        yield config
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _list_objects(value)


def _read_rescaling(converter: Any, name: str) -> Rescaling:
    """Returns the scale and offset of an image converter; UsageError if it does more than resize and rescale."""
    scale, offset = (
        tuple(map(float, np.broadcast_to(default if value is None else value, 3)))
        for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    rescaling = Rescaling(scale, offset)
    pixels = np.arange(2 * 2 * 3, dtype=np.float32).reshape(1, 2, 2, 3) * 23
    size = converter.image_size
    converter.image_size = None
    try:
        converted = np.asarray(converter(pixels))
        is_equal = np.array_equal(converted, np.asarray(rescaling.load_preprocessing()(pixels)))
    except (ValueError, TypeError, AttributeError):
        is_equal = False
    converter.image_size = size
    if not is_equal:
        message = f"{type(converter).__name__} does more than resize and rescale"
        raise UsageError(message, location=name, hint="Choose another preset.")
    return rescaling


def _hash_preset(directory: Path, name: str) -> str:
    """Returns the SHA-256 of the names and contents of the files that determine features; raises as `_list_weights`."""
    paths = [directory / file for file in (_CONFIG, _CONVERTER, *_list_weights(directory, name))]
    missing = next((path.name for path in paths if not path.is_file()), None)
    if missing:
        raise UsageError(f"the preset has no {missing}", location=name, hint=_HINT)
    return compute_digest({path.name: hash_file(path) for path in paths})
