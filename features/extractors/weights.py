"""Extractor weights: `imagenet`, a file, or `random:SEED`, each with an identity that needs no model."""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from features.extractors.application import Application, BuildOptions
from features.extractors.random_weights import RANDOM_VERSION, randomize
from features.io.atomic_files import hash_file
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError

IMAGENET = "imagenet"
_RANDOM = "random:"
_OTHERWISE = "give --weights FILE, or --weights random:SEED for seeded random ones"
_PUBLISHED_AT = "https://storage.googleapis.com/tensorflow/keras-applications/"
_CONNECT_SECONDS = 10


def identify_weights(weights: str, network: Application, form: BuildOptions) -> str:
    """What a recipe records of the weights: `imagenet:MD5`, `random:SEED@VERSION` or `sha256:HEX`.

    Args:
        weights: str. `imagenet`, `random:SEED` or a file.
        network: Application. Says what is published of it, under its name where Keras states no MD5.
        form: Form. With or without the classifier, which are two published files.

    Raises:
        UsageError: `weights` is none of `imagenet`, `random:SEED` and an existing file.
    """
    if weights == IMAGENET:
        return network.published(form).identity
    if weights.startswith(_RANDOM):
        return f"{_RANDOM}{_seed(weights)}@{RANDOM_VERSION}"
    if not local_path(weights, "--weights").is_file():
        raise UsageError("no such weights file", location=weights, hint=f"or {_OTHERWISE}")
    return f"sha256:{hash_file(Path(weights))}"


def load_weights(model: Any, weights: str, network: Application, form: BuildOptions) -> Any:
    """A `keras.Model` of `network` with its weights: the one given, or for `imagenet` the one that Keras builds.

    Keras builds some networks otherwise for `imagenet` (EfficientNet scales its input once more), so the published
    weights are not put into another build.

    Args:
        model: keras.Model. The network in its form, built without weights.
        weights: str. `imagenet`, `random:SEED` or a file.
        network: Application. What the model is.
        form: Form. How it was built.

    Raises:
        CaptError: ImageNet weights cannot be had, or the file does not fit the network.
    """
    if weights == IMAGENET:
        return _imagenet(network, form)
    if weights.startswith(_RANDOM):
        randomize(model, _seed(weights), network, form)
        return model
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise CaptError(f"the weights do not fit {network.name}: {error}", location=weights, hint=_OTHERWISE) from error
    return model


def is_imagenet_available(network: Application, form: BuildOptions | None = None) -> bool:
    """Whether Keras has the published weights in its cache, or their server answers."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if (home / "models" / network.published(form or network.form()).file).is_file():
        return True
    try:
        with urllib.request.urlopen(_PUBLISHED_AT, timeout=_CONNECT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _seed(weights: str) -> int:
    text = weights.removeprefix(_RANDOM)
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{weights!r} has no seed", location="--weights", hint="write random:7, say")
    return int(text)


def _imagenet(network: Application, form: BuildOptions) -> Any:
    if not is_imagenet_available(network, form):
        raise CaptError("the ImageNet weights cannot be downloaded", location=network.name, hint=_OTHERWISE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return network.build(form, IMAGENET)
    except Exception as error:
        raise CaptError(
            f"the ImageNet weights cannot be downloaded: {error}", location=network.name, hint=_OTHERWISE
        ) from error
