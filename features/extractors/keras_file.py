"""Writes extractors as `.keras` files whose bytes are the same in every process, and loads them.

Keras itself writes the time and addresses of objects into such a file. `keras.saving.load_model` loads both.
"""

import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from features.extractors.output_layers import summarize_error
from features.extractors.registered_layers import register_layers
from features.runtime.keras_settings import keras
from schemas.errors import CorruptFileError, UsageError

_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
_NAME = "extractor"


def encode_model(model: Any) -> bytes:
    """Returns a functional `keras.Model` with one input and one output, and its weights, as a `.keras` file.

    Raises:
        UsageError: A layer cannot be saved.
    """
    named = keras.Model(model.inputs[0], model.outputs[0], name=_NAME)  # Keras numbers models per process
    with tempfile.TemporaryDirectory(prefix="capt-extractor-") as directory:
        weights = Path(directory) / _WEIGHTS
        named.save_weights(weights)
        try:
            config = json.dumps(keras.saving.serialize_keras_object(named), sort_keys=True).encode()
        except AttributeError as error:  # the settings of some layers of KerasHub are incomplete
            message = f"Keras cannot save the layers for this runtime: {summarize_error(error)}"
            hint = "Omit the option, or use --backend tensorflow --device cpu."
            raise UsageError(message, location="--layer", hint=hint) from error
        data = BytesIO()
        with zipfile.ZipFile(data, "w") as file:
            for name, content in ((_METADATA, b"{}"), (_CONFIG, config), (_WEIGHTS, weights.read_bytes())):
                file.writestr(zipfile.ZipInfo(name), content)  # has a fixed time
    return data.getvalue()


def load_model(path: Path, extractor: str) -> Any:
    """Loads the `keras.Model` of a file in safe mode.

    Args:
        path: The file.
        extractor: Name of the extractor in a table config.

    Raises:
        CorruptFileError: The file is missing, or not a model.
        UsageError: The extractor is one of KerasHub, which is not installed.
    """
    register_layers(extractor)
    if not path.is_file():
        raise CorruptFileError("the extractor is missing", location=str(path))
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises errors of many classes for corrupt files.
        raise CorruptFileError(f"the extractor is corrupt: {summarize_error(error)}", location=str(path)) from error
