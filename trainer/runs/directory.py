"""The run directory: all that a trained model needs, after the store it was trained from has moved.

R/run.json          what it was trained on and how: `trainer.runs.metadata`
R/network.pb        the frozen network that makes features of images, or their pixels
R/vocabulary.txt    of a captioner: one word a line, line number = id
R/transform/        of a captioner: the saved graph that tokenizes captions
R/extractor.json    of a captioner on pixels: the layers of the extractor that is in the model
R/words.txt         of a recognizer: the words of the train split, one a line, by alphabet
R/learned.keys      the images that it learned from: `trainer.runs.training_images`
R/checkpoints/      weights, see `trainer.training.checkpoints`
R/metrics.jsonl     one line an epoch;  R/loss.png the same as a picture;  R/logs/ the same for TensorBoard
R/store.txt         where the store was, for `capt evaluate`; nothing else needs it
R/evaluation/       what `capt evaluate` found, by split
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.io.atomic_files import (
    TEMP_PREFIX,
    hash_file,
    replace_atomically,
    replace_tree_atomically,
    temporary_path,
    write,
)
from features.io.locations import parse_location
from features.io.locks import hold_lock
from features.store import FeatureTable
from features.text.vocabulary import write_vocabulary
from schemas.errors import CorruptFileError, StoreError, UsageError
from trainer.data.table_selection import TrainingTables
from trainer.runs.metadata import EXTRACTOR, RECORD, RunMetadata, refuse_other, write_metadata
from trainer.runs.training_images import TRAINING_IMAGES, write_training_images

if TYPE_CHECKING:
    from trainer.models.backbone import Backbone

VOCABULARY = "vocabulary.txt"
TRANSFORM = "transform"
WORDS = "words.txt"
NETWORK = "network.pb"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
LOSS_PLOT = "loss.png"
LOGS = "logs"
EVALUATION = "evaluation"
_STORE = "store.txt"
_LOCK = ".lock"


def start_run(root: Path, record: RunMetadata, fill: Callable[[], None]) -> None:
    """Make the run directory, or find that it holds the same run already.

    Args:
        root: Path. The run directory; new, empty, or of the same run.
        record: RunMetadata. What is to be trained.
        fill: function. Puts into a new directory what the run needs besides.

    Raises:
        StoreError: the directory holds another run, or something else.
    """
    if (root / RECORD).exists():
        refuse_other(root, record)
    else:
        _refuse_foreign(root)
        fill()
    write_metadata(root, record)


def put_captioner(root: Path, tables: TrainingTables, extractor: "Backbone | None", learned: NDArray[np.uint8]) -> None:
    """Put into a run directory what a captioner needs besides its weights.

    Args:
        root: Path. The run directory.
        tables: Tables. Where vocabulary, transform and network are copied from.
        extractor: Backbone or None. The network in the model, where it learns from pixels.
        learned: uint8 array [N, 32]. The content keys of the images that it learns from.
    """
    text = tables.texts[0]
    write_vocabulary(root / VOCABULARY, text.vocabulary())
    _copy_tree(text.transform_path, root / TRANSFORM)
    put_network(root, tables.features)
    write_training_images(root, learned)
    if extractor:
        write(root / EXTRACTOR, extractor.layers)


def put_recognizer(root: Path, features: FeatureTable, words: Sequence[str], learned: NDArray[np.uint8]) -> None:
    """Put into a run directory what a recognizer of words needs besides its weights.

    Args:
        root: Path. The run directory.
        features: FeatureTable. The table of pixels.
        words: sequence of str. Those of the train split.
        learned: uint8 array [N, 32]. The content keys of the images that it learns from.
    """
    write(root / WORDS, "".join(f"{word}\n" for word in sorted(set(words))).encode())
    write_training_images(root, learned)
    put_network(root, features)


def put_network(root: Path, features: FeatureTable) -> None:
    """Put into a run directory the frozen network that made its features."""
    _link(features.extractor_path, root / NETWORK, features.facts.network)


def record_store(root: Path, store: Path) -> None:
    """Note in a run directory which store it was trained from."""
    write(root / _STORE, f"{store}\n".encode())


def recorded_store(root: Path) -> Path:
    """The store that a run was trained from; UsageError where it is not known, or not there any more."""
    hint = "name the store with --store"
    try:
        store = parse_location((root / _STORE).read_text(encoding="utf-8").rstrip("\n"))
    except (FileNotFoundError, UnicodeDecodeError):
        raise UsageError(
            "the run does not say which store it was trained from", location=str(root), hint=hint
        ) from None
    if not store.is_dir():
        raise UsageError(
            f"the store that it was trained from is not at {store} any more", location=str(root), hint=hint
        )
    return store


def lock_run(root: Path) -> AbstractContextManager[None]:
    """Hold a run directory for training; LockedError where another process does. The lock ends with the process."""
    return hold_lock(root / _LOCK, "training here")


def _refuse_foreign(root: Path) -> None:
    ours = {VOCABULARY, TRANSFORM, NETWORK, EXTRACTOR, WORDS, TRAINING_IMAGES, _LOCK}
    foreign = [path.name for path in root.iterdir() if path.name not in ours and not path.name.startswith(TEMP_PREFIX)]
    if foreign:
        raise StoreError(
            f"the directory is not empty and no run: it holds {sorted(foreign)[0]}",
            location=str(root),
            hint="name a new --run-dir",
        )


def _copy_tree(source: Path, target: Path) -> None:
    temporary = temporary_path(target)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)
    replace_tree_atomically(temporary, target)


def _link(source: Path, target: Path, sha256: str) -> None:
    if not source.exists() or hash_file(source) != sha256:
        raise CorruptFileError(
            f"the frozen network is missing or damaged: expected SHA-256 {sha256}",
            location=str(source),
            hint="run the same `capt prepare features` again",
        )
    temporary = temporary_path(target)
    try:
        # The store never changes a network in place, so one copy on the disk serves both.
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    replace_atomically(temporary, target)
