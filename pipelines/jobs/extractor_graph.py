"""Finds or builds the frozen extractor graph of a feature table."""

import gc
import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from features.extractors.extractor import Extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.pixels import NAME as PIXELS
from features.images.resize import Resizer
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
    """The file of a frozen graph, its SHA-256, and the shape of one image's features."""

    path: Path
    sha256: str
    shape: tuple[int, ...]

    def is_intact(self) -> bool:
        return self.path.is_file() and hash_file(self.path) == self.sha256


def find_or_freeze_graph(root: Path, graphs: Path, table_config: FeatureTableConfig, extractor: Extractor) -> GraphFile:
    """Returns the extractor graph of a table. Builds it with the extractor if it is missing or corrupt.

    `root` is the table's directory, which contains a note with the name of the graph. `graphs` contains the graphs.
    StoreError if the graph that is built differs from the graph of the table's rows.
    """
    known = recorded = _look_up(root, graphs)
    if known is None or not known.is_intact():
        graph, shape = _build(table_config, extractor)
        sha256 = hashlib.sha256(graph).hexdigest()
        known = recorded or GraphFile(graphs / f"{sha256}.pb", sha256, shape)
        if sha256 != known.sha256:
            raise StoreError(
                "the extractor graph is corrupt or missing, and a new one differs: "
                f"expected SHA-256 {known.sha256}, got {sha256}",
                location=str(known.path),
                hint="Restore the file, or use the TensorFlow and Keras versions that `capt store stats` shows.",
            )
        write(known.path, graph)
        if recorded:
            _log.warning("%s: the extractor graph was corrupt or missing. It is built again.", known.path)
    note = _encode_note(known)
    if not (root / NETWORK).is_file() or (root / NETWORK).read_bytes() != note:
        write(root / NETWORK, note)
    return known


def find_graph(root: Path, graphs: Path) -> GraphFile | None:
    """Returns the extractor graph of the table in `root` if it exists and is intact. Writes nothing."""
    known = _look_up(root, graphs)
    return known if known and known.is_intact() else None


def is_graph_intact(root: Path, graphs: Path, suspect: Collection[str] = ()) -> bool:
    """Returns whether graph and note of a table need no repair. The checksums of `suspect` files are verified."""
    known = _look_up(root, graphs)
    if known is None:
        return True
    is_noted = _read_note(root, graphs) == known
    return is_noted and known.path.is_file() and (known.path.name not in suspect or known.is_intact())


def _look_up(root: Path, graphs: Path) -> GraphFile | None:
    """Returns the graph that the table's commits record, or else the noted one."""
    for manifest in reversed(CommitLog(root).read_state().live):
        if isinstance(manifest.facts, FeatureMetadata):
            sha256 = manifest.facts.network
            return GraphFile(graphs / f"{sha256}.pb", sha256, manifest.facts.shape)
    return _read_note(root, graphs)


def _read_note(root: Path, graphs: Path) -> GraphFile | None:
    """Returns the noted graph; None without a valid note."""
    try:
        data = (root / NETWORK).read_bytes()
        note = parse_json(data)
        known = GraphFile(graphs / f"{note['network']}.pb", str(note["network"]), tuple(note["shape"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return known if _encode_note(known) == data and NETWORK_NAME.fullmatch(known.path.name) else None


def _encode_note(known: GraphFile) -> bytes:
    return canonical_json({"network": known.sha256, "shape": list(known.shape)})


def _build(table_config: FeatureTableConfig, extractor: Extractor) -> tuple[bytes, tuple[int, ...]]:
    """Returns the frozen graph, and the shape of one image's features."""
    from features.runtime.keras_backend import VARIABLE
    from features.runtime.keras_settings import keras

    if table_config.extractor != PIXELS and keras.backend.backend() != "tensorflow":
        message = f"features are extracted with TensorFlow, not {keras.backend.backend()}"
        raise UsageError(message, location=VARIABLE, hint="Unset the variable. `capt train` accepts any backend.")
    _log.info("Building extractor %s with weights %s.", table_config.extractor, table_config.weights)
    function = extractor.build_function(table_config)
    graph = freeze(function, table_config.height, table_config.width, Resizer.from_table_config(table_config).dtype)
    gc.collect()  # Keras models and traced graphs are reference cycles that contain their weights several times.
    return graph, FrozenGraph(graph, table_config.precision).shape
