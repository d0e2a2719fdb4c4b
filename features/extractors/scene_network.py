"""Implements the extractor `scene_network`: a small network that ships with capt and recognizes synthetic scenes.

`scene_network.keras` is a model of Keras' own layers that `benchmarks/scene_network.py` trained on scenes.
`scene_network.json` is its recipe: command, settings, measured accuracy, and SHA-256 of the file.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.extractors.custom import PREFIX, CustomExtractor
from features.extractors.extractor import ExtractorConfig
from features.extractors.output_layers import ModelFunction
from features.io.atomic_files import hash_file
from schemas.errors import CorruptFileError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

NAME = "scene_network"
NETWORK_FILE = Path(__file__).with_name(f"{NAME}.keras")
RECIPE_FILE = NETWORK_FILE.with_suffix(".json")
# Spatial features. The layer `scene` has one vector per image.
_LAYER = "locations"


class SceneNetworkExtractor:
    """The extractor `scene_network`: 128×128 pixels to `locations`, [64, 34], or to `scene`, [129]."""

    def __init__(self, options: ExtractorOptions) -> None:
        own = {
            "--weights": (options.weights is not None, "has its own weights"),
            "--preprocess": (options.preprocess is not None, "has its own preprocessing"),
            "--precision": (options.precision in ("bfloat16", "int8"), "compares coordinates in float32"),
        }
        for option, (is_given, message) in own.items():
            if is_given:
                raise UsageError(f"{NAME} {message}", location=option, hint="Omit the option.")
        if hash_file(NETWORK_FILE) != read_recipe()["sha256"]:
            message, hint = "the file differs from the SHA-256 in its recipe", "Install capt again."
            raise CorruptFileError(message, location=str(NETWORK_FILE), hint=hint)
        given = {"extractor": f"{PREFIX}{NETWORK_FILE}", "layer": options.layer or _LAYER}
        self._network = CustomExtractor(options.model_copy(update=given))

    def resolve_config(self) -> ExtractorConfig:
        """Returns the settings for the table config."""
        return replace(self._network.resolve_config(), extractor=NAME, precision="float32")

    def build_function(self, table_config: FeatureTableConfig) -> ModelFunction:
        """Builds the network up to the table config's layer."""
        return self._network.build_function(table_config)


def read_recipe() -> dict[str, Any]:
    """Returns the recipe of the network."""
    return dict(json.loads(RECIPE_FILE.read_bytes()))
