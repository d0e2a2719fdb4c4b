"""Training from a store in a bucket: from the mirror, at the speed of a disk, whatever fails on the way there."""

import shutil

import pytest

import capt
from features.io import retries
from features.io.cache_paths import cache_root
from features.io.locations import parse_location
from features.store.layout import LEASES
from tests.features.buckets import BUCKET, bucket
from tests.trainer.run_files import learned, lines_of

OPTIONS = {
    "units": 16,
    "embedding_dim": 12,
    "attention_dim": 10,
    "projection_dim": 14,
    "output_dim": 18,
    "batch_size": 16,
    "num_sample_captions": 0,
}


@pytest.fixture(scope="module", params=["s3", pytest.param("gs", marks=pytest.mark.slow)])
def remote(request, store, tmp_path_factory):
    """A copy of the store in a bucket, its address, and the faults of the way there."""
    with bucket(request.param, tmp_path_factory.mktemp("mirror")) as faults:
        root = parse_location(f"{request.param}://{BUCKET}/stores/one")
        # Tests that kill a run leave its lease in the store that all share.
        for path in sorted(path for path in store.path.rglob("*") if path.is_file() and path.parent.name != LEASES):
            (root / path.relative_to(store.path)).put(path.read_bytes())
        yield str(root), faults


def shards_asked(faults):
    return [one for one in faults.seen if one.startswith("GET") and ".tfrecord" in one]


@pytest.mark.slow
def test_a_run_learns_from_a_bucket_what_it_learns_from_a_directory(remote, store, tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "BASE_SECONDS", 0.01)
    address, faults = remote
    faults.plan(["half", "busy", "reset", "half"], lambda method, target: method == "GET" and "features-" in target)
    capt.train_captioner(store=address, run_dir=tmp_path / "remote", seed=4, epochs=2, hyperparameters=OPTIONS)
    assert faults.fates == []
    capt.train_captioner(store=store.path, run_dir=tmp_path / "local", seed=4, epochs=2, hyperparameters=OPTIONS)
    assert learned(lines_of(tmp_path / "remote")) == learned(lines_of(tmp_path / "local"))
    faults.plan([])
    capt.train_captioner(store=address, run_dir=tmp_path / "again", seed=4, epochs=2, hyperparameters=OPTIONS)
    assert learned(lines_of(tmp_path / "again")) == learned(lines_of(tmp_path / "local"))
    assert shards_asked(faults) == []
    assert not (parse_location(address) / "pins").exists()


def test_a_run_finds_its_store_again_and_is_scored_there(remote, tmp_path):
    address, _ = remote
    capt.train_captioner(store=address, run_dir=tmp_path / "run", seed=4, epochs=1, hyperparameters=OPTIONS)
    assert (tmp_path / "run" / "store.txt").read_text() == f"{address}\n"
    shutil.rmtree(cache_root() / "files")
    (scored,) = capt.evaluate(runs=[str(tmp_path / "run")], split="val")["runs"]
    assert scored["images"] > 0


def test_a_mirror_that_is_too_small_is_one_line(remote, tmp_path, monkeypatch):
    address, _ = remote
    monkeypatch.setenv("CAPT_CACHE_DIR", str(tmp_path / "small"))
    monkeypatch.setenv("CAPT_CACHE_SIZE", "20KB")
    with pytest.raises(capt.CaptError, match="CAPT_CACHE_SIZE"):
        capt.train_captioner(store=address, run_dir=tmp_path / "run", seed=4, epochs=1, hyperparameters=OPTIONS)
