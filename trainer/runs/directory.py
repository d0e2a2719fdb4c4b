"""Reads and writes the run directory, which contains everything that a trained model needs without its store.

RUN/run.json          model, hyperparameters and data: `trainer.runs.metadata`
RUN/network.pb        the frozen extractor, or the graph that resizes images to pixels; none for imported features
RUN/network.openvino  instead of network.pb: the extractor quantized to int8, if the table was computed in int8
RUN/network.keras     instead of network.pb: the extractor as a Keras model, if JAX, PyTorch or a GPU computed the table
RUN/vocabulary.txt    captioner: one token per line, line number = token ID
RUN/transform/        captioner: the saved graph that tokenizes captions
RUN/model.py          the file of a model of one's own, which the commands run
RUN/extractor.json    captioner that reads pixels: the layers of the extractor inside the model
RUN/words.txt         recognizer: the labels of the train split, one per line, sorted
RUN/learned.keys      content hashes of the training images, also of those of a warm start
RUN/checkpoints/      weights: `trainer.runs.checkpoints`
RUN/metrics.jsonl     one line per epoch; RUN/loss.png shows them, RUN/logs/ has them for TensorBoard
RUN/machine.json      the machine of the last training command
RUN/store.txt         location of the store, for `capt evaluate` only
RUN/evaluation/       results of `capt evaluate` by split, and by epoch with --epoch
RUN/learning_curve/   runs on fractions of the train split, and the learning curve: `trainer.tasks.learning_curve`
RUN/report.html       the page of `capt report`
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.io.atomic_files import hash_file, replace_atomically, replace_tree_atomically, temporary_path, write
from features.io.locations import parse_location
from features.io.locks import hold_lock
from features.io.temporary_names import TEMP_PREFIX
from features.store import FeatureTable
from schemas.choices import ExtractorFormat
from schemas.errors import CorruptFileError, StoreError, UsageError
from schemas.tables import KEY_BYTES
from trainer.models.custom_models import MODEL_FILE
from trainer.runs.metadata import EXTRACTOR, METADATA, RunMetadata, check_same_run, read_metadata

VOCABULARY = "vocabulary.txt"
TRANSFORM = "transform"
LABELS = "words.txt"
FROZEN_EXTRACTOR = "network.pb"
EXTRACTOR_MODEL = "network.keras"
QUANTIZED_EXTRACTOR = "network.openvino"
_EXTRACTORS: dict[ExtractorFormat, str] = {
    "pb": FROZEN_EXTRACTOR,
    "keras": EXTRACTOR_MODEL,
    "openvino": QUANTIZED_EXTRACTOR,
}
TRAINING_IMAGES = "learned.keys"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
LOSS_PLOT = "loss.png"
LOGS = "logs"
MACHINE = "machine.json"
EVALUATION = "evaluation"
LEARNING_CURVE = "learning_curve"
LEARNING_CURVE_RESULT = "learning_curve.json"
LEARNING_CURVE_FIGURE = "learning_curve.png"
REPORT = "report.html"
_STORE = "store.txt"
LOCK = ".lock"
# Files that exist before run.json does.
_EARLY_FILES = {
    VOCABULARY,
    TRANSFORM,
    FROZEN_EXTRACTOR,
    EXTRACTOR_MODEL,
    QUANTIZED_EXTRACTOR,
    EXTRACTOR,
    MODEL_FILE,
    LABELS,
    TRAINING_IMAGES,
    LOCK,
}


def start_run(root: Path, metadata: RunMetadata, store: Path, write_files: Callable[[], None]) -> None:
    """Creates a run directory, or checks that it contains the same run; StoreError if it contains anything else.

    `write_files` writes the files that the run needs besides its metadata and the location of the store.
    """
    if (root / METADATA).exists():
        check_same_run(root, metadata)
        metadata = metadata.resume(read_metadata(root))
    else:
        names = sorted(path.name for path in root.iterdir())
        others = [name for name in names if name not in _EARLY_FILES and not name.startswith(TEMP_PREFIX)]
        if others:
            problem = f"the directory is not a run and not empty: it contains {others[0]}"
            raise StoreError(problem, location=str(root), hint="Choose a new --run-dir.")
        write_files()
    write_metadata(root, metadata)
    write(root / _STORE, f"{store}\n".encode())


def write_metadata(root: Path, metadata: RunMetadata) -> None:
    """Writes run.json."""
    write(root / METADATA, metadata.model_dump_json(indent=1).encode() + b"\n")


def copy_frozen_extractor(root: Path, features: FeatureTable) -> None:
    """Copies the stored extractor of a feature table, if it has one, to the run directory."""
    sha256 = features.facts.network
    if sha256 is None:
        return
    source, target = features.extractor_path, root / _EXTRACTORS[features.facts.network_format]
    if not source.exists() or hash_file(source) != sha256:
        raise CorruptFileError(
            f"the stored extractor is missing or corrupt: expected SHA-256 {sha256}",
            location=str(source),
            hint="Run the same `capt prepare features` again.",
        )
    temporary = temporary_path(target)
    try:
        # The store never changes an extractor in place, so a hard link saves the disk space.
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    replace_atomically(temporary, target)
    for name in set(_EXTRACTORS.values()) - {target.name}:
        (root / name).unlink(missing_ok=True)


def locate_extractor(root: Path) -> Path:
    """Returns the path of the extractor in a run directory; that of a missing one is `network.pb`."""
    return next((path for name in _EXTRACTORS.values() if (path := root / name).is_file()), root / FROZEN_EXTRACTOR)


def copy_tree(source: Path, target: Path) -> None:
    """Copies a directory; the copy appears atomically."""
    temporary = temporary_path(target)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)
    replace_tree_atomically(temporary, target)


def write_training_images(root: Path, keys: NDArray[np.uint8]) -> None:
    """Writes the content hashes uint8 [N, 32] of the training images, sorted and without duplicates."""
    write(root / TRAINING_IMAGES, np.unique(keys, axis=0).tobytes())


def read_training_images(root: Path) -> NDArray[np.uint8]:
    """Reads the content hashes of the training images, uint8 [N, 32]; CorruptFileError if missing or truncated."""
    path = root / TRAINING_IMAGES
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptFileError("the list of training images is missing", location=str(path)) from None
    if not data or len(data) % KEY_BYTES:
        message = f"the list of training images is corrupt: {len(data)} bytes are not a multiple of {KEY_BYTES}"
        raise CorruptFileError(message, location=str(path))
    return np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)


def recorded_store(root: Path) -> Path:
    """Returns the store that a run was trained from; UsageError if it is unknown or has moved."""
    hint = "Set --store to its location."
    try:
        store = parse_location((root / _STORE).read_text(encoding="utf-8").rstrip("\n"))
    except (FileNotFoundError, UnicodeDecodeError):
        raise UsageError("the run does not record its store", location=str(root), hint=hint) from None
    if not store.is_dir():
        raise UsageError(f"the store of the run is not at {store} any more", location=str(root), hint=hint)
    return store


def lock_run(root: Path) -> AbstractContextManager[None]:
    """Locks a run directory for training until the context or the process ends; LockedError if it is locked."""
    return hold_lock(root / LOCK, "training here")
