"""Finds or builds the stored extractor of a feature table: a frozen graph, or a Keras model for other runtimes."""

import gc
import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from features.extractors.extractor import Extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.output_layers import ModelFunction
from features.extractors.pixels import NAME as PIXELS
from features.images.resize import Resizer
from features.io.atomic_files import hash_file, write
from features.store.commit_log import CommitLog
from features.store.extractor_record import ExtractorRecord
from features.store.layout import EXTRACTOR_RECORD
from schemas.choices import ExtractorFormat
from schemas.errors import StoreError, UsageError
from schemas.manifests import FeatureMetadata
from schemas.table_config import FeatureTableConfig

_log = logging.getLogger("capt.prepare")


@dataclass(frozen=True)
class FrozenExtractor:
    """The file of a stored extractor, its SHA-256 and format, and the shape of one image's features."""

    path: Path
    sha256: str
    shape: tuple[int, ...]
    format: ExtractorFormat = "pb"

    @property
    def record(self) -> ExtractorRecord:
        return ExtractorRecord(self.sha256, self.format, self.shape)

    def is_intact(self) -> bool:
        return self.path.is_file() and hash_file(self.path) == self.sha256


def find_or_freeze_extractor(
    root: Path,
    store: Path,
    table_config: FeatureTableConfig,
    extractor: Extractor,
    extractor_format: ExtractorFormat = "pb",
) -> FrozenExtractor:
    """Returns a table's extractor in a format. Builds it if the file is missing or corrupt.

    `root` is the table's directory, whose record names the extractor; `store` is the directory of the store.
    StoreError if the new extractor differs from the one that computed the table's rows.
    """
    known = committed = look_up(root, store, extractor_format)
    if known is None or not known.is_intact():
        _log.info("Building extractor %s with weights %s.", table_config.extractor, table_config.weights)
        data, shape = (build_graph if extractor_format == "pb" else _build_model)(table_config, extractor)
        sha256 = hashlib.sha256(data).hexdigest()
        known = committed or _open(ExtractorRecord(sha256, extractor_format, shape), store)
        if sha256 != known.sha256:
            raise StoreError(
                "the stored extractor is corrupt or missing, and a new one differs: "
                f"expected SHA-256 {known.sha256}, got {sha256}",
                location=str(known.path),
                hint="Restore the file, or use the TensorFlow and Keras versions that `capt store stats` shows.",
            )
        write(known.path, data)
        if committed:
            _log.warning("%s: the stored extractor was corrupt or missing. It is built again.", known.path)
    restore_record(root, known)
    return known


def find_frozen_extractor(root: Path, store: Path, extractor_format: ExtractorFormat) -> FrozenExtractor | None:
    """Returns the extractor of the table in `root` in a format if it exists and is intact. Writes nothing."""
    known = look_up(root, store, extractor_format)
    return known if known and known.is_intact() else None


def find_damaged_extractors(root: Path, store: Path, suspect: Collection[str] = ()) -> list[FrozenExtractor]:
    """Returns the extractors of a table whose files need repair, and the last one if the table's record does.

    The table's commits may use several formats. Verifies checksums of `suspect` files.
    """
    known = _list_known(root, store)
    unrecorded = known[:1] if _read_record(root, store) not in known else []
    damaged = [one for one in known if not one.path.is_file() or (one.path.name in suspect and not one.is_intact())]
    return damaged or unrecorded


def look_up(root: Path, store: Path, extractor_format: ExtractorFormat) -> FrozenExtractor | None:
    """Returns the last extractor of a table in a format."""
    recorded = _read_record(root, store)
    candidates = [*_list_known(root, store), *([recorded] if recorded else [])]
    return next((one for one in candidates if one.format == extractor_format), None)


def is_committed(root: Path, store: Path, extractor: FrozenExtractor) -> bool:
    """Returns whether a commit of the table names an extractor, so that rows of the table depend on it."""
    return extractor in _list_committed(root, store)


def restore_record(root: Path, extractor: FrozenExtractor) -> None:
    """Records a table's extractor, unless it is recorded."""
    path, record = root / EXTRACTOR_RECORD, extractor.record.encode()
    if not path.is_file() or path.read_bytes() != record:
        write(path, record)


def _list_known(root: Path, store: Path) -> list[FrozenExtractor]:
    """Returns the extractors that the table's commits name, the last one first; without any, the recorded one."""
    recorded = _read_record(root, store)
    return _list_committed(root, store) or ([recorded] if recorded else [])


def _list_committed(root: Path, store: Path) -> list[FrozenExtractor]:
    """Returns the extractors that the table's commits name, the last one first."""
    facts = [manifest.facts for manifest in reversed(CommitLog(root).read_state().live)]
    named = [
        ExtractorRecord(one.network, one.network_format, one.shape)
        for one in facts
        if isinstance(one, FeatureMetadata) and one.network
    ]
    return [_open(record, store) for record in dict.fromkeys(named)]


def _read_record(root: Path, store: Path) -> FrozenExtractor | None:
    """Returns the recorded extractor; None without a valid record."""
    try:
        return _open(ExtractorRecord.parse((root / EXTRACTOR_RECORD).read_bytes()), store)
    except (FileNotFoundError, ValueError):
        return None


def _open(record: ExtractorRecord, store: Path) -> FrozenExtractor:
    return FrozenExtractor(record.path(store), record.sha256, record.shape, record.format)


def build_graph(table_config: FeatureTableConfig, extractor: Extractor) -> tuple[bytes, tuple[int, ...]]:
    """Builds the frozen graph of an extractor, and returns it and the shape of one image's features."""
    graph, shape = _build(table_config, extractor)
    gc.collect()  # Keras models and traced graphs are reference cycles that contain their weights several times.
    return graph, shape


def _build(table_config: FeatureTableConfig, extractor: Extractor) -> tuple[bytes, tuple[int, ...]]:
    """Returns the frozen graph, and the shape of one image's features."""
    from features.runtime.keras_backend import VARIABLE
    from features.runtime.keras_settings import keras

    if table_config.extractor != PIXELS and keras.backend.backend() != "tensorflow":
        message = f"the table's extractor is a frozen graph of TensorFlow, not of {keras.backend.backend()}"
        raise UsageError(message, location=VARIABLE, hint="Use --backend tensorflow.")
    function = extractor.build_function(table_config)
    graph = freeze(function, table_config.height, table_config.width, Resizer.from_table_config(table_config).dtype)
    return graph, FrozenGraph(graph, table_config.precision).shape


def _build_model(table_config: FeatureTableConfig, extractor: Extractor) -> tuple[bytes, tuple[int, ...]]:
    """Returns the `.keras` file, and the shape of one image's features. That of pixels has no layers."""
    from features.extractors.keras_file import encode_model
    from features.runtime.keras_settings import keras

    function = extractor.build_function(table_config)
    if isinstance(function, ModelFunction):
        return encode_model(function.model), function.shape
    pixels = keras.Input((table_config.height, table_config.width, 3), name=PIXELS)
    return encode_model(keras.Model(pixels, pixels)), tuple(pixels.shape[1:])
