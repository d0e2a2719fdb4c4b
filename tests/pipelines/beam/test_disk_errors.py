"""A full disk or a lost worker is one line, and the same command resumes."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import capt
from schemas.errors import CaptError
from tests.conftest import noise_image
from tests.pipelines.test_resume import tables

IMAGES = 96
SHARDS = 32
DISK_BYTES = 64 << 20
SPARED_BYTES = 256 << 10
OPTIONS: dict[str, Any] = {
    "dataset_type": "folder",
    "extractor": "mobilenet_v3_small",
    "weights": "random:7",
    "storage_dtype": "float32",
    "num_shards": SHARDS,
}


def prepare(store: Path, images: Path, **options: Any) -> dict[str, Any]:
    return capt.prepare_features(store=str(store), images=[str(images)], **{**OPTIONS, **options})  # type: ignore[no-any-return]


def command(store: Path, images: Path, *more: str) -> list[str]:
    options = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [
        sys.executable,
        "-m",
        "capt",
        "prepare",
        "features",
        "--store",
        str(store),
        "--images",
        str(images),
        *options,
        *more,
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded images, old enough for the hash cache."""
    directory = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        noise_image(number).save(directory / f"{number:012d}.jpg")
        os.utime(directory / f"{number:012d}.jpg", (1_000_000_000, 1_000_000_000))
    return directory


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The store of a run that nothing disturbed."""
    store = tmp_path_factory.mktemp("unbroken") / "store"
    prepare(store, images)
    return store


@pytest.fixture
def begun(unbroken: Path, tmp_path: Path) -> Path:
    """A store whose table has its frozen extractor and no row."""
    store = tmp_path / "begun"
    shutil.copytree(unbroken / "networks", store / "networks")
    shutil.copy(unbroken / "capt-store.json", store)
    for note in unbroken.glob("features/*/*.json"):
        (store / "features" / note.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(note, store / "features" / note.parent.name)
    return store


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if shutil.which("mount")
        else None
    )
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else 'there is no mount'}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, spared: int) -> Path:
    """Take all but so many bytes of a disk."""
    path = disk / "filler"
    with path.open("wb") as file:
        while True:
            with contextlib.suppress(OSError):  # where somebody else writes meanwhile, there is less to take
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - spared)
                return path


def fill_when_a_shard_is_done(disk: Path, store: Path, ended: threading.Event) -> None:
    while not ended.is_set() and not any(store.glob("work/*-*/done/00000.json")):
        time.sleep(0.001)
    if not ended.is_set():
        fill(disk, SPARED_BYTES)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_same_command_resumes(
    disk: Path, images: Path, begun: Path, unbroken: Path
) -> None:
    store = Path(shutil.copytree(begun, disk / "store"))
    prepare(store, images, dry_run=True)
    process = subprocess.Popen(
        command(store, images, "--quiet"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ended = threading.Event()
    filler = threading.Thread(target=fill_when_a_shard_is_done, args=(disk, store, ended))
    filler.start()
    _, complaint = process.communicate(timeout=300)
    ended.set()
    filler.join()
    assert (disk / "filler").exists()
    assert process.returncode == 1
    assert complaint.count("\n") == 1, complaint
    assert complaint.startswith(f"capt: {store}: no space is left on the disk")
    assert list(store.glob("features/*/log/*")) == []
    finished = {path.name for path in store.glob("work/*-*/done/*.json")}
    assert 0 < len(finished) < SHARDS
    (disk / "filler").unlink()
    before = {path: path.stat().st_mtime_ns for path in store.glob("features/*/*/*.tfrecord")}
    assert prepare(store, images)["ok"] == IMAGES
    assert tables(store) == tables(unbroken)
    after = {path: path.stat().st_mtime_ns for path in store.glob("features/*/*/*.tfrecord")}
    assert sum(before[path] == after[path] for path in before) >= len(finished)


def test_a_disk_that_is_too_small_is_refused_before_extraction(disk: Path, images: Path, begun: Path) -> None:
    store = Path(shutil.copytree(begun, disk / "store"))
    fill(disk, 5 << 20)
    with pytest.raises(CaptError, match=r"needs [\d,]+ bytes, but [\d,]+ are free"):
        prepare(store, images)
    assert list(store.glob("features/*/*/*.tfrecord")) == []
    (disk / "filler").unlink()


def test_a_full_disk_is_one_line_for_every_first_write(disk: Path, images: Path, begun: Path) -> None:
    store = Path(shutil.copytree(begun, disk / "store"))
    for spared in (0, 4096, 16_384, 65_536):
        filler = fill(disk, spared)
        with pytest.raises(CaptError, match=r"no space is left|bytes, but"):
            prepare(store, images)
        filler.unlink()


# === Workers ===


def worker_processes(parent: int) -> list[int]:
    """The Python worker processes below a process."""
    parents, commands = {}, {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(directory.name)] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(directory.name)] = (directory / "cmdline").read_bytes()
        except OSError:
            continue
    below = {parent}
    for _ in range(3):
        below |= {process for process, above in parents.items() if above in below}
    return [p for p in sorted(below - {parent}) if b"sdk_worker_main" in commands[p] and b"/sh\0" not in commands[p]]


MULTIPLE = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@pytest.mark.slow
def test_several_worker_processes_write_the_same_bytes(
    tmp_path: Path, images: Path, begun: Path, unbroken: Path
) -> None:
    done = subprocess.run(command(begun, images, "--json", *MULTIPLE), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["ok"] == IMAGES
    assert tables(begun) == tables(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])  # the first to start, the last: the other one is still starting
def test_a_lost_worker_is_one_line_and_the_same_command_resumes(
    images: Path, begun: Path, unbroken: Path, lost: int
) -> None:
    process = subprocess.Popen(
        command(begun, images, "--quiet", *MULTIPLE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(workers := worker_processes(process.pid)) < 2:
        time.sleep(0.01)
    os.kill(workers[lost], 9)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 1
    assert complaint.count("\n") == 1, complaint
    assert "a worker process was lost" in complaint
    assert prepare(begun, images)["ok"] == IMAGES
    assert tables(begun) == tables(unbroken)
