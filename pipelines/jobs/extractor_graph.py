"""The frozen network of a recipe: the one its table was begun with, built and frozen where the table is new."""

import gc
import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from features.extractors.extractor import Extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.pixels import NAME as PIXELS
from features.images.resizer import Resizer
from features.io.atomic_files import hash_file, write
from features.store.commit_log import CommitLog
from features.store.layout import NETWORK, NETWORK_NAME
from schemas.errors import StoreError, UsageError
from schemas.manifests import FeatureMetadata
from schemas.strict_json import parse_json
from schemas.table_config import FeatureTableConfig, canonical_json

_log = logging.getLogger("capt.prepare")


@dataclass(frozen=True)
class GraphFile:
    """A frozen network on disk: its file, SHA-256 and the shape of one image's features."""

    path: Path
    sha256: str
    shape: tuple[int, ...]


def find_or_freeze_graph(
    root: Path, networks: Path, table_config: FeatureTableConfig, extractor: Extractor
) -> GraphFile:
    """The network of the table in `root`, its file in `networks`, built where it is missing or damaged.

    Args:
        root: Path. The feature table's directory, which remembers its network.
        networks: Path. Where networks lie by digest.
        table_config: FeatureTableConfig. What to build.
        extractor: Extractor. Builds it, as the command asks.

    Raises:
        StoreError: what is built now is not what the table was begun with.
    """
    known = _remembered(root, networks)
    if known is None:
        graph, shape = _build(table_config, extractor)
        sha256 = hashlib.sha256(graph).hexdigest()
        write(networks / f"{sha256}.pb", graph)
        known = GraphFile(networks / f"{sha256}.pb", sha256, shape)
    elif not _is_sound(known):
        graph, _ = _build(table_config, extractor)
        _put_back(known, graph)
    _note(root, known)
    return known


def find_graph(root: Path, networks: Path) -> GraphFile | None:
    """The network of the table in `root` where it is there and sound; nothing is built and nothing written.

    Args:
        root: Path. The feature table's directory.
        networks: Path. Where networks lie by digest.
    """
    known = _remembered(root, networks)
    return known if known and _is_sound(known) else None


def is_graph_intact(root: Path, networks: Path, suspect: Collection[str] = ()) -> bool:
    """Whether the network of the table in `root`, and the note of it, need no healing; a new table has none.

    Args:
        root: Path. The feature table's directory.
        networks: Path. Where networks lie by digest.
        suspect: collection of str. Names of networks' files whose checksums are to be taken.
    """
    known = _remembered(root, networks)
    if known is None:
        return True
    is_noted = _noted(root, networks) == known
    return is_noted and known.path.is_file() and (known.path.name not in suspect or _is_sound(known))


def _remembered(root: Path, networks: Path) -> GraphFile | None:
    """The network that the table's commits were made with; before the first, the one that is noted."""
    for manifest in reversed(CommitLog(root).read_state().live):
        if isinstance(manifest.facts, FeatureMetadata):
            sha256 = manifest.facts.network
            return GraphFile(networks / f"{sha256}.pb", sha256, manifest.facts.shape)
    return _noted(root, networks)


def _noted(root: Path, networks: Path) -> GraphFile | None:
    """The network that is noted; None where there is no note that can be read."""
    try:
        data = (root / NETWORK).read_bytes()
        note = parse_json(data)
        known = GraphFile(networks / f"{note['network']}.pb", str(note["network"]), tuple(note["shape"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return known if _note_bytes(known) == data and NETWORK_NAME.fullmatch(known.path.name) else None


def _note(root: Path, known: GraphFile) -> None:
    if not (root / NETWORK).is_file() or (root / NETWORK).read_bytes() != _note_bytes(known):
        write(root / NETWORK, _note_bytes(known))


def _note_bytes(known: GraphFile) -> bytes:
    return canonical_json({"network": known.sha256, "shape": list(known.shape)})


def _is_sound(known: GraphFile) -> bool:
    return known.path.is_file() and hash_file(known.path) == known.sha256


def _put_back(known: GraphFile, graph: bytes) -> None:
    got = hashlib.sha256(graph).hexdigest()
    if got != known.sha256:
        raise StoreError(
            f"the frozen network is damaged or missing, and what is built now is another: "
            f"expected SHA-256 {known.sha256}, got {got}",
            location=str(known.path),
            hint="put the file back, or use the TensorFlow and Keras that `capt store stats` names",
        )
    write(known.path, graph)
    _log.warning("%s: the frozen network was damaged or missing; built again", known.path)


def _build(table_config: FeatureTableConfig, extractor: Extractor) -> tuple[bytes, tuple[int, ...]]:
    """The frozen graph, and the shape of one image's features."""
    from features.runtime.keras_backend import VARIABLE
    from features.runtime.keras_settings import keras

    if table_config.extractor != PIXELS and keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"capt extracts features with TensorFlow, not {keras.backend.backend()}",
            location=VARIABLE,
            hint="unset it; a run can be trained on any backend",
        )
    _log.info("building %s with weights %s", table_config.extractor, table_config.weights)
    graph = freeze(
        extractor.build_function(table_config),
        table_config.height,
        table_config.width,
        Resizer.from_table_config(table_config).dtype,
    )
    gc.collect()  # Keras models and traced graphs are cycles, and hold their weights several times over
    return graph, FrozenGraph(graph, table_config.precision).shape
