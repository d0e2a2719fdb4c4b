"""Finds or builds the frozen extractor of a feature table."""

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
from features.store.layout import EXTRACTOR_NAME, EXTRACTOR_RECORD, extractor_path
from schemas.errors import StoreError, UsageError
from schemas.manifests import FeatureMetadata
from schemas.strict_json import parse_json
from schemas.table_config import FeatureTableConfig, canonical_json

_log = logging.getLogger("capt.prepare")


@dataclass(frozen=True)
class FrozenExtractor:
    """The file of a frozen extractor, its SHA-256, and the shape of one image's features."""

    path: Path
    sha256: str
    shape: tuple[int, ...]

    def is_intact(self) -> bool:
        return self.path.is_file() and hash_file(self.path) == self.sha256


def find_or_freeze_extractor(
    root: Path, store: Path, table_config: FeatureTableConfig, extractor: Extractor
) -> FrozenExtractor:
    """Returns the frozen extractor of a table. Freezes the extractor if the file is missing or corrupt.

    `root` is the table's directory, whose record names the frozen extractor; `store` is the directory of the store.
    StoreError if the new frozen extractor differs from the one that computed the table's rows.
    """
    known = committed = _look_up(root, store)
    if known is None or not known.is_intact():
        graph, shape = _build(table_config, extractor)
        sha256 = hashlib.sha256(graph).hexdigest()
        known = committed or FrozenExtractor(extractor_path(store, sha256), sha256, shape)
        if sha256 != known.sha256:
            raise StoreError(
                "the frozen extractor is corrupt or missing, and a new one differs: "
                f"expected SHA-256 {known.sha256}, got {sha256}",
                location=str(known.path),
                hint="Restore the file, or use the TensorFlow and Keras versions that `capt store stats` shows.",
            )
        write(known.path, graph)
        if committed:
            _log.warning("%s: the frozen extractor was corrupt or missing. It is built again.", known.path)
    record = _encode_record(known)
    if not (root / EXTRACTOR_RECORD).is_file() or (root / EXTRACTOR_RECORD).read_bytes() != record:
        write(root / EXTRACTOR_RECORD, record)
    return known


def find_frozen_extractor(root: Path, store: Path) -> FrozenExtractor | None:
    """Returns the frozen extractor of the table in `root` if it exists and is intact. Writes nothing."""
    known = _look_up(root, store)
    return known if known and known.is_intact() else None


def is_extractor_intact(root: Path, store: Path, suspect: Collection[str] = ()) -> bool:
    """Returns whether a table's frozen extractor and record need no repair. Verifies checksums of `suspect` files."""
    known = _look_up(root, store)
    if known is None:
        return True
    is_recorded = _read_record(root, store) == known
    return is_recorded and known.path.is_file() and (known.path.name not in suspect or known.is_intact())


def _look_up(root: Path, store: Path) -> FrozenExtractor | None:
    """Returns the frozen extractor that the table's commits name, or else the recorded one."""
    for manifest in reversed(CommitLog(root).read_state().live):
        if isinstance(manifest.facts, FeatureMetadata) and (sha256 := manifest.facts.network):
            return FrozenExtractor(extractor_path(store, sha256), sha256, manifest.facts.shape)
    return _read_record(root, store)


def _read_record(root: Path, store: Path) -> FrozenExtractor | None:
    """Returns the recorded frozen extractor; None without a valid record."""
    try:
        data = (root / EXTRACTOR_RECORD).read_bytes()
        record = parse_json(data)
        sha256 = str(record["network"])
        known = FrozenExtractor(extractor_path(store, sha256), sha256, tuple(record["shape"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return known if _encode_record(known) == data and EXTRACTOR_NAME.fullmatch(known.path.name) else None


def _encode_record(known: FrozenExtractor) -> bytes:
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
