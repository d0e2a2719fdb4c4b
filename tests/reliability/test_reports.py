"""Run reports: garbage collection deletes old ones and keeps what a later command reads."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import capt
from features.io.locations import parse_location
from features.store.held_leases import HeldLease
from features.store.run_reports import KEPT_REPORTS, latest_reports
from tests.conftest import noise_image
from tests.features.buckets import BUCKET, bucket

DAY = 86_400


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(KEPT_REPORTS + 4):
        noise_image(number, 12, 9).save(folder / f"{number:02d}.png")
    return folder


def prepare(store: str, images: Path, count: int) -> Path:
    """The report of a run, one that no other run has."""
    options: dict[str, Any] = {
        "extractor": "pixels",
        "storage_dtype": "uint8",
        "height": 8,
        "width": 8,
        "limit_images": count,
    }
    return parse_location(
        capt.prepare_features(store=store, dataset_type="folder", images=[str(images)], **options)["report"]
    )


def age(path: Path, days: float) -> None:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_garbage_collection_keeps_the_newest_reports_and_young_ones(tmp_path: Path, images: Path) -> None:
    store = str(tmp_path / "store")
    reports = [prepare(store, images, count) for count in range(1, KEPT_REPORTS + 5)]
    for number, report in enumerate(reports):
        age(report, 1.5 + (len(reports) - number) / 100)
    planned = capt.store_gc(store=store, older_than="1d", dry_run=True)
    collected = capt.store_gc(store=store, older_than="1d")
    names = {path.relative_to(store).as_posix() for path in reports[:-KEPT_REPORTS]}
    assert names <= set(planned["paths"])
    assert names <= set(collected["paths"])
    assert [path.exists() for path in reports] == [False] * 4 + [True] * KEPT_REPORTS
    assert [path.parent.exists() for path in reports] == [False] * 4 + [True] * KEPT_REPORTS
    assert latest_reports(Path(store) / "datasets" / "folder") == [reports[-1]]
    assert capt.store_verify(store=store)["damaged"] == []


def test_garbage_collection_keeps_reports_that_are_younger_than_the_age(tmp_path: Path, images: Path) -> None:
    store = str(tmp_path / "store")
    reports = [prepare(store, images, count) for count in range(1, KEPT_REPORTS + 3)]
    age(reports[0], 1.5)
    capt.store_gc(store=store, older_than="1d")
    assert [path.exists() for path in reports] == [False] + [True] * (KEPT_REPORTS + 1)
    # A job that lives may be about to print a report's path.
    capt.store_gc(store=store, older_than="0s")
    assert all(path.exists() for path in reports[1:])


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with bucket("s3", tmp_path / "mirror"):
        yield f"s3://{BUCKET}/reports"


@pytest.mark.slow
def test_reports_in_a_bucket_are_collected(address: str, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [prepare(address, images, count) for count in range(1, KEPT_REPORTS + 3)]
    # An object cannot be given another age, so the collection comes two days later.
    later = time.time() + 2 * DAY
    monkeypatch.setattr(HeldLease, "now", lambda self: later)
    capt.store_gc(store=address, older_than="1d")
    assert [path.exists() for path in reports] == [False] * 2 + [True] * KEPT_REPORTS
