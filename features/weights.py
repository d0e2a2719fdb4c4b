"""Extractor weights: `imagenet`, a file, or `random:SEED`, each with an identity that needs no model.

Random weights are He-normal (He et al. 2015, arXiv:1502.01852), drawn for each variable from its own stream of the
seed. Batch normalisation is then calibrated: one forward pass over seeded 1/f noise, whose spectrum is that of
photographs (Field 1987, doi:10.1364/JOSAA.4.002379), sets every moving mean and variance, so that features neither
vanish nor explode. Its offset puts most activations on the linear side of the ReLU: a deep random network that
rectifies half of them is chaotic (Poole et al. 2016, arXiv:1606.05340) and forgets what it saw.
"""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors import ExtractorSpec
from features.files import sha256_of
from schemas.errors import CaptError, UsageError

RANDOM_VERSION = 1
_CALIBRATION_IMAGES = 16
_OFFSET = 2.0
_OTHERWISE = "give --weights FILE, or --weights random:SEED for seeded random ones"
_PUBLISHED_AT = "https://storage.googleapis.com/tensorflow/keras-applications/"
_CONNECT_SECONDS = 10


def weights_identity(weights: str, spec: ExtractorSpec) -> str:
    """What a recipe records of the weights: `imagenet:MD5`, `random:SEED@VERSION` or `sha256:HEX`.

    Raises:
        UsageError: `weights` is none of `imagenet`, `random:SEED` and an existing file.
    """
    if weights == "imagenet":
        return f"imagenet:{spec.imagenet_hash}"
    if weights.startswith("random:"):
        return f"random:{_seed(weights)}@{RANDOM_VERSION}"
    if not Path(weights).is_file():
        raise UsageError("no such weights file", where=weights, mend=f"or {_OTHERWISE}")
    return f"sha256:{sha256_of(Path(weights))}"


def load_weights(model: Any, weights: str, spec: ExtractorSpec) -> None:
    """Give a `keras.Model` of `spec` its weights.

    Raises:
        CaptError: ImageNet weights cannot be had, or the file does not fit the network.
    """
    if weights == "imagenet":
        model.set_weights(_imagenet(spec).get_weights())
    elif weights.startswith("random:"):
        _randomize(model, _seed(weights), spec)
    else:
        try:
            model.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise CaptError(f"the weights do not fit {spec.name}: {error}", where=weights, mend=_OTHERWISE) from error


def imagenet_available(spec: ExtractorSpec) -> bool:
    """Whether Keras has the published weights in its cache, or their server answers."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if any(spec.module in path.name for path in home.glob("models/*no*top*.h5")):
        return True
    try:
        with urllib.request.urlopen(_PUBLISHED_AT, timeout=_CONNECT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def noise_images(count: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Seeded colour images with a 1/f amplitude spectrum, uint8 [count, side, side, 3]."""
    generator = np.random.Generator(np.random.PCG64([seed, RANDOM_VERSION]))
    rows, columns = np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1 / side
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        grey = generator.standard_normal((side, side))
        contrast, brightness = generator.uniform(30, 75), generator.uniform(80, 160)
        for channel in range(3):
            white = 0.8 * grey + 0.6 * generator.standard_normal((side, side))
            pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(side, side))
            pink = (pink - pink.mean()) / pink.std()
            image[..., channel] = np.clip(pink * contrast + brightness, 0, 255)
    return images


def _seed(weights: str) -> int:
    text = weights.removeprefix("random:")
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{weights!r} has no seed", where="--weights", mend="write random:7, say")
    return int(text)


def _imagenet(spec: ExtractorSpec) -> Any:
    if not imagenet_available(spec):
        raise CaptError("the ImageNet weights cannot be downloaded", where=spec.name, mend=_OTHERWISE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return spec.build("imagenet")
    except Exception as error:
        raise CaptError(
            f"the ImageNet weights cannot be downloaded: {error}", where=spec.name, mend=_OTHERWISE
        ) from error


def _randomize(model: Any, seed: int, spec: ExtractorSpec) -> None:
    import keras

    for number, variable in enumerate(model.weights):
        if variable.path.endswith("beta"):
            variable.assign(np.full(variable.shape, _OFFSET, np.float32))
        if variable.path.endswith("kernel"):
            generator = np.random.Generator(np.random.PCG64([seed, RANDOM_VERSION, number]))
            deviation = np.sqrt(2 / np.prod(variable.shape[:-1]))
            variable.assign(generator.standard_normal(variable.shape, dtype=np.float32) * np.float32(deviation))
    normalizers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizers]
    for layer in normalizers:
        layer.momentum = 0.0
    pixels = noise_images(_CALIBRATION_IMAGES, spec.side, seed)
    model(spec.preprocess()(pixels.astype(np.float32)), training=True)
    for layer, momentum in zip(normalizers, momenta, strict=True):
        layer.momentum = momentum
