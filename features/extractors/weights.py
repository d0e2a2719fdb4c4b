"""Identifies and loads extractor weights: `imagenet`, `random:SEED` or a file."""

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
_HINT = "Use --weights FILE, or --weights random:SEED for seeded random weights."
_DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
_CONNECT_SECONDS = 10


def identify_weights(weights: str, application: Application, options: BuildOptions) -> str:
    """Returns the identity of `imagenet`, `random:SEED` or a file in a table config, without building the model.

    Returns:
        `imagenet:DIGEST` (or the file name if Keras has no digest), `random:SEED@VERSION` or `sha256:HEX`.

    Raises:
        UsageError: The seed is invalid or the file does not exist.
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
    """Returns a `keras.Model` that was built with `options` and without weights, with its weights.

    For `imagenet`, Keras builds the model again: some models differ then (EfficientNet normalizes its input twice).

    Raises:
        CaptError: The ImageNet weights cannot be downloaded, or the file does not fit the model.
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
        model.load_weights(weights)
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
