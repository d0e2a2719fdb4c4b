"""The same command completes a killed job to the same bytes as an uninterrupted one."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

import capt
from tests.commands import CommandServer, ForkedProcess
from tests.conftest import noise_image

IMAGES = 48
SHARDS = 8
OPTIONS: dict[str, Any] = {
    "dataset_type": "folder",
    "extractor": "mobilenet_v3_small",
    "weights": "random:7",
    "num_shards": SHARDS,
    "max_failures": "50%",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded images, one of them unreadable, all old enough for the hash cache."""
    directory = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        noise_image(number).save(directory / f"{number:012d}.jpg")
    (directory / "broken.jpg").write_bytes(b"no image")
    for path in directory.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return directory


def start(commands: CommandServer, store: Path, images: Path) -> ForkedProcess:
    return begin(commands, "prepare_features", store=str(store), images=[str(images)], **OPTIONS)


def begin(commands: CommandServer, command: str, **given: Any) -> ForkedProcess:
    return commands.start(None, program=f"import capt; capt.{command}(**{given!r})")


def tables(store: Path) -> dict[str, bytes]:
    """Every committed file of the feature tables and datasets, by path."""
    roots = [store / "features", store / "datasets"]
    files = [path for root in roots for path in root.rglob("*") if path.is_file() and "reports" not in path.parts]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def unbroken(commands: CommandServer, tmp_path_factory: pytest.TempPathFactory, images: Path) -> dict[str, bytes]:
    """What a run that nobody killed leaves."""
    store = tmp_path_factory.mktemp("unbroken") / "store"
    assert start(commands, store, images).wait() == 0
    return tables(store)


def finish(store: Path, images: Path, unbroken: dict[str, bytes]) -> None:
    result = capt.prepare_features(store=str(store), images=[str(images)], **OPTIONS)
    assert result["ok"] + result["cached"] == IMAGES
    assert tables(store) == unbroken
    assert list((store / "work").glob("run-*")) == []


def kill_and_finish(
    commands: CommandServer, store: Path, images: Path, delays: list[float], unbroken: dict[str, bytes]
) -> None:
    for delay in delays:
        kill(start(commands, store, images), delay)
    finish(store, images, unbroken)


def kill(process: ForkedProcess, delay: float) -> None:
    time.sleep(delay)
    process.kill()
    process.wait()


def test_the_same_command_completes_a_run_killed_at_random_moments(
    commands: CommandServer, tmp_path: Path, images: Path, unbroken: dict[str, bytes]
) -> None:
    chosen = random.Random(1)
    kill_and_finish(commands, tmp_path / "store", images, [chosen.uniform(0.1, 2.0) for _ in range(4)], unbroken)


@pytest.mark.slow
def test_the_same_command_completes_a_run_killed_fifty_times(
    commands: CommandServer, tmp_path: Path, images: Path, unbroken: dict[str, bytes]
) -> None:
    chosen = random.Random(2)
    for batch in range(10):
        delays = [chosen.uniform(0.1, 2.5) for _ in range(5)]
        kill_and_finish(commands, tmp_path / f"store-{batch}", images, delays, unbroken)


def test_finished_units_of_a_killed_run_are_not_extracted_again(
    commands: CommandServer, tmp_path: Path, images: Path, unbroken: dict[str, bytes]
) -> None:
    store = tmp_path / "store"
    process = start(commands, store, images)
    deadline = time.monotonic() + 60
    while len(done := list(store.glob("work/*/done/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in store.glob("features/*/*/*.tfrecord")}
    assert len(done) >= 3
    finish(store, images, unbroken)
    after = {path: path.stat().st_mtime_ns for path in store.glob("features/*/*/*.tfrecord")}
    finished = [path for path in before if before[path] == after[path]]
    assert len(finished) >= len(done)


@pytest.mark.slow
def test_the_same_command_completes_a_killed_run_of_captchas_with_labels(
    commands: CommandServer, tmp_path: Path
) -> None:
    count, chosen = 280, random.Random(3)
    capt.synth_captcha(out=str(tmp_path / "made"), num_images=count, seed=1)
    folder = tmp_path / "made" / "words_captcha"
    for path in folder.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    given = {"images": [str(folder)], "labels": str(folder), "num_shards": SHARDS}
    assert begin(commands, "prepare_captcha", store=str(tmp_path / "unbroken"), **given).wait() == 0
    store = tmp_path / "store"
    for _ in range(8):
        kill(begin(commands, "prepare_captcha", store=str(store), **given), chosen.uniform(0.2, 3.0))
    result = capt.prepare_captcha(store=str(store), **given)
    assert result["ok"] + result["cached"] == count
    assert tables(store) == tables(tmp_path / "unbroken")
