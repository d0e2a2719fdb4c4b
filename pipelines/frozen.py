"""The frozen network of a recipe: the one its table was begun with, built and frozen where the table is new."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from features.extractors import extractor_spec, feature_function
from features.files import put_if_absent, write
from features.networks import FrozenNetwork, freeze
from features.weights import load_weights
from schemas.recipes import FeatureRecipe, canonical_json

_log = logging.getLogger("capt.prepare")

_NETWORK = "network.json"


@dataclass(frozen=True)
class FrozenFile:
    """A frozen network on disk: its file, SHA-256 and the shape of one image's features."""

    path: Path
    sha256: str
    shape: tuple[int, ...]


def frozen_network(root: Path, networks: Path, recipe: FeatureRecipe, weights: str) -> FrozenFile:
    """The network of the table in `root`, its file in `networks`.

    Args:
        root: Path. The feature table's directory, which remembers its network.
        networks: Path. Where networks lie by digest.
        recipe: FeatureRecipe. What to build.
        weights: str. Where the weights come from, as the command line says.
    """
    known = _known(root, networks)
    if known is None:
        sha256, shape = _build(networks, recipe, weights)
        put_if_absent(root / _NETWORK, canonical_json({"network": sha256, "shape": list(shape)}))
        known = _known(root, networks) or FrozenFile(networks / f"{sha256}.pb", sha256, shape)
    return known


def _known(root: Path, networks: Path) -> FrozenFile | None:
    if not (root / _NETWORK).exists():
        return None
    known = json.loads((root / _NETWORK).read_bytes())
    path = networks / f"{known['network']}.pb"
    return FrozenFile(path, known["network"], tuple(known["shape"])) if path.exists() else None


def _build(networks: Path, recipe: FeatureRecipe, weights: str) -> tuple[str, tuple[int, ...]]:
    spec = extractor_spec(recipe.extractor)
    _log.info("building %s with weights %s", spec.name, weights)
    model = spec.build()
    load_weights(model, weights, spec)
    graph = freeze(feature_function(model, spec, recipe.layer, recipe.pooling), recipe.height, recipe.width)
    sha256 = hashlib.sha256(graph).hexdigest()
    write(networks / f"{sha256}.pb", graph)
    return sha256, FrozenNetwork(graph, recipe.precision).shape
