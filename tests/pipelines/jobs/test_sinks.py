"""A dry run predicts the run and changes nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import capt
from schemas.errors import UsageError
from tests.conftest import noise_image

SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7", "dataset_type": "folder"}


def tree(root: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a run of which 20 images are done and 40 are not; two of those are alike."""
    root = tmp_path_factory.mktemp("plan")
    images = root / "images"
    images.mkdir()
    for number in range(60):
        noise_image(number).save(images / f"{number:03d}.jpg")
        os.utime(images / f"{number:03d}.jpg", (1_000_000_000, 1_000_000_000))
    (images / "twin.jpg").write_bytes((images / "059.jpg").read_bytes())
    options = {"store": str(root / "store"), "images": [str(images)], **SMALL}
    capt.prepare_features(**options, limit_images=20)
    return options


def test_a_dry_run_predicts_the_run(prepared: dict[str, Any]) -> None:
    before = tree(Path(prepared["store"]))
    plan = capt.prepare_features(**prepared, dry_run=True)
    assert (plan["input"], plan["hits"], plan["misses"], plan["duplicate"]) in ((61, 20, 40, 1), (61, 21, 40, 0))
    assert plan["bytes"] == 40 * (49 * 576 * 2 + 32)
    assert plan["images_per_second"] > 0
    assert plan["shape"] == [49, 576]
    assert 40 / plan["images_per_second"] < plan["estimated_seconds"] < 60
    assert tree(Path(prepared["store"])) == before


def test_a_dry_run_estimates_a_table_of_a_billion_images(prepared: dict[str, Any]) -> None:
    small = capt.prepare_features(**prepared, dry_run=True)["scale"]
    assert (small["images"], small["shards"], small["listing_requests"], small["put_requests"]) == (61, 1, 1, 4)
    row = 49 * 576 * 2 + 32
    assert small["table_bytes"] == 61 * row
    large = capt.prepare_features(**prepared, dry_run=True, assume_images=1_000_000_000)["scale"]
    assert (large["images"], large["shards"]) == (1_000_000_000, 1 << 16)
    assert large["shard_bytes"] == 1_000_000_000 * row // (1 << 16)
    assert large["listing_requests"] == 1_000_000
    assert large["reader_memory"] == 40_000_000_000
    assert 400 < large["manifest_bytes"] / large["shards"] < 800
    assert large["extraction_seconds"] > 1e9 / 10_000
    with pytest.raises(UsageError, match="only valid with --dry-run"):
        capt.prepare_features(**prepared, assume_images=10)


def test_a_dry_run_without_new_images_loads_neither_tensorflow_nor_keras(prepared: dict[str, Any]) -> None:
    program = (
        "import capt, json, sys;"
        f"r = capt.prepare_features(**{prepared!r}, limit_images=20, dry_run=True);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules);"
        "print(json.dumps(r))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    plan = json.loads(done.stdout)
    assert (plan["hits"], plan["misses"], plan["bytes"], plan["images_per_second"]) == (20, 0, 0, None)


def test_a_dry_run_uses_the_frozen_extractor_of_the_table_and_little_time(prepared: dict[str, Any]) -> None:
    capt.prepare_features(**prepared, dry_run=True)
    started = time.monotonic()
    capt.prepare_features(**prepared, dry_run=True)
    assert time.monotonic() - started < 10


def test_a_dry_run_of_captions_predicts_the_run_and_changes_nothing(
    tmp_path: Path, coco: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"store": str(tmp_path / "store"), "dataset_type": "coco", "annotations": [str(coco(range(6)))]}
    plan = capt.prepare_captions(**options, dry_run=True)
    assert (plan["hits"], plan["misses"]) == (0, 30)
    assert not (tmp_path / "store").exists()
    done = capt.prepare_captions(**options)
    before = tree(tmp_path / "store")
    again = capt.prepare_captions(**options, dry_run=True)
    assert (again["hits"], again["misses"]) == (30, 0)
    assert plan["fingerprint"] == done["fingerprint"] == again["fingerprint"]
    assert tree(tmp_path / "store") == before
    fewer = capt.prepare_captions(**options, vocab_size=9, dry_run=True)
    assert (fewer["hits"], fewer["misses"]) == (0, 30)
    assert fewer["fingerprint"] != done["fingerprint"]
    assert not [record for record in caplog.records if record.levelname == "WARNING" and "text" in record.message]
