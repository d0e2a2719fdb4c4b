"""A store in a bucket has the same bytes as in a directory, also after kills and network failures."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import capt
from features.io import retries
from features.io.cache_paths import cache_root
from features.io.locations import ObjectPath, parse_location
from tests.features.buckets import BUCKET, bucket
from tests.features.faults import Faults

PIXELS: dict[str, Any] = {"extractor": "pixels", "storage_dtype": "uint8", "height": 64, "width": 64}
SPLIT = "0.6,0.2,0.2"


@pytest.fixture(scope="module", params=["s3", pytest.param("gs", marks=pytest.mark.slow)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Faults]]:
    with bucket(request.param, tmp_path_factory.mktemp("mirror")) as faults:
        yield request.param, faults


@pytest.fixture
def address(served: tuple[str, Faults], request: pytest.FixtureRequest) -> str:
    return f"{served[0]}://{BUCKET}/{request.node.originalname}"


def begin(command: str, **given: Any) -> subprocess.Popen[bytes]:
    """Starts a command in a process of its own, which finds the server of objects in its environment."""
    program = f"import capt; capt.{command}(**{given!r})"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def committed(root: Path) -> dict[str, bytes]:
    """Every file of a store that manifests or logs account for, by path."""
    files = root.list_tree() if isinstance(root, ObjectPath) else [(path, None) for path in root.rglob("*")]
    parts = {path: path.relative_to(root).parts for path, _ in files if path.is_file()}
    passing = ("work", "cache", "pins")
    return {"/".join(names): path.read_bytes() for path, names in parts.items() if names[0] not in passing}


def test_a_store_in_a_bucket_has_the_files_of_one_in_a_directory(
    address: str, photos: Any, coco: Any, tmp_path: Path
) -> None:
    images, annotations = photos(10), coco(range(10))
    features = {
        "dataset_type": "coco",
        "images": [str(images)],
        "annotations": [str(annotations)],
        "split_ratios": SPLIT,
        **PIXELS,
    }
    captions = {"dataset_type": "coco", "annotations": [str(annotations)], "split_ratios": SPLIT}
    for store in (str(tmp_path / "store"), address):
        assert capt.prepare_features(store=store, num_shards=2, **features)["ok"] == 10
        assert capt.prepare_captions(store=store, **captions)["ok"] == 50
    assert committed(parse_location(address)) == committed(tmp_path / "store")
    assert capt.prepare_features(store=address, **features)["cached"] == 10
    assert capt.prepare_captions(store=address, **captions)["cached"] == 50
    assert capt.prepare_features(store=address, dry_run=True, **features)["hits"] == 10
    verified = capt.store_verify(store=address)
    assert (verified["rows"], verified["damaged"], verified["missing"], verified["orphaned"]) == (60, [], [], [])
    (listed,) = capt.store_ls(store=address)["feature_tables"]
    assert listed["rows"] == 10
    assert [report["run"] for report in capt.store_stats(store=address)["reports"]] == ["captions", "features"]
    assert len(capt.store_show(store=address, num_examples=2)["examples"]) == 2
    assert not (parse_location(address) / "work").exists()


@pytest.mark.slow
def test_the_command_line_and_several_processes(address: str, photos: Any, tmp_path: Path) -> None:
    words = ["--dataset-type", "folder", "--images", str(photos(12)), "--num-shards", "4", "--json"]
    words += [part for name, value in PIXELS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    several = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    command = [sys.executable, "-m", "capt", "prepare", "features", "--store", address, *words, *several]
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["ok"] == 12
    capt.prepare_features(
        store=str(tmp_path / "store"), dataset_type="folder", images=[str(photos(12))], num_shards=4, **PIXELS
    )
    assert committed(parse_location(address)) == committed(tmp_path / "store")


@pytest.mark.slow
def test_the_same_command_completes_killed_runs(address: str, photos: Any, tmp_path: Path) -> None:
    options = {"dataset_type": "folder", "images": [str(photos(24))], "num_shards": 8, **PIXELS}
    capt.prepare_features(store=str(tmp_path / "store"), **options)
    for seed in range(3):
        # From the first requests to the commit; a process takes some seconds to import what it needs.
        process = begin("prepare_features", store=address, **options)
        waited = time.monotonic()
        while not parse_location(address).exists() and time.monotonic() - waited < 60:
            time.sleep(0.05)
        time.sleep(random.Random(seed).uniform(0, 3))
        process.kill()
        process.wait()
    result = capt.prepare_features(store=address, **options)
    assert result["ok"] + result["cached"] == 24
    assert committed(parse_location(address)) == committed(tmp_path / "store")
    assert capt.store_verify(store=address)["damaged"] == []


@pytest.mark.slow
def test_two_runs_at_once_show_no_row_twice(address: str, photos: Any) -> None:
    first, second = photos(16), photos(16, "others", 8)
    runs = [
        begin(
            "prepare_features", store=address, dataset_type="folder", dataset_name=name, images=[str(images)], **PIXELS
        )
        for name, images in (("one", first), ("two", second))
    ]
    assert [run.wait(240) for run in runs] == [0, 0]
    (table,) = capt.open_store(address).feature_tables()
    assert table.rows == 24
    assert capt.store_verify(store=address)["damaged"] == []


def test_corrupt_files_are_repaired(address: str, photos: Any, tmp_path: Path) -> None:
    options = {"dataset_type": "folder", "images": [str(photos(8))], "num_shards": 4, **PIXELS}
    capt.prepare_features(store=str(tmp_path / "store"), **options)
    capt.prepare_features(store=address, **options)
    shard = next(path for path in parse_location(address).glob("features/*/*/*.tfrecord"))
    shard.put(shard.read_bytes()[:-1] + b"x")  # type: ignore[attr-defined]
    with pytest.raises(capt.CaptError, match="1 files are corrupt"):
        capt.store_verify(store=address)
    healed = capt.prepare_features(store=address, **options)
    assert 0 < healed["ok"] < 8
    assert capt.store_verify(store=address)["damaged"] == []
    assert capt.open_store(address).feature_tables()[0].rows == 8


def test_network_failures_only_cost_time(
    address: str, served: tuple[str, Faults], photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "BASE_SECONDS", 0.01)
    served[1].plan(["busy", "pass", "reset", "pass", "lost", "pass", "pass"] * 12)
    result = capt.prepare_features(
        store=address, dataset_type="folder", images=[str(photos(8))], num_shards=4, **PIXELS
    )
    served[1].plan([])
    assert result["ok"] == 8
    assert capt.store_verify(store=address)["damaged"] == []
    assert len(list((cache_root() / "files").rglob("*.tfrecord"))) >= 4
