"""`prepare` repairs what verification found to the same bytes, and lists what it cannot repair."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.store.commit_log import CommitLog
from features.store.verification import verify
from pipelines.jobs import extract_shard, extraction_job
from schemas.errors import CorruptFileError, StoreError

IMAGES, SHARDS = 12, 4
FEATURES: dict[str, Any] = {"extractor": "mobilenet_v3_small", "weights": "random:7", "num_shards": SHARDS}


@pytest.fixture(autouse=True)
def clear_caches(reuse_frozen_extractors: dict[Any, Any], reuse_transforms: dict[Any, Path]) -> None:
    """Makes a repair build its own graph and transform."""
    reuse_frozen_extractors.clear()
    reuse_transforms.clear()


class Place:
    """A store with the data that it is made from."""

    def __init__(self, root: Path, images: Path, annotations: Path) -> None:
        self.store = root / "store"
        self.images = images
        self.annotations = annotations

    def features(self, **options: Any) -> dict[str, Any]:
        source = {"dataset_type": "coco", "images": [str(self.images)], "annotations": [str(self.annotations)]}
        result: dict[str, Any] = capt.prepare_features(store=str(self.store), **{**FEATURES, **source, **options})
        return result

    def captions(self) -> dict[str, Any]:
        result: dict[str, Any] = capt.prepare_captions(
            store=str(self.store), dataset_type="coco", annotations=[str(self.annotations)]
        )
        return result

    def rows(self) -> dict[str, Any]:
        """All that the live commits hold: features by key, captions, words, catalog."""
        store = capt.open_store(self.store)
        (features,), (text,) = store.feature_tables(), store.caption_tables()
        catalog = store.dataset("coco").catalog().to_pylist()
        keys = np.array([list(row["key"]) for row in catalog], np.uint8)
        positions = features.lookup(keys)
        assert (positions >= 0).all()
        return {
            "features": features.read(positions).tobytes(),
            "captions": text.captions().to_pylist(),
            "words": text.vocabulary(),
            "transform": {path.name: path.read_bytes() for path in text.transform_path.rglob("*") if path.is_file()},
            "catalog": catalog,
        }

    def find(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.store.glob(pattern) if path.is_file())

    def live_shard(self, number: int) -> Any:
        (table,) = capt.open_store(self.store).feature_tables()
        return table.shards[number]


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Place:
    """A copy of the store and data of `made`."""
    shutil.copytree(made, tmp_path / "place")
    return Place(tmp_path / "place", made / "images", tmp_path / "place" / "captions_train2017.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound store of features and captions."""
    root = tmp_path_factory.mktemp("made")
    (root / "images").mkdir()
    annotations = make_data(root)
    place = Place(root, root / "images", annotations)
    place.features()
    place.captions()
    return root


def make_data(root: Path) -> Path:
    import json

    from tests.conftest import noise_image

    for number in range(IMAGES):
        noise_image(number).save(root / "images" / f"{number:012d}.jpg", quality=90)
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(IMAGES)]
    captions = [{"id": number, "image_id": number, "caption": f"A thing number {number}"} for number in range(IMAGES)]
    annotations = root / "captions_train2017.json"
    annotations.write_text(json.dumps({"images": images, "annotations": captions}))
    return annotations


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def assert_found(store: Path) -> None:
    with pytest.raises(CorruptFileError):
        capt.store_verify(store=str(store))


def assert_sound(store: Path) -> None:
    figures = capt.store_verify(store=str(store))
    assert (figures["damaged"], figures["missing"]) == ([], [])


PLACES = {
    "a shard": "features/*/*/*-00002-of-*.tfrecord",
    "an index": "features/*/*/*-00001-of-*.index",
    "a catalog": "datasets/*/*/catalog.parquet",
    "captions": "text/*/*/captions-*.parquet",
    "a vocabulary": "text/*/*/transform/**/vocabulary*",
    "a transform": "text/*/*/transform/**/saved_model.pb",
    "a network": "networks/*.pb",
    "the note of a network": "features/*/network.json",
    "a manifest of features": "features/*/manifests/*.json",
    "a manifest of captions": "text/*/manifests/*.json",
    "a manifest of a dataset": "datasets/*/manifests/*.json",
    "a recipe of features": "features/*/recipe.json",
    "a recipe of captions": "text/*/recipe.json",
    "a log entry of features": "features/*/log/*.json",
    "a log entry of captions": "text/*/log/*.json",
    "a log entry of a dataset": "datasets/*/log/*.json",
}


@pytest.mark.parametrize("message", PLACES)
def test_a_flipped_byte_is_found_and_repaired(place: Place, message: str) -> None:
    before, shards = place.rows(), [place.live_shard(number).rows for number in range(SHARDS)]
    path = place.find(PLACES[message])[0]
    flip(path)
    assert_found(place.store)
    features, captions = place.features(), place.captions()
    again = {"a shard": shards[2], "a manifest of features": IMAGES}.get(message, 0)
    assert (features["ok"], features["cached"], features["unrepaired_rows"]) == (again, IMAGES - again, 0)
    assert captions["input"] == IMAGES
    assert_sound(place.store)
    assert place.rows() == before
    assert place.features()["ok"] == 0


@pytest.mark.slow
def test_a_flipped_byte_in_any_file_is_found_and_repaired(place: Place) -> None:
    before = place.rows()
    left = {
        path.relative_to(place.store)
        for kind in ("features", "text", "datasets")
        for path in place.find(f"{kind}/**/*")
    }
    left = {path for path in left if "reports" not in path.parts} | {
        path.relative_to(place.store) for path in place.find("networks/*")
    }
    for name in sorted(left):
        if not (place.store / name).exists():
            continue
        flip(place.store / name)
        assert_found(place.store)
        place.features()
        place.captions()
        assert_sound(place.store)
        assert place.rows() == before, name


@pytest.mark.parametrize("change", ["missing", "short"])
def test_missing_and_truncated_shards_are_repaired_without_verification(place: Place, change: str) -> None:
    before, shard = place.rows(), place.live_shard(1)
    path = place.find(f"features/*/{shard.data.path}")[0]
    path.unlink() if change == "missing" else path.write_bytes(path.read_bytes()[:-100])
    assert place.features()["ok"] == shard.rows
    assert_sound(place.store)
    assert place.rows() == before


def test_whole_commits_are_repaired_in_place_without_a_log_entry(place: Place) -> None:
    entries = len(place.find("features/*/log/*"))
    before = {path: path.read_bytes() for path in place.find("features/**/*")}
    for path in place.find("features/*/*/*.tfrecord"):
        flip(path)
    assert_found(place.store)
    assert place.features()["ok"] == IMAGES
    assert {path: path.read_bytes() for path in place.find("features/**/*")} == before
    assert len(place.find("features/*/log/*")) == entries


def test_unrepaired_rows_are_listed_with_every_dataset_that_referenced_them(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    place.features(dataset_type="folder", annotations=[], dataset_name="all")
    store = capt.open_store(place.store)
    (table,) = store.feature_tables()
    hit, keys = max(zip(table.shards, table.key_blocks(), strict=True), key=lambda pair: pair[0].rows)
    named = {row["key"]: row["image_id"] for row in store.dataset("all").catalog().to_pylist()}
    lost = {named.pop(key.tobytes()) for key in keys[::2]}
    for name in list(named.values()):
        shutil.copy(place.images / name, half)
    place.features(dataset_type="folder", annotations=[], dataset_name="half", images=[str(half)])
    assert 0 < len(lost) < hit.rows
    flip(place.find(f"features/*/{hit.data.path}")[0])
    assert_found(place.store)
    result = place.features(dataset_type="folder", annotations=[], dataset_name="half", images=[str(half)])
    assert (result["ok"], result["unrepaired_rows"], result["cached"]) == (
        hit.rows - len(lost),
        len(lost),
        IMAGES - hit.rows,
    )
    assert {(one["dataset"], one["image_id"]) for one in result["unrepaired_examples"]} == {
        *(("all", name) for name in lost),
        *(("coco", str(int(name.split(".")[0]))) for name in lost),
    }
    (line,) = [record.getMessage() for record in caplog.records if "are not repaired" in record.getMessage()]
    assert "all (" in line
    assert "coco (" in line
    assert_sound(place.store)
    assert capt.open_store(place.store).feature_tables()[0].rows == IMAGES - len(lost)
    assert place.features(dataset_name="coco")["ok"] == len(lost)


def test_repair_with_another_toolchain_adds_a_commit_beside_the_intact_rows(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = place.live_shard(0)
    place.find(f"features/*/{shard.data.path}")[0].unlink()
    real = extract_shard.detect_toolchain()
    monkeypatch.setattr(extract_shard, "detect_toolchain", lambda: real | {"keras": "99"})
    assert place.features()["ok"] == shard.rows
    (table,) = capt.open_store(place.store).feature_tables()
    made_with = {m.facts.toolchain["keras"]: sum(s.rows for s in m.shards) for m in table.manifests}
    assert made_with == {real["keras"]: IMAGES - shard.rows, "99": shard.rows}
    assert_sound(place.store)


def test_a_frozen_extractor_that_differs_from_the_recorded_one_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.jobs import frozen_extractor

    (network,) = place.find("networks/*.pb")
    network.unlink()
    build = frozen_extractor._build
    monkeypatch.setattr(frozen_extractor, "_build", lambda *arguments: (build(*arguments)[0] + b"\0", (1,)))
    with pytest.raises(StoreError, match=f"expected SHA-256 {network.stem}, got "):
        place.features()
    assert not network.exists()


def test_finished_units_of_a_killed_run_are_repeated_if_their_shards_are_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.rows()
    shutil.rmtree(place.store / "features")

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(extraction_job.ExtractionJob, "_commit", killed)
        with pytest.raises(Killed):
            place.features()
    gone, short = place.find("features/*/*/*.tfrecord")[:2]
    kept = place.find("features/*/*/*.tfrecord")[2:]
    moments = [path.stat().st_mtime_ns for path in kept]
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    assert place.features()["ok"] == IMAGES
    assert [path.stat().st_mtime_ns for path in kept] == moments
    assert_sound(place.store)
    assert place.rows() == before


def test_a_corrupt_table_of_another_config_does_not_block_a_run(place: Place) -> None:
    for path in (*place.find("features/*/recipe.json"), *place.find("features/*/log/*.json")):
        path.write_bytes(b"")
    assert place.features(storage_dtype="int8")["ok"] == IMAGES


def test_opening_a_table_with_a_corrupt_config_is_one_line(place: Place) -> None:
    for kind, tables in (("features", "feature_tables"), ("text", "caption_tables")):
        (path,) = place.find(f"{kind}/*/recipe.json")
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(
            CorruptFileError, match=f"recipe.json: the table config is corrupt: expected SHA-256 {path.parent.name}"
        ):
            getattr(capt.open_store(place.store), tables)()
        path.unlink()
        with pytest.raises(CorruptFileError, match=r"recipe\.json: the table config is missing"):
            getattr(capt.open_store(place.store), tables)()
        path.write_bytes(whole)


def test_a_dry_run_on_a_corrupt_table_counts_the_rows_to_repair_and_changes_nothing(place: Place) -> None:
    shard = place.live_shard(3)
    place.find(f"features/*/{shard.data.path}")[0].unlink()
    before = {path: path.read_bytes() for path in place.find("**/*")}
    plan = place.features(dry_run=True)
    assert (plan["misses"], plan["hits"]) == (shard.rows, IMAGES - shard.rows)
    assert {path: path.read_bytes() for path in place.find("**/*")} == before


def test_splits_survive_a_corrupt_catalog(place: Place) -> None:
    (catalog,) = place.find("datasets/*/*/catalog.parquet")
    before = catalog.read_bytes()
    flip(catalog)
    assert place.features()["cached"] == IMAGES
    assert catalog.read_bytes() == before
    assert CommitLog(place.store / "datasets" / "coco").last() == 1
    assert verify(place.store).is_healthy
