"""Repairs rewrite derived files, remove corrupt ones, and restore no superseded commit."""

import json
from pathlib import Path

import pytest

import capt
from features.store import Store, open_store
from features.store.commit_log import CommitLog
from features.store.corruption import diagnose, read_recorded_corruption, record_corruption
from features.store.repair import FeatureTableRepair, remove_corrupt, repair_log
from features.store.verification import verify
from schemas.errors import CorruptFileError
from tests.features.store.stores import (
    add_dataset,
    add_features,
    contents,
    expected_features,
    feature_config,
    features_of,
    new_store,
)

CONFIG = feature_config("tfrecord", "int8")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A table of three commits, the last in place of the first, and the dataset that names its rows."""
    store = new_store(tmp_path / "store")
    first = add_features(store, CONFIG, range(4))
    add_features(store, CONFIG, range(4, 12), shards=2, failed=[100])
    log = CommitLog(store.feature_table_root(CONFIG))
    log.append(first.model_copy(update={"replaces": (first.digest,)}))
    add_dataset(store, "some", range(12))
    return store


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place if place >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)


def manifest_path(root: Path, number: int) -> Path:
    return root / "manifests" / f"{CommitLog(root).entry(number)}.json"


def heal(store: Store) -> dict[str, object]:
    """What a run does that sees no image."""
    with FeatureTableRepair(store, CONFIG) as repair:
        repair.open_intact()
    return repair.unrepaired


# === Logs ===


@pytest.mark.parametrize("change", ["flip", "cut", "gone", "zeros"])
def test_a_log_entry_is_repaired_from_the_unreferenced_manifest(store: Store, change: str) -> None:
    root = store.feature_table_root(CONFIG)
    path = CommitLog(root).entry_path(2)
    before = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        damaged = {"flip": before[:30] + b"!" + before[31:], "cut": before[:50], "zeros": bytes(len(before))}
        path.write_bytes(damaged[change])
    repair_log(root)
    assert path.read_bytes() == before


def test_a_log_entry_with_a_wrong_digest_is_repaired(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    path = CommitLog(root).entry_path(2)
    before = path.read_bytes()
    digit = before[40:41]
    path.write_bytes(before[:40] + (b"0" if digit != b"0" else b"1") + before[41:])
    assert verify(store.path).missing
    repair_log(root)
    assert path.read_bytes() == before
    assert verify(store.path).is_healthy


def test_an_ambiguous_log_entry_is_an_error(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    for number in (2, 3):
        CommitLog(root).entry_path(number).write_bytes(b"")
    with pytest.raises(CorruptFileError, match=r"00000002\.json: .* 2 manifests may belong to it"):
        repair_log(root)


def test_a_manifest_that_was_never_committed_repairs_no_entry(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    entry = CommitLog(root).entry_path(2)
    before = entry.read_bytes()
    (stray,) = [one for one in CommitLog(root).live() if len(one.shards) == 2]
    manifest_path(root, 2).unlink()
    other = stray.model_copy(update={"files": {}})
    (root / "manifests" / f"{other.digest}.json").write_bytes(other.to_json())
    repair_log(root)
    assert entry.read_bytes() == before


# === Manifests ===


def test_superseded_commits_stay_superseded_if_a_manifest_is_corrupt(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    for count in (2, 4, 6):
        add_dataset(store, "some", range(count))
    root = store.dataset_root("some")
    manifest_path(root, 2).unlink()
    with pytest.raises(CorruptFileError, match="missing"):
        CommitLog(root).live()


def test_a_superseding_commit_repairs_unreadable_manifests(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    for count in (2, 4):
        add_dataset(store, "some", range(count))
    root, log = store.dataset_root("some"), CommitLog(store.dataset_root("some"))
    latest = log.live()[0].model_copy(update={"replaces": ()})
    flip(manifest_path(root, 2))
    log.supersede(latest)
    assert [one.files for one in log.live()] == [latest.files]
    remove_corrupt(root, ())
    assert verify(store.path).is_healthy
    assert not verify(store.path).orphaned
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 1


def test_superseding_with_an_equal_commit_adds_no_entry(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    for count in (2, 4):
        add_dataset(store, "some", range(count))
    log = CommitLog(store.dataset_root("some"))
    log.supersede(log.live()[0].model_copy(update={"replaces": ()}))
    assert log.last() == 2


def test_the_only_commit_is_written_again_if_it_is_unreadable(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    manifest = add_dataset(store, "some", range(4))
    root = store.dataset_root("some")
    flip(manifest_path(root, 1))
    CommitLog(root).supersede(manifest)
    assert CommitLog(root).live() == [manifest]
    assert CommitLog(root).last() == 1


# === Feature tables ===


def test_the_intact_rest_of_a_corrupt_commit_keeps_its_provenance(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    before = contents(root)
    hit = CommitLog(root).live()[0].shards[1]
    flip(root / hit.data.path)
    with pytest.raises(CorruptFileError):
        capt.store_verify(store=str(store.path))
    figures = heal(store)
    left = contents(root)
    assert set(before) - set(left) == {hit.data.path, hit.index.path if hit.index else ""}
    assert {path: before[path] for path in left} == left
    assert capt.store_verify(store=str(store.path))["damaged"] == []
    assert figures["unrepaired_rows"] == hit.rows
    assert read_recorded_corruption(store.path, root) == frozenset()


def test_an_index_is_repaired_from_its_shard(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    before = contents(root)
    for number, shard in enumerate(CommitLog(root).live()[0].shards):
        assert shard.index is not None
        flip(root / shard.index.path) if number else (root / shard.index.path).unlink()
    assert heal(store)["unrepaired_rows"] == 0
    assert contents(root) == before
    assert verify(store.path).is_healthy


def test_a_fully_corrupt_table_becomes_empty_and_its_rows_are_unrepaired(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    for path in root.glob("*/*.tfrecord"):
        path.write_bytes(path.read_bytes()[:-1])
    for path in root.glob("*/*.parquet"):
        path.unlink()
    figures = heal(store)
    assert (figures["unrepaired_rows"], len(figures["unrepaired_examples"])) == (12, 12)  # type: ignore[arg-type]
    assert CommitLog(root).live() == []
    assert verify(store.path).is_healthy


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("change", ["damaged", "gone"])
def test_an_unreadable_manifest_loses_no_row_of_another(store: Store, number: int, change: str) -> None:
    root = store.feature_table_root(CONFIG)
    path = manifest_path(root, number)
    path.unlink() if change == "gone" else flip(path)
    # A repair deletes a corrupt manifest that is superseded.
    assert verify(store.path).is_healthy == (number == 1 and change == "gone")
    assert heal(store)["unrepaired_rows"] == (8 if number == 2 else 0)
    numbers = range(4) if number == 2 else range(12)
    assert (features_of(store, CONFIG, list(numbers)) == expected_features(list(numbers), "int8")).all()
    assert verify(store.path).is_healthy
    assert heal(store)["unrepaired_rows"] == 0


def test_unrepaired_rows_are_corrupt_rows_that_a_dataset_references(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    add_dataset(store, "other", [*range(8), 500])
    (shard,) = CommitLog(root).live()[-1].shards
    flip(root / shard.data.path)
    record_corruption(store.path, [f"features/{root.name}/{shard.data.path}"])
    figures = heal(store)
    examples = figures["unrepaired_examples"]
    assert figures["unrepaired_rows"] == 4
    assert isinstance(examples, list)
    assert {(one["dataset"], one["image_id"]) for one in examples} == {
        (name, str(number)) for name in ("some", "other") for number in range(4)
    }


@pytest.mark.parametrize("text", [b"", b'{"format":"other","version":1}'])
def test_the_error_for_a_corrupt_marker_has_its_content(store: Store, text: bytes) -> None:
    marker = store.path / "capt-store.json"
    whole = marker.read_bytes()
    marker.write_bytes(text)
    with pytest.raises(CorruptFileError, match=r'capt-store\.json: .*Write \{"format":"capt-store","version":1\}'):
        open_store(store.path)
    marker.write_bytes(whole)
    assert open_store(store.path).datasets()


# === The note ===


def test_verification_records_findings_until_there_are_none(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    path = next(root.glob("*/*.tfrecord"))
    flip(path)
    with pytest.raises(CorruptFileError):
        capt.store_verify(store=str(store.path))
    note = store.path / "cache" / "damage.json"
    assert json.loads(note.read_bytes()) == {"paths": [path.relative_to(store.path).as_posix()], "version": 1}
    assert read_recorded_corruption(store.path, root) == {path.relative_to(root).as_posix()}
    flip(path)
    capt.store_verify(store=str(store.path))
    assert not note.exists()


def test_a_recorded_file_that_was_restored_is_not_corrupt(store: Store) -> None:
    root = store.feature_table_root(CONFIG)
    before = CommitLog(root).entries()
    record_corruption(store.path, [path.relative_to(store.path).as_posix() for path in root.glob("*/*.tfrecord")])
    assert diagnose(root, read_recorded_corruption(store.path, root)).is_healthy
    assert heal(store)["unrepaired_rows"] == 0
    assert CommitLog(root).entries() == before


@pytest.mark.parametrize("text", [b"", b"[]", b'{"paths": 3}', b'{"paths": [3]}', b"\xff"])
def test_an_unreadable_record_is_ignored(store: Store, text: bytes) -> None:
    (store.path / "cache").mkdir()
    (store.path / "cache" / "damage.json").write_bytes(text)
    assert read_recorded_corruption(store.path, store.feature_table_root(CONFIG)) == frozenset()


def test_a_record_cannot_reference_a_file_outside_the_table(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    remove_corrupt(
        store.feature_table_root(CONFIG), {"../../../outside", str(outside), "recipe.json", "log/00000001.json"}
    )
    assert outside.exists()
    assert verify(store.path).is_healthy
