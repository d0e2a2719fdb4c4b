"""Identifies and loads extractor weights: `imagenet`, `random:SEED` or a file."""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.application import Application, BuildOptions
from features.io.atomic_files import hash_file
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError

RANDOM_VERSION = 1
IMAGENET = "imagenet"
_RANDOM = "random:"
_HINT = "Use --weights FILE, or --weights random:SEED for seeded random weights."
_DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
_CONNECT_SECONDS = 10
_CALIBRATION_IMAGES = 16
_CALIBRATION_PIXELS = _CALIBRATION_IMAGES * 299 * 299
_OFFSET = 2.0
_MIN_STD = 1e-6


def identify_weights(weights: str, application: Application, options: BuildOptions) -> str:
    """Returns the identity of weights in a table config, without building the model.

    It is `imagenet:DIGEST` (or the file name if Keras has no digest), `random:SEED@VERSION` or `sha256:HEX`.
    """
    if weights == IMAGENET:
        published = application.find_published_weights(options)
        return f"imagenet:{published.digest or published.file}"
    if weights.startswith(_RANDOM):
        return f"{_RANDOM}{_parse_seed(weights)}@{RANDOM_VERSION}"
    if not local_path(weights, "--weights").is_file():
        raise UsageError("the weights file does not exist", location=weights, hint=_HINT)
    return f"sha256:{hash_file(Path(weights))}"


def load_weights(model: Any, weights: str, application: Application, options: BuildOptions) -> Any:
    """Returns `model`, a `keras.Model` built with `options`, after loading its weights; for `imagenet`, a new model.

    Keras builds the new model with its weights, because some models differ then (EfficientNet normalizes its input
    twice).

    Raises:
        CaptError: The ImageNet weights cannot be downloaded, or the weights of a file do not fit the model.
        UsageError: `random:` is not followed by a seed.
    """
    if weights == IMAGENET:
        message = "the ImageNet weights cannot be downloaded"
        if not is_imagenet_available(application, options):
            raise CaptError(message, location=application.name, hint=_HINT)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return application.build(options, IMAGENET)
        except Exception as error:
            raise CaptError(f"{message}: {error}", location=application.name, hint=_HINT) from error
    if weights.startswith(_RANDOM):
        randomize(model, _parse_seed(weights), application, options)
        return model
    try:
        application.load_file(model, weights)
    except (OSError, ValueError, KeyError) as error:
        raise CaptError(f"the weights do not fit {application.name}: {error}", location=weights, hint=_HINT) from error
    return model


def is_imagenet_available(application: Application, options: BuildOptions | None = None) -> bool:
    """Returns whether Keras has the published weights in its cache, or can connect to their server."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    published = application.find_published_weights(options or application.resolve_build_options())
    if (home / "models" / published.file).is_file():
        return True
    try:
        urllib.request.urlopen(_DOWNLOAD_URL, timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)
    return True


def _parse_seed(weights: str) -> int:
    text = weights.removeprefix(_RANDOM)
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{weights!r} has no seed", location="--weights", hint="Use random:7, for example.")
    return int(text)


def randomize(model: Any, seed: int, application: Application, options: BuildOptions) -> None:
    """Initializes the weights of an application's `keras.Model` from a seed of at least 0, and calibrates them.

    The features neither vanish nor explode on photographs. Kernels are He-normal (He et al. 2015, arXiv:1502.01852);
    each variable has its own random stream. One forward pass over seeded 1/f noise, the spectrum of photographs (Field
    1987, doi:10.1364/JOSAA.4.002379), then calibrates the model. Batch normalization uses the statistics of this batch.
    In models without it, each layer's kernel and bias are scaled by the statistics of its output, as in Salimans &
    Kingma 2016 (arXiv:1602.07868). In both cases an offset keeps most activations on the linear side of the ReLU. A
    deep random network that rectifies half of them is chaotic (Poole et al. 2016, arXiv:1606.05340).
    """
    from features.runtime.keras_settings import keras

    _initialize(model, seed)
    count = max(1, min(_CALIBRATION_IMAGES, _CALIBRATION_PIXELS // (options.height * options.width)))
    noise = generate_noise_images(count, options.height, options.width, seed)
    images = application.load_preprocessing()(noise.astype(np.float32))
    normalizers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if normalizers:
        with _override(normalizers, "momentum", lambda _: 0.0), _override(dropouts, "rate", lambda _: 0.0):
            _update_statistics(model, images)
    else:
        weighted = [layer for layer in model.layers if getattr(layer, "use_bias", False)]
        with _override(weighted, "activation", _build_calibrator):
            model(images, training=False)


def _update_statistics(model: Any, images: NDArray[np.float32]) -> None:
    """Calls a model in training mode. On JAX as one compiled function: JAX compiles single operations one by one."""
    from features.runtime.keras_settings import keras

    if keras.backend.backend() != "jax":
        model(images, training=True)
        return
    import jax

    @jax.jit
    def call(trainable: Any, others: Any, images: Any) -> Any:
        return model.stateless_call(trainable, others, images, training=True)[1]

    variables = (model.trainable_variables, model.non_trainable_variables)
    values = call(*([variable.value for variable in some] for some in variables), images)
    for variable, value in zip(model.non_trainable_variables, values, strict=True):
        variable.assign(value)


def generate_noise_images(count: int, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Returns seeded color images with a 1/f amplitude spectrum, uint8 [count, height, width, 3]."""
    generator = np.random.Generator(np.random.PCG64([seed, RANDOM_VERSION]))
    rows, columns = np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1 / max(height, width)
    images = np.empty((count, height, width, 3), np.uint8)
    for image in images:
        gray = generator.standard_normal((height, width))
        contrast, brightness = generator.uniform(30, 75), generator.uniform(80, 160)
        for channel in range(3):
            white = 0.8 * gray + 0.6 * generator.standard_normal((height, width))
            pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
            pink = (pink - pink.mean()) / pink.std()
            image[..., channel] = np.clip(pink * contrast + brightness, 0, 255)
    return images


def _initialize(model: Any, seed: int) -> None:
    # The scale of the kernels matters little because the output of each layer is calibrated.
    for number, variable in enumerate(model.weights):
        if variable.path.endswith("beta"):
            variable.assign(np.full(variable.shape, _OFFSET, np.float32))
        if variable.path.endswith("kernel"):
            generator = np.random.Generator(np.random.PCG64([seed, RANDOM_VERSION, number]))
            std = np.sqrt(2 / np.prod(variable.shape[:-1]))
            variable.assign(generator.standard_normal(variable.shape, dtype=np.float32) * np.float32(std))
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":  # ConvNeXt initializes it to 1e-6, which disables its blocks
            layer.gamma.assign(np.ones(layer.gamma.shape, np.float32))


@contextlib.contextmanager
def _override(layers: list[Any], name: str, value: Callable[[Any], Any]) -> Iterator[None]:
    """Overrides an attribute of layers within a block."""
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value(layer))
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, name, old)


def _build_calibrator(layer: Any) -> Callable[[Any], Any]:
    """Returns an activation that first scales each output channel to unit variance around the offset."""
    from features.runtime.keras_settings import keras

    activation = layer.activation
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)

    def calibrate(output: Any) -> Any:
        values = np.asarray(output).reshape(-1, output.shape[-1])
        mean, std = values.mean(axis=0), np.maximum(values.std(axis=0), _MIN_STD)
        divisor = std.reshape(layer.kernel.shape[2:]) if is_depthwise else std
        layer.kernel.assign(np.asarray(layer.kernel) / divisor)
        layer.bias.assign((np.asarray(layer.bias) - mean) / std + np.float32(_OFFSET))
        return activation((output - mean) / std + np.float32(_OFFSET))

    return calibrate
