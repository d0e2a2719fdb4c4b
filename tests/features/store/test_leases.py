"""Leases are valid while their job runs, expire when it dies, and protect live snapshots."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.store import FeatureTable
from features.store.compaction import compact_table
from features.store.leases import current_leases, expired_leases, hold_snapshot, is_busy, lease, table_name
from schemas.errors import StoreError
from tests.features.store.stores import add_dataset, add_features, feature_config, new_store


def test_a_lease_is_valid_while_its_block_runs(tmp_path: Path) -> None:
    with lease(tmp_path, "prepare", {"features/a": ()}) as path:
        (held,) = current_leases(tmp_path)
        assert (held.purpose, held.tables) == ("prepare", {"features/a": ()})
        assert is_busy(tmp_path, "features/a", "prepare", "compact")
        assert not is_busy(tmp_path, "features/b", "prepare")
        assert not is_busy(tmp_path, "features/a", "compact")
        assert path.parent == tmp_path / "pins"
    assert not path.exists()
    assert current_leases(tmp_path) == []


def test_a_lease_is_renewed_while_its_job_runs(tmp_path: Path) -> None:
    with lease(tmp_path, "read", {}, seconds=1.5) as path:
        first = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > first)
        assert expired_leases(tmp_path) == []
        path.unlink()
        wait_until(path.exists)
        assert len(current_leases(tmp_path)) == 1


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds, at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _hold(path: str) -> None:
    with lease(Path(path), "read", {}, seconds=60):
        time.sleep(60)


def test_the_lease_of_a_killed_job_expires(tmp_path: Path) -> None:
    process = multiprocessing.get_context("forkserver").Process(target=_hold, args=(str(tmp_path),))
    process.start()
    while not (paths := list((tmp_path / "pins").glob("*.json"))) and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    (path,) = paths
    assert len(current_leases(tmp_path)) == 1
    os.utime(path, (time.time() - 61,) * 2)
    assert current_leases(tmp_path) == []
    assert expired_leases(tmp_path) == [path]


def test_an_unreadable_lease_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "stray.json").write_text("{}")
    with pytest.raises(StoreError, match=r"stray\.json: the lease cannot be read"):
        current_leases(tmp_path)


def test_a_snapshot_that_was_superseded_before_its_lease_is_opened_again(tmp_path: Path) -> None:
    table_config, store = feature_config(), new_store(tmp_path / "store")
    add_features(store, table_config, range(4))
    add_features(store, table_config, range(4, 8))
    add_dataset(store, "some", range(8))
    opened: list[FeatureTable] = []

    def choose() -> list[FeatureTable]:
        opened.append(store.feature_table(table_config.fingerprint))
        if len(opened) == 1:
            compact_table(store, table_config.fingerprint)
        return opened[-1:]

    with hold_snapshot(store.path, choose) as (table,):
        assert len(opened) == 2
        (held,) = current_leases(store.path)
        assert held.tables == {table_name(store.path, table.root): (table.manifests[0].digest,)}


def test_a_read_only_store_is_read_without_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_config, store = feature_config(), new_store(tmp_path / "store")
    add_features(store, table_config, range(4))

    def refuse(path: Path, data: bytes) -> Any:
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr("features.store.held_leases.write", refuse)
    with hold_snapshot(store.path, store.feature_tables) as tables:
        assert [table.rows for table in tables] == [4]
        assert list((store.path / "pins").iterdir()) == []
