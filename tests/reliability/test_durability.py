"""What a record names is on the disk before the record is: a power loss leaves no commit without its files.

A recorder notes what each `fsync` made durable: of a file its bytes, of a directory its entries. At the moment a record
becomes visible, every file that it names must be as it was when it was synced, and so must each entry on the way to it.
"""

import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import capt
from features.io.atomic_files import make_directory, replace_tree_atomically, write
from features.io.temporary_names import TEMP_PREFIX, is_temporary
from features.store import Store
from features.store.compaction import compact_table
from schemas.errors import CaptError, ExitCode
from tests.features.store.stores import add_captions, add_dataset, add_features, feature_config, new_store
from tests.reliability.test_paths import save_network
from tests.trainer.conftest import make_store, pictures
from tests.workflows.test_model_registry import facts, put_run, run_name
from workflows.model_registry import RegisteredModel

PIXELS: dict[str, Any] = {"extractor": "pixels", "height": 8, "width": 8}
SIZES = {
    "embedding_dim": 8,
    "units": 8,
    "attention_dim": 8,
    "projection_dim": 8,
    "output_dim": 8,
    "batch_size": 8,
    "num_sample_captions": 0,
}

Inode = tuple[int, int]


class Disk:
    """What would be left below a directory after a power loss.

    Args:
        root: The directory. What is in it already is durable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records = 0
        self._contents: dict[Inode, tuple[int, int]] = {}
        self._entries: dict[Inode, dict[str, int]] = {}
        self._lock = threading.Lock()
        for path in (root, *root.rglob("*")):
            self._synced(path)

    def sync(self, descriptor: int) -> None:
        """Notes what an `fsync` of an open file or directory makes durable."""
        self._synced(descriptor)

    def _synced(self, place: Path | int) -> None:
        found = os.stat(place)  # noqa: PTH116
        inode = (found.st_dev, found.st_ino)
        with self._lock:
            if stat.S_ISDIR(found.st_mode):
                with os.scandir(place) as entries:
                    self._entries[inode] = {entry.name: entry.inode() for entry in entries}
            else:
                self._contents[inode] = (found.st_size, found.st_mtime_ns)

    def lost(self, files: Iterable[Path]) -> list[str]:
        """Returns the files and directory entries that a power loss could take now."""
        missing = []
        for file in files:
            found = file.stat()
            if self._contents.get((found.st_dev, found.st_ino)) != (found.st_size, found.st_mtime_ns):
                missing.append(f"the bytes of {file.relative_to(self.root)}")
            for path in (file, *file.parents):
                if path == self.root:
                    break
                if is_temporary(path):  # It gets its name by what follows.
                    continue
                above = path.parent.stat()
                if self._entries.get((above.st_dev, above.st_ino), {}).get(path.name) != path.stat().st_ino:
                    missing.append(f"the entry of {path.relative_to(self.root)}")
        return sorted(set(missing))

    def check(self, files: Iterable[Path]) -> None:
        """Fails if a power loss could take a file now."""
        assert self.lost(files) == []
        self.records += 1


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk below `tmp_path`, checked whenever a record becomes visible, and the logs at the end."""
    disk = Disk(tmp_path)
    real_fsync, real_link, real_replace = os.fsync, os.link, os.replace

    def fsync(descriptor: Any) -> None:
        real_fsync(descriptor)
        disk.sync(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    def link(source: Any, target: Any, **options: Any) -> None:
        if Path(target).parent.name == "log":
            disk.check(named_by_commit(Path(source), Path(target)))
        real_link(source, target, **options)

    def replace(source: Any, target: Any, **options: Any) -> None:
        for name, named in NAMED_BY_RECORD.items():
            if Path(target).match(name) and disk.root in Path(target).parents:
                disk.check([Path(source), *named(Path(source), Path(target))])
        real_replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "replace", replace)
    yield disk
    disk.check(tmp_path.rglob("log/*.json"))


def named_by_commit(entry: Path, target: Path) -> list[Path]:
    """The manifest that a log entry names, and all that the manifest names."""
    table = target.parents[1]
    path = table / "manifests" / f"{json.loads(entry.read_bytes())['manifest']}.json"
    manifest = json.loads(path.read_bytes())
    entries = [*manifest["files"].values()]
    entries += [shard[part] for shard in manifest["shards"] for part in ("data", "index") if shard.get(part)]
    network = manifest["facts"].get("network")
    networks = [table.parents[1] / "networks" / f"{network}.pb"] if network else []
    table_config = [table / "recipe.json"] if (table / "recipe.json").exists() else []
    return [entry, path, *table_config, *networks, *(table / one["path"] for one in entries)]


def run_files(run: Path) -> list[Path]:
    """The files of a run directory, without what only people look at and what is being written."""
    paths = [path for path in run.rglob("*") if path.is_file()]
    paths = [path for path in paths if not {"logs", ".lock"} & set(path.relative_to(run).parts)]
    return [path for path in paths if not any(part.startswith(TEMP_PREFIX) for part in path.parts)]


def of_state(source: Path, target: Path) -> list[Path]:
    state = json.loads(source.read_bytes())
    return [path for name in {state["last"], state["best"]} for path in (target.parent / name).iterdir()]


NAMED_BY_RECORD: dict[str, Callable[[Path, Path], list[Path]]] = {
    "run.json": lambda source, target: [path for path in run_files(target.parent) if path.name != "run.json"],
    "state.json": of_state,
    "results/*.json": lambda source, target: [
        path for run in target.parents[1].glob("runs/*") for path in run_files(run)
    ],
}


# === Commands ===


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Captions of twelve images `N.jpg`."""
    rows = [
        {"image": f"{number:012d}.jpg", "captions": [f"a thing {number}"], "split": "train"} for number in range(12)
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_no_commit_of_a_preparation_is_visible_before_its_files_are_durable(
    tmp_path: Path, photos: Any, captions: Path, disk: Disk
) -> None:
    store = str(tmp_path / "new" / "store")
    source = {"dataset_type": "jsonl", "annotations": [str(captions)]}
    images = [str(photos(12))]
    assert capt.prepare_features(store=store, images=images, num_shards=2, **source, **PIXELS)["ok"] == 12
    assert disk.records == 2  # the features' commit and the dataset's
    assert capt.prepare_captions(store=store, **source)["ok"] == 12
    assert disk.records == 3
    photos(4, "more", 20)
    more = {"dataset_type": "folder", "dataset_name": "more", "images": [str(tmp_path / "more")]}
    assert capt.prepare_features(store=store, **more, **PIXELS)["ok"] == 4
    assert disk.records == 5
    assert capt.store_compact(store=store)["merged"] == 2
    assert disk.records == 6


def test_no_repair_is_visible_before_its_files_are_durable(
    tmp_path: Path, photos: Any, captions: Path, disk: Disk
) -> None:
    store = tmp_path / "store"
    source = {"dataset_type": "jsonl", "images": [str(photos(12))], "annotations": [str(captions)]}
    capt.prepare_features(store=str(store), num_shards=2, **source, **PIXELS)
    shard = sorted(store.glob("features/*/*/*.tfrecord"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    sorted(store.glob("features/*/*/*.index"))[1].unlink()
    next(store.glob("networks/*.pb")).write_bytes(b"damaged")
    records = disk.records
    with pytest.raises(CaptError) as damaged:
        capt.store_verify(store=str(store))
    assert damaged.value.exit_code == ExitCode.CORRUPT
    capt.prepare_features(store=str(store), num_shards=2, **source, **PIXELS)
    assert disk.records > records
    assert capt.store_verify(store=str(store))["damaged"] == []


def test_no_commit_of_a_dataset_or_table_is_visible_before_its_files_are_durable(tmp_path: Path, disk: Disk) -> None:
    store = new_store(tmp_path / "new" / "store")
    table_config = feature_config()
    add_features(store, table_config, range(4), shards=2)
    add_features(store, table_config, range(4, 8), failed=[9])
    add_dataset(store, "photos", range(8))
    add_captions(store, "photos", range(8))
    compact_table(store, table_config.fingerprint)
    capt.store_drop(store=str(store.path), dataset="photos")
    assert disk.records >= 6


def test_a_champions_files_are_durable_before_it_is_promoted(tmp_path: Path, disk: Disk) -> None:
    store = new_store(tmp_path / "store")
    model = RegisteredModel(store, "shapes")
    for number in (1, 2):
        put_run(model, number)
        model.promote(facts("promoted", number, number))
    capt.models_promote(store=str(store.path), run=run_name(1))
    capt.models_rollback(store=str(store.path))
    assert disk.records == 4


def test_directories_that_a_killed_writer_left_unsynced_are_durable_before_a_commit(tmp_path: Path, disk: Disk) -> None:
    store, elsewhere = new_store(tmp_path / "store"), new_store(tmp_path / "elsewhere")
    add_features(elsewhere, feature_config(), range(4), shards=2)
    for path in elsewhere.path.rglob("*"):
        if path.is_dir():
            (store.path / path.relative_to(elsewhere.path)).mkdir(parents=True, exist_ok=True)
    records = disk.records
    add_features(store, feature_config(), range(4), shards=2)
    assert disk.records == records + 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store", pictures())


def test_a_runs_files_are_durable_before_a_record_names_them(tmp_path: Path, store: Store, disk: Disk) -> None:
    records = disk.records
    run = tmp_path / "new" / "run"
    capt.train_captioner(store=str(store.path), run_dir=str(run), epochs=2, hyperparameters=SIZES)
    assert disk.records >= records + 3  # run.json and a state per epoch
    disk.check(run_files(run))
    capt.export(run=str(run), out=str(tmp_path / "new" / "served"))
    disk.check(path for path in (tmp_path / "new" / "served").rglob("*") if path.is_file())


@pytest.mark.slow
def test_the_records_of_experiments_and_models_name_durable_files(
    tmp_path: Path, photos: Any, captions: Path, disk: Disk
) -> None:
    network = {"extractor": f"custom:{save_network(tmp_path / 'network.keras')}", "precision": "float32"}
    source = {
        "dataset_type": "jsonl",
        "images": [str(photos(12))],
        "annotations": [str(captions)],
        "split_ratios": "0.5,0.25,0.25",
    }
    experiment = {
        "store": str(tmp_path / "store"),
        "output_dir": str(tmp_path / "new" / "experiment"),
        "data": source,
        "features": {"pooled": {**network, "pooling": "avg"}},
        "captions": {"words": None},
        "models": {"merge": {"model": "merge", "embedding_dim": 8, "units": 8}},
        "train": {"epochs": 1, "batch_size": 8, "num_sample_captions": 0},
        "evaluate": {"split": "val", "num_examples": 0},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    assert capt.experiment_run(file=str(tmp_path / "experiment.yaml"))["failed_trials"] == []
    records = disk.records
    retraining = {
        "store": str(tmp_path / "new" / "models"),
        "name": "shapes",
        "data": [{**source, "dataset_name": "photos"}],
        "features": network,
        "train": {"model": "soft_attention", **SIZES, "epochs": 1},
    }
    (tmp_path / "retrain.yaml").write_text(yaml.safe_dump(retraining))
    assert capt.retrain(file=str(tmp_path / "retrain.yaml"))["decision"] == "promoted"
    assert disk.records > records


# === Parts ===


def test_a_new_directory_and_those_above_it_are_durable(tmp_path: Path, disk: Disk) -> None:
    make_directory(tmp_path / "a" / "b" / "c")
    write(tmp_path / "a" / "b" / "c" / "file", b"text")
    write(tmp_path / "d" / "e" / "file", b"text")
    disk.check([tmp_path / "a" / "b" / "c" / "file", tmp_path / "d" / "e" / "file"])
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "d" / "e" / "file")


def test_a_published_directory_is_durable_with_all_that_is_in_it(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "aside" / "inner").mkdir(parents=True)
    (tmp_path / "aside" / "inner" / "file").write_text("text")
    replace_tree_atomically(tmp_path / "aside", tmp_path / "made")
    disk.check([tmp_path / "made" / "inner" / "file"])


def test_the_recorder_finds_what_is_not_synced(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("text")
    assert disk.lost([tmp_path / "a" / "file"]) == ["the bytes of a/file", "the entry of a", "the entry of a/file"]
