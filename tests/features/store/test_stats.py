"""List and statistics describe a store in plain JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import capt
from features.store import Store, create_store
from features.store.commit_log import CommitLog
from schemas.errors import CorruptFileError, StoreError
from tests.workflows.show_stores import (
    SHAPE,
    SHARDS,
    WORDS,
    Photo,
    add_captions,
    add_dataset,
    add_features,
    add_report,
    photo,
)
from workflows.print_store import _resizing, print_list, print_stats


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store")


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Eight photographs, six to train on; two captions each, five unknown words in all."""
    captions = [("a dog runs", f"a dog {'sleeps' if number % 4 else 'snores loudly'}") for number in range(8)]
    captions[7] = ("a dog", "a snail")
    return [photo(tmp_path / "images", i, "train" if i < 6 else "val", captions[i]) for i in range(8)]


def figures(store: Store) -> dict:
    result = capt.store_stats(store=str(store.path))
    assert json.loads(json.dumps(result)) == result
    return result


def listing(store: Store) -> dict:
    result = capt.store_ls(store=str(store.path))
    assert json.loads(json.dumps(result)) == result
    return result


def failed(result: dict) -> list[dict]:
    return [failure for report in result["reports"] for failure in report["failures"]]


def test_the_list_has_every_table_with_its_counts(store, photos):
    features = add_features(store, [each.key for each in photos])
    text = add_captions(store, photos)
    add_dataset(store, photos)
    result = listing(store)
    assert result["datasets"] == [{"name": "pets", "source": "folder", "images": {"train": 6, "val": 2}}]
    (table,) = result["feature_tables"]
    assert table.pop("bytes") == sum(path.stat().st_size for path in store.path.glob("features/*/0/*"))
    assert table == {
        "fingerprint": features,
        "extractor": "inception_v3",
        "weights": "random:7",
        "layer": "mixed10",
        "pooling": "none",
        "resize": "pillow-bilinear",
        "fit": "stretch",
        "shorter_side": None,
        "shape": list(SHAPE),
        "precision": "float32",
        "dtype": "float16",
        "format": "tfrecord",
        "rows": 8,
        "shards": SHARDS,
    }
    (table,) = result["caption_tables"]
    assert table.pop("bytes") > 0
    assert table == {
        "fingerprint": text,
        "dataset": "pets",
        "standardizer": "keras",
        "filters": None,
        "vocab_size": len(WORDS),
        "captions": {"train": 12, "val": 4},
        "shards": SHARDS,
    }


def test_the_list_reads_no_shard(store, photos):
    add_features(store, [each.key for each in photos])
    for path in store.path.glob("features/*/0/*"):
        path.unlink()
    assert listing(store)["feature_tables"][0]["rows"] == 8
    with pytest.raises(CorruptFileError, match="missing"):
        capt.store_stats(store=str(store.path))


def test_the_list_of_an_empty_store_is_empty(store, capsys):
    assert listing(store) == {"store": str(store.path), "datasets": [], "feature_tables": [], "caption_tables": []}
    assert figures(store)["leakage"] == {"count": 0, "examples": []}
    print_list(listing(store))
    print_stats(figures(store))
    assert capsys.readouterr().out.split("\n") == ["The store is empty."] * 2 + [""]


def test_a_directory_without_a_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="not a capt store"):
        capt.store_ls(store=str(tmp_path))
    with pytest.raises(StoreError, match="the store does not exist"):
        capt.store_stats(store=str(tmp_path / "nothing"))


def test_coverage_counts_the_images_that_have_rows_in_each_table(store, photos):
    every = add_features(store, [each.key for each in photos])
    some = add_features(store, [photos[0].key, photos[7].key, b"x" * 32], weights="random:8")
    add_dataset(store, photos)
    (dataset,) = figures(store)["datasets"]
    assert dataset["coverage"] == {every: 8, some: 2}
    assert dataset["bytes"] == sum(len(each.data) for each in photos)
    assert dataset["unique_images"] == 8


def test_images_with_equal_content_share_one_row(store, tmp_path):
    twins = [photo(tmp_path, number, seed=1) for number in range(3)]
    table = add_features(store, [twins[0].key])
    add_dataset(store, twins)
    result = figures(store)
    assert result["datasets"][0]["unique_images"] == 1
    assert result["datasets"][0]["coverage"] == {table: 3}
    assert result["feature_tables"][0]["images"] == 1


def test_stats_have_the_provenance_of_a_table(store, photos):
    keys = [each.key for each in photos]
    add_features(store, keys[:3])
    add_features(store, keys[3:5], toolchain={"keras": "3.16"})
    add_features(store, keys[5:], numerics="gpu-90")
    (table,) = figures(store)["feature_tables"]
    assert table["commits"] == 3
    assert table["numerics"] == {"cpu-avx2": 5, "gpu-90": 3}
    assert table["toolchains"] == [{"keras": "3.15"}, {"keras": "3.16"}]
    assert table["images"] == table["rows"] == 8
    assert table["bytes_per_image"] == pytest.approx(table["bytes"] / 8, abs=0.1)


def test_the_rows_of_a_shard_that_two_commits_contain_are_counted_once(store, photos):
    add_features(store, [each.key for each in photos])
    log = CommitLog(store.feature_tables()[0].root)
    (manifest,) = log.live()
    log.append(
        manifest.model_copy(update={"facts": manifest.facts.model_copy(update={"toolchain": {"keras": "3.16"}})})
    )
    (table,) = figures(store)["feature_tables"]
    assert (table["commits"], table["rows"], table["numerics"]) == (2, 8, {"cpu-avx2": 8})


def test_bytes_per_image_is_null_if_every_image_failed(store):
    add_features(store, [], failures={b"k" * 32: ("decode", "truncated", "cut off")})
    (table,) = figures(store)["feature_tables"]
    assert (table["images"], table["bytes_per_image"]) == (0, None)


def test_recorded_failures_are_grouped_with_at_most_three_examples(store, photos):
    why = {bytes([i]) * 32: ("decode", "truncated", f"cut at {i}") for i in range(5)}
    why[b"z" * 32] = ("store", "overflow", "too large")
    repaired = {photos[0].key: ("decode", "unsupported", "repaired since")}
    add_features(store, [], failures=why | repaired)
    add_features(store, [photos[0].key])
    (table,) = figures(store)["feature_tables"]
    truncated, overflow = table["failures"]
    assert (truncated["stage"], truncated["reason"], truncated["count"]) == ("decode", "truncated", 5)
    assert truncated["examples"] == [{"record": (bytes([i]) * 32).hex(), "detail": f"cut at {i}"} for i in range(3)]
    assert (overflow["reason"], overflow["count"]) == ("overflow", 1)


def test_caption_stats_agree_with_the_captions(store, photos):
    add_captions(store, photos)
    (table,) = figures(store)["caption_tables"]
    rows = store.caption_tables()[0].captions().to_pylist()
    lengths = [len(row["tokens"]) for row in rows]
    assert table["tokens"] == {"train": 62, "val": 18}
    assert sum(lengths) == sum(table["tokens"].values())
    assert table["mean_length"] == pytest.approx(sum(lengths) / len(lengths), abs=0.005)
    assert table["max_length"] == max(lengths)
    assert table["oov_rate"] == {"train": 0.105263, "val": 0.1}
    assert table["truncated"] == 0
    of_train = sorted(len(row["tokens"]) for row in rows if row["split"] == "train")
    assert table["lengths"]["train"] == {
        "min": of_train[0],
        "mean": round(62 / len(of_train), 2),
        "median": of_train[(len(of_train) + 1) // 2 - 1],
        "p95": of_train[-(-len(of_train) * 95 // 100) - 1],
        "max": of_train[-1],
    }


def test_a_caption_table_of_an_earlier_version_has_only_a_mean_length(store, photos, capsys):
    add_captions(store, photos)
    (root,) = (store.path / "text").iterdir()
    (manifest,) = CommitLog(root).live()
    facts = manifest.facts.model_copy(update={"lengths": None})
    assert b"lengths" not in manifest.model_copy(update={"facts": facts}).to_json()
    CommitLog(root).supersede(manifest.model_copy(update={"facts": facts}))
    (table,) = figures(store)["caption_tables"]
    assert table["lengths"] is None
    print_stats(figures(store))
    assert "–" in capsys.readouterr().out


def test_only_other_resize_settings_than_the_defaults_are_printed():
    entry = {"resize": "pillow-bilinear", "fit": "stretch", "shorter_side": None}
    assert list(_resizing(entry)) == []
    changed = {"resize": "tf-bilinear", "fit": "crop", "shorter_side": 320}
    assert list(_resizing(changed)) == ["resize tf-bilinear", "fit crop", "shorter side 320"]


def test_the_newest_report_of_each_kind_of_run_is_summarized(store):
    old = add_report(store, [("1", "failed", "decode", "truncated", "cut")])
    new = add_report(store, [("1", "ok"), *((f"{i}", "failed", "find", "missing", f"no {i}") for i in range(2, 7))])
    add_report(store, [("1#1", "failed", "parse", "empty", "no text"), ("1#2", "cached")], run="captions")
    os.utime(old, ns=(1, 1))
    result = figures(store)
    captions, features = result["reports"]
    assert (captions["run"], captions["input"], captions["cached"], captions["failed"]) == ("captions", 2, 1, 1)
    assert (features["run"], features["input"], features["ok"], features["failed"]) == ("features", 6, 1, 5)
    assert store.path / features["report"] == new
    empty, missing = failed(result)
    assert empty["examples"] == [{"record": "1#1", "detail": "no text"}]
    assert (missing["stage"], missing["reason"], missing["count"]) == ("find", "missing", 5)
    assert [example["record"] for example in missing["examples"]] == ["2", "3", "4"]


def test_a_corrupt_report_is_an_error(store):
    add_report(store, [("1", "ok")]).write_bytes(b"nothing that Parquet knows")
    with pytest.raises(CorruptFileError, match=r"reports/0/features\.parquet: the run report is corrupt"):
        capt.store_stats(store=str(store.path))


def test_leakage_within_and_across_datasets_is_found(store, tmp_path):
    ours = [photo(tmp_path / "a", 1), photo(tmp_path / "a", 2, "test", seed=1), photo(tmp_path / "a", 3, "val")]
    theirs = [photo(tmp_path / "b", 4, "test", seed=3), photo(tmp_path / "b", 5), photo(tmp_path / "b", 6, "test")]
    more = [photo(tmp_path / "c", 7, seed=6), photo(tmp_path / "c", 8, "unused", seed=5)]
    for name, photos in {"ours": ours, "theirs": theirs, "more": more}.items():
        add_dataset(store, photos, name)
    leaks = figures(store)["leakage"]
    assert leaks["count"] == 2
    found = {leak["key"]: (leak["train"], leak["test"]) for leak in leaks["examples"]}
    assert found == {
        ours[0].key.hex(): (["ours/1"], ["ours/2"]),
        theirs[2].key.hex(): (["more/7"], ["theirs/6"]),
    }


def test_an_image_in_train_and_val_is_not_leakage(store, tmp_path):
    add_dataset(store, [photo(tmp_path, 1, seed=1), photo(tmp_path, 2, "val", seed=1)])
    assert figures(store)["leakage"]["count"] == 0


def test_stats_are_printed_to_standard_output(store, photos, tmp_path, capsys):
    features = add_features(store, [each.key for each in photos], failures={b"k" * 32: ("decode", "bomb", "[red]")})
    text = add_captions(store, photos)
    add_dataset(store, [*photos, photo(tmp_path, 9, "test", seed=0)])
    add_report(store, [("9", "failed", "decode", "truncated", "cut \x1b[31moff")])
    print_list(listing(store))
    shown, chatter = capsys.readouterr()
    assert chatter == ""
    for part in ("pets", "folder", features[:16], "4×8", "random:7", text[:16], "keras"):
        assert part in shown
    print_stats(figures(store))
    shown = capsys.readouterr().out
    for part in (features[:16], text[:16], "cpu-avx2 (8 rows)", "keras 3.15", "truncated", "bomb", "[red]", "10.53%"):
        assert part in shown
    assert "train pets/0 = test pets/9" in shown
    assert "\x1b" not in shown


def test_stats_import_no_heavy_library():
    code = (
        "import sys, features.store.stats, workflows.print_store, workflows.show_examples\n"
        "print([name for name in ('tensorflow', 'keras', 'apache_beam', 'matplotlib') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
