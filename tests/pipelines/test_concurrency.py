"""Two runs on one store at once lose nothing, show no row twice and both succeed."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.io.locks import wait_for_lock
from tests.commands import CommandServer, ForkedProcess
from tests.conftest import noise_image

SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7", "dataset_type": "folder"}


def start(commands: CommandServer, output: Path, function: str, **options: Any) -> ForkedProcess:
    program = f"import capt, json; print(json.dumps(capt.{function}(**{options!r})))"
    return commands.start(None, program=program, stdout=output, stderr=output.with_suffix(".log"))


def run_both(commands: CommandServer, directory: Path, function: str, *each: dict[str, Any]) -> list[dict[str, Any]]:
    """The summaries of runs that are started at the same moment."""
    outputs = [directory / f"output-{number}" for number in range(len(each))]
    processes = [start(commands, output, function, **options) for output, options in zip(outputs, each, strict=True)]
    for process, output in zip(processes, outputs, strict=True):
        assert process.wait() == 0, output.with_suffix(".log").read_text(errors="replace")
    return [json.loads(output.read_text().splitlines()[-1]) for output in outputs]


def images_of(directory: Path, numbers: Sequence[int]) -> Path:
    directory.mkdir()
    for number in numbers:
        noise_image(number).save(directory / f"{number:012d}.jpg")
    return directory


def check(store: Path, rows: int) -> None:
    found = capt.store_verify(store=str(store))
    assert [found[kind] for kind in ("damaged", "missing", "orphaned")] == [[], [], []]
    for table in capt.open_store(store).feature_tables():
        keys = {key.tobytes() for block in table.key_blocks() for key in block}
        assert table.rows == len(keys) == rows
    assert list((store / "work").iterdir()) == []


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose table has its frozen extractor."""
    root = tmp_path_factory.mktemp("begun")
    capt.prepare_features(
        store=str(root / "store"), images=[str(images_of(root / "one", [999]))], dataset_name="one", **SMALL
    )
    return root / "store"


@pytest.mark.slow
def test_two_runs_of_the_same_job_share_the_work(commands: CommandServer, tmp_path: Path) -> None:
    """Both runs create the store, its table and its frozen extractor."""
    images, store = images_of(tmp_path / "images", range(24)), tmp_path / "store"
    options = {"store": str(store), "images": [str(images)], "num_shards": 4, **SMALL}
    figures = run_both(
        commands, tmp_path, "prepare_features", {**options, "dataset_name": "one"}, {**options, "dataset_name": "other"}
    )
    assert sum(one["ok"] for one in figures) == 24
    assert sum(one["cached"] for one in figures) == 24
    check(store, 24)
    (table,) = capt.open_store(store).feature_tables()
    assert sum(shard.rows for shard in table.shards) == 24
    assert [dataset.catalog().num_rows for dataset in capt.open_store(store).datasets()] == [24, 24]


def test_two_overlapping_runs_show_no_row_twice(commands: CommandServer, begun: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(begun, tmp_path / "store"))
    one, other = images_of(tmp_path / "a", range(20)), images_of(tmp_path / "b", range(10, 30))
    options = {"store": str(store), **SMALL}
    figures = run_both(
        commands,
        tmp_path,
        "prepare_features",
        {**options, "images": [str(one)], "dataset_name": "one", "num_shards": 2},
        {**options, "images": [str(other)], "dataset_name": "other"},
    )
    assert [one["ok"] + one["cached"] for one in figures] == [20, 20]
    check(store, 31)
    (table,) = capt.open_store(store).feature_tables()
    for dataset in capt.open_store(store).datasets():
        keys = np.array([list(key) for key in dataset.catalog()["key"].to_pylist()], np.uint8)
        assert (table.lookup(keys) >= 0).all()


@pytest.mark.slow
def test_two_runs_on_different_tables_of_one_store(commands: CommandServer, tmp_path: Path) -> None:
    images, store = images_of(tmp_path / "images", range(12)), tmp_path / "store"
    options = {"store": str(store), "images": [str(images)], **SMALL}
    figures = run_both(
        commands,
        tmp_path,
        "prepare_features",
        {**options, "pooling": "avg"},
        {**options, "format": "parquet", "storage_dtype": "int8"},
    )
    assert [one["ok"] for one in figures] == [12, 12]
    assert len(capt.open_store(store).feature_tables()) == 2
    check(store, 12)


def captions(path: Path, numbers: Sequence[int]) -> str:
    annotations = [{"id": n, "image_id": n, "caption": f"a thing number {n} of {n % 3} things"} for n in numbers]
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"images": [{"id": n, "file_name": f"{n}.jpg"} for n in numbers], "annotations": annotations})
    )
    return str(path)


@pytest.mark.slow
def test_two_runs_that_tokenize_the_same_captions(commands: CommandServer, tmp_path: Path) -> None:
    store = tmp_path / "store"
    train = captions(tmp_path / "captions_train2017.json", range(50))
    options = {"store": str(store), "dataset_type": "coco"}
    more = captions(tmp_path / "captions_val2017.json", range(50, 60))
    figures = run_both(
        commands,
        tmp_path,
        "prepare_captions",
        {**options, "annotations": [train]},
        {**options, "annotations": [train, more]},
    )
    assert [one["input"] for one in figures] == [50, 60]
    found = capt.store_verify(store=str(store))
    assert [found[kind] for kind in ("damaged", "missing")] == [[], []]
    (table,) = capt.open_store(store).caption_tables()
    keys = table.captions()["key"].to_pylist()
    assert len(keys) == len(set(keys))
    assert len(keys) in (50, 60)  # of two runs at once the one that was last counts


def test_a_lock_is_held_by_one_process_and_by_none_that_was_killed(commands: CommandServer, tmp_path: Path) -> None:
    lock, note = tmp_path / "work" / "x.lock", tmp_path / "note"
    program = (
        "import time, pathlib; from features.io.locks import wait_for_lock\n"
        f"with wait_for_lock(pathlib.Path({str(lock)!r})):\n"
        f"    pathlib.Path({str(note)!r}).write_text('in')\n"
        "    time.sleep({})\n"
    )
    holder = commands.start(None, program=program.format(60))
    while not note.exists():
        time.sleep(0.01)
    waiter = commands.start(None, program=program.format(0))
    time.sleep(0.5)
    assert waiter.poll() is None
    holder.kill()
    assert waiter.wait() == 0
    with wait_for_lock(lock):
        assert lock.exists()
    assert not lock.exists()
    holder.wait()


def test_concurrent_runs_do_not_disturb_their_plans(commands: CommandServer, begun: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(begun, tmp_path / "store"))
    images = images_of(tmp_path / "images", range(6))
    for path in images.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    options = {"store": str(store), "images": [str(images)], **SMALL}
    running = start(commands, tmp_path / "output", "prepare_features", **options)
    plans = [capt.prepare_features(**options, dry_run=True) for _ in range(2)]
    assert running.wait() == 0
    assert all(plan["hits"] + plan["misses"] == 6 for plan in plans)
    check(store, 7)
