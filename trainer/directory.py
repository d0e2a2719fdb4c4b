"""The run directory: all that a trained captioner needs, after the store it was trained from has moved.

R/run.json          what it was trained on and how: `RunRecord`
R/vocabulary.txt    one word a line, line number = id
R/transform/        the saved graph that tokenizes captions
R/network.pb        the frozen network that makes features of images, or their pixels
R/extractor.json    the layers of the extractor that is in the model, where it learned from pixels
R/checkpoints/      weights, see `trainer.checkpoints`
R/metrics.jsonl     one line an epoch;  R/loss.png the same as a picture;  R/logs/ the same for TensorBoard
R/store.txt         where the store was, for `capt evaluate`; nothing else needs it
R/evaluation/       what `capt evaluate` found, by split
"""

import fcntl
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from features.files import ASIDE, aside_of, sha256_of, write
from features.vocabulary import write_vocabulary
from schemas.errors import CaptError, DamagedError, ExitStatus, StoreError, UsageError
from schemas.manifests import Sha256
from schemas.recipes import FeatureRecipe, Frozen, TextRecipe
from trainer.config import TrainingConfig
from trainer.model_configs import ModelConfig
from trainer.models import model_spec
from trainer.tables import Tables

if TYPE_CHECKING:
    from trainer.captioner import Captioner
    from trainer.pixels import PixelNetwork

RECORD = "run.json"
VOCABULARY = "vocabulary.txt"
TRANSFORM = "transform"
NETWORK = "network.pb"
EXTRACTOR = "extractor.json"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
LOSS_PLOT = "loss.png"
LOGS = "logs"
EVALUATION = "evaluation"
_STORE = "store.txt"
_LOCK = ".lock"

# What may change when a run goes on: how long it trains and how often it saves do not change what it has learned, and
# an extractor is known by what its features are, wherever its file lies.
_HOW_LONG = ("epochs", "checkpoint_every", "show_captions", "stop_after")
_WHERE_FROM = ("extractor", "extractor_weights", "extractor_layer", "extractor_preprocess")
_MAY_CHANGE: Any = {"training": {*_HOW_LONG, *_WHERE_FROM}, "libraries": True}
_WORDS = {
    "train": "the train split's images and captions, by digest",
    "validation": "the validation split's images and captions, by digest",
}


class LockedError(CaptError):
    """Another process is training in the run directory."""

    status = ExitStatus.LOCKED


class FeatureOrigin(Frozen):
    """The feature table that a run was trained on."""

    fingerprint: Sha256
    recipe: FeatureRecipe
    shape: tuple[int, ...]
    network: Sha256


class ExtractorOrigin(Frozen):
    """The extractor in the model of a run on pixels: what its features are, and the shape of one image's."""

    recipe: FeatureRecipe
    shape: tuple[int, ...]


class TextOrigin(Frozen):
    """A text table that a run was trained on."""

    fingerprint: Sha256
    recipe: TextRecipe


class RunRecord(Frozen):
    """What a run is: run.json.

    Args:
        model: str. Name of the model.
        sizes: dict. Its configuration.
        training: TrainingConfig. How it is trained.
        datasets: tuple of str. Names in the store.
        features: FeatureOrigin. The feature table.
        text: tuple of TextOrigin. The text table of each dataset.
        train, validation: Sha256. Digests of the captions and images trained and validated on.
        validation_split: str or None. The split validated on.
        vocabulary: int. Number of word ids.
        max_words: int. Words at most in a caption it makes.
        libraries: dict. Versions that it was begun with.
        extractor: ExtractorOrigin or None. The extractor in the model, where `features` are pixels.
    """

    version: Literal[1] = 1
    task: Literal["captioner"] = "captioner"
    model: str
    sizes: dict[str, Any]
    training: TrainingConfig
    datasets: tuple[str, ...]
    features: FeatureOrigin
    text: tuple[TextOrigin, ...]
    train: Sha256
    validation: Sha256 | None
    validation_split: str | None
    vocabulary: int = Field(ge=4)
    max_words: int = Field(ge=1)
    libraries: dict[str, str]
    extractor: ExtractorOrigin | None = None

    @property
    def config(self) -> ModelConfig:
        """The model's configuration, typed."""
        return model_spec(self.model).config(**self.sizes)

    def build(self, root: Path) -> "Captioner":
        """The model, with fresh weights.

        Args:
            root: Path. The run directory.
        """
        spec = model_spec(self.model)
        if self.extractor is None:
            return spec.build(self.config, self.vocabulary, self.features.shape)
        from trainer.pixels import load_layers

        layers = load_layers(root / EXTRACTOR, self.extractor.recipe, learns=self.training.fine_tuning > 0)
        return spec.build(self.config, self.vocabulary, self.extractor.shape, layers)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that training depends on."""
    return {name: importlib.metadata.version(name) for name in ("keras", "numpy", "tensorflow")}


def begin_run(root: Path, record: RunRecord, tables: Tables, extractor: "PixelNetwork | None" = None) -> RunRecord:
    """Make the run directory, or find that it holds the same run already.

    Args:
        root: Path. The run directory; new, empty, or of the same run.
        record: RunRecord. What is to be trained.
        tables: Tables. Where vocabulary, transform and network are copied from.
        extractor: PixelNetwork or None. The network in the model, where it learns from pixels.

    Returns:
        The record as it now stands in run.json.

    Raises:
        StoreError: the directory holds another run, or something else.
    """
    path = root / RECORD
    if path.exists():
        _refuse_other(read_record(root), record, root)
    else:
        _refuse_foreign(root)
        text = tables.texts[0]
        write_vocabulary(root / VOCABULARY, text.vocabulary())
        _copy_tree(text.transform_path, root / TRANSFORM)
        _link(tables.features.network_path, root / NETWORK, record.features.network)
        if extractor:
            write(root / EXTRACTOR, extractor.layers)
    write(path, record.model_dump_json(indent=1).encode() + b"\n")
    return record


def read_record(root: Path) -> RunRecord:
    """What run.json says; StoreError where there is none or it cannot be used."""
    path = root / RECORD
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(
            "no run is here", where=str(root), mend="make one with `capt train captioner --run-dir …`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(f"not a run that this capt reads: {place}: {first['msg']}", where=str(path)) from None


def note_store(root: Path, store: Path) -> None:
    """Note in a run directory which store it was trained from."""
    write(root / _STORE, f"{store}\n".encode())


def noted_store(root: Path) -> Path:
    """The store that a run was trained from; UsageError where it is not known, or not there any more."""
    mend = "name the store with --store"
    try:
        store = Path((root / _STORE).read_text(encoding="utf-8").rstrip("\n"))
    except FileNotFoundError:
        raise UsageError("the run does not say which store it was trained from", where=str(root), mend=mend) from None
    if not store.is_dir():
        raise UsageError(f"the store that it was trained from is not at {store} any more", where=str(root), mend=mend)
    return store


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a run directory for training; LockedError where another process does. The lock ends with the process."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError("another process is training here", where=str(root), mend="wait for it") from None
        yield


def _refuse_other(old: RunRecord, new: RunRecord, root: Path) -> None:
    differences = list(_differences(_identity(old), _identity(new)))
    if differences:
        name, expected, got = differences[0]
        raise StoreError(
            f"the directory holds another run: {_WORDS.get(name, name)}: expected {expected}, got {got}",
            where=str(root),
            mend="train with the settings and data it was begun with, or into another --run-dir",
        )


def _identity(record: RunRecord) -> dict[str, Any]:
    identity = record.model_dump(mode="json", exclude=_MAY_CHANGE)
    if record.training.schedule == "cosine":
        # The rate at a step depends on how many there are.
        identity["training"]["epochs"] = record.training.epochs
    return identity


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def _refuse_foreign(root: Path) -> None:
    ours = {VOCABULARY, TRANSFORM, NETWORK, EXTRACTOR, _LOCK}
    foreign = [path.name for path in root.iterdir() if path.name not in ours and not path.name.startswith(ASIDE)]
    if foreign:
        raise StoreError(
            f"the directory is not empty and no run: it holds {sorted(foreign)[0]}",
            where=str(root),
            mend="name a new --run-dir",
        )


def _copy_tree(source: Path, target: Path) -> None:
    aside = aside_of(target)
    shutil.copytree(source, aside)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def _link(source: Path, target: Path, sha256: str) -> None:
    if not source.exists() or sha256_of(source) != sha256:
        raise DamagedError(
            f"the frozen network is missing or damaged: expected SHA-256 {sha256}",
            where=str(source),
            mend="run the same `capt prepare features` again",
        )
    aside = aside_of(target)
    try:
        # The store never changes a network in place, so one copy on the disk serves both.
        os.link(source, aside)
    except OSError:
        shutil.copyfile(source, aside)
    aside.replace(target)
