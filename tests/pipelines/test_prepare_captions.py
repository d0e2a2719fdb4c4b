"""A vocabulary is built from the train split, every caption is tokenized, and both are reused."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from features.text.tokenizer import Tokenizer
from pipelines.datasets.splits import compute_rank
from schemas.errors import CaptError, UsageError


def write(path: Path, captions: list[tuple[int, str]]) -> Path:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in sorted({i for i, _ in captions})]
    annotations = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(captions)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write(
        tmp_path / "captions_train2017.json",
        [(1, "A dog runs. "), (1, "The dog\nsleeps"), (2, "a cat runs"), (2, "A dog and a cat")],
    )


@pytest.fixture
def val(tmp_path: Path) -> Path:
    return write(tmp_path / "captions_val2017.json", [(9, "A zebra runs"), (9, "dog")])


def prepare(tmp_path: Path, *annotations: Path, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = capt.prepare_captions(
        store=str(tmp_path / "store"), dataset_type="coco", annotations=[str(path) for path in annotations], **options
    )
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def test_a_run_with_nothing_new_imports_neither_tensorflow_nor_beam(tmp_path: Path, train: Path) -> None:
    prepare(tmp_path, train)
    program = (
        "import capt, sys;"
        f"options = {{'store': {str(tmp_path / 'store')!r}, 'annotations': [{str(train)!r}]}};"
        "r = capt.prepare_captions(dataset_type='coco', **options);"
        "assert r['cached'] == 4, r;"
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_dry_run_of_another_table_changes_nothing_and_states_no_size(tmp_path: Path, train: Path) -> None:
    prepare(tmp_path, train)
    before = sorted((tmp_path / "store").rglob("*"))
    result = prepare(tmp_path, train, dry_run=True, min_count=2)
    assert result["misses"] == 4
    assert not {"shards", "bytes"} & set(result)
    assert sorted((tmp_path / "store").rglob("*")) == before


def test_words_of_the_train_split_get_token_ids_by_frequency(tmp_path: Path, train: Path, val: Path) -> None:
    result = prepare(tmp_path, train, val)
    assert (result["input"], result["ok"]) == (6, 6)
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    words = table.vocabulary()
    assert words[:6] == ["<pad>", "<unk>", "<start>", "<end>", "a", "dog"]
    assert words[6:] == ["runs", "cat", "the", "sleeps", "and"]
    assert "zebra" not in words


def test_every_caption_is_stored_with_its_tokens(tmp_path: Path, train: Path, val: Path) -> None:
    prepare(tmp_path, train, val)
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    rows = {(row["image_id"], row["caption"]): row for row in table.captions().to_pylist()}
    assert rows["1", "A dog runs. "]["tokens"] == [2, 4, 5, 6, 3]
    zebra = rows["9", "A zebra runs"]
    assert (zebra["tokens"], zebra["split"], zebra["dataset"]) == ([2, 4, 1, 6, 3], "val", "coco")
    assert table.facts.captions == {"train": 4, "val": 2}
    assert table.facts.unknown == {"train": 0, "val": 1}


def test_the_saved_transform_tokenizes_alike(tmp_path: Path, train: Path) -> None:
    prepare(tmp_path, train)
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    rows = table.captions().to_pylist()
    tokens = Tokenizer(table.transform_path).tokenize([row["caption"] for row in rows])
    assert [ids.tolist() for ids in tokens.rows()] == [row["tokens"] for row in rows]


def test_a_second_run_finds_everything_cached(tmp_path: Path, train: Path, val: Path) -> None:
    first = prepare(tmp_path, train, val)
    again = prepare(tmp_path, train, val)
    assert (again["cached"], again["ok"], again["shards"]) == (6, 0, 0)
    assert again["fingerprint"] == first["fingerprint"]


def test_new_val_captions_extend_the_table_and_keep_its_vocabulary(tmp_path: Path, train: Path, val: Path) -> None:
    first = prepare(tmp_path, train)
    result = prepare(tmp_path, train, val)
    assert (result["ok"], result["cached"], result["fingerprint"]) == (2, 4, first["fingerprint"])
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    assert table.captions().num_rows == 6


def test_captions_that_leave_the_table_are_counted(tmp_path: Path, train: Path, val: Path) -> None:
    assert prepare(tmp_path, train, val)["removed"] == 0
    assert prepare(tmp_path, train, dry_run=True)["removed"] == 2
    assert prepare(tmp_path, train)["removed"] == 2
    assert prepare(tmp_path, train)["removed"] == 0
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    assert table.captions().num_rows == 4


def test_new_train_captions_make_a_new_table(tmp_path: Path, train: Path) -> None:
    first = prepare(tmp_path, train)
    write(train, [(1, "A dog runs. "), (3, "A bird")])
    assert prepare(tmp_path, train)["fingerprint"] != first["fingerprint"]


def test_two_stores_of_the_same_captions_are_the_same_bytes(
    tmp_path: Path, train: Path, val: Path, reuse_transforms: dict[Any, Path]
) -> None:
    trees = []
    for name in ("one", "other"):
        reuse_transforms.clear()
        capt.prepare_captions(store=str(tmp_path / name), dataset_type="coco", annotations=[str(train), str(val)])
        root = tmp_path / name / "text"
        trees.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    assert trees[0] == trees[1]


def test_a_vocabulary_can_be_reused_for_another_dataset(tmp_path: Path, train: Path, val: Path) -> None:
    first = prepare(tmp_path, train)
    second = prepare(tmp_path, val, dataset_name="other", vocab_from=first["fingerprint"][:8])
    store = capt.open_store(tmp_path / "store")
    assert (
        store.caption_table(second["fingerprint"]).vocabulary()
        == store.caption_table(first["fingerprint"]).vocabulary()
    )
    with pytest.raises(UsageError, match="cannot be changed"):
        prepare(tmp_path, val, dataset_name="other", vocab_from=first["fingerprint"][:8], vocab_size=100)


def test_filters_are_part_of_the_table_only_if_they_differ_from_the_default(tmp_path: Path, train: Path) -> None:
    default = prepare(tmp_path, train)["fingerprint"]
    assert prepare(tmp_path, train, filters='!"#$%&()*+.,-/:;=?@[\\]^_`{|}~ ')["fingerprint"] == default
    changed = prepare(tmp_path, train, filters="!")["fingerprint"]
    assert changed != default
    store = capt.open_store(tmp_path / "store")
    assert "runs." in store.caption_table(changed).vocabulary()
    assert b"filters" not in store.caption_table(default).table_config.canonical
    listed = {one["fingerprint"]: one["filters"] for one in capt.store_ls(tmp_path / "store")["caption_tables"]}
    assert listed == {default: None, changed: "!<>"}


def test_filters_of_another_standardizer_are_wrong_usage(tmp_path: Path, train: Path) -> None:
    with pytest.raises(UsageError, match=r"^--filters: the standardizer alnum has no filter characters"):
        prepare(tmp_path, train, standardize="alnum", filters="!")


def test_vocab_size_min_count_and_max_length_limit_the_table(tmp_path: Path, train: Path) -> None:
    assert prepare(tmp_path, train, vocab_size=6)["vocab_size"] == 6
    assert prepare(tmp_path, train, min_count=2)["vocab_size"] == 8
    assert prepare(tmp_path, train, max_length=5)["truncated"] == 1


def test_truncated_captions_are_counted_again_on_a_second_run_and_after_new_captions(
    tmp_path: Path, train: Path, val: Path
) -> None:
    assert prepare(tmp_path, train, max_length=4)["truncated"] == 4
    assert prepare(tmp_path, train, max_length=4)["truncated"] == 4
    grown = prepare(tmp_path, train, val, max_length=4)
    assert (grown["truncated"], grown["ok"], grown["cached"]) == (5, 2, 4)
    (table,) = capt.store_stats(store=str(tmp_path / "store"))["caption_tables"]
    assert table["truncated"] == 5
    assert table["captions"] == {"train": 4, "val": 2}
    assert table["tokens"] == {"train": 16, "val": 7}
    assert table["lengths"]["train"] == {"min": 4, "mean": 4.0, "median": 4, "p95": 4, "max": 4}
    assert table["lengths"]["val"] == {"min": 3, "mean": 3.5, "median": 3, "p95": 4, "max": 4}
    assert table["oov_rate"] == {"train": 0.0, "val": 0.333333}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        *(({"vocab_size": size}, f"a vocabulary of {size} has no room") for size in (1, 4)),
        *(({"max_length": length}, f"a caption of {length} tokens has no room") for length in (1, 2)),
    ],
)
def test_limits_without_room_for_a_word_are_wrong_usage(
    tmp_path: Path, train: Path, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        prepare(tmp_path, train, **options)
    assert "Use at least" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_captions_fail_and_repeated_ones_are_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path / "captions_train2017.json", [(1, "A dog"), (1, "  "), (2, "A cat")])
    data = json.loads(path.read_text())
    data["annotations"].append(data["annotations"][0])
    path.write_text(json.dumps(data))
    result = prepare(tmp_path, path, max_failures="50%")
    assert (result["ok"], result["failed"], result["duplicate"], result["reasons"]) == (2, 1, 1, {"empty": 1})


def test_a_caption_of_an_image_that_the_annotations_do_not_list_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "captions_train2017.json", [(1, "A dog"), (2, "A cat"), (3, "A cow")])
    data = json.loads(path.read_text())
    data["annotations"].append({"id": 99, "image_id": 77, "caption": "A ghost"})
    path.write_text(json.dumps(data))
    result = prepare(tmp_path, path, max_failures="50%")
    assert (result["input"], result["ok"], result["reasons"]) == (4, 3, {"unknown image": 1})
    lost = [row for row in pq.read_table(result["report"]).to_pylist() if row["status"] == "failed"]
    assert [(row["record"], row["stage"]) for row in lost] == [("77#99", "parse")]
    seed = next(seed for seed in range(99) if min(("1", "2", "3", "77"), key=partial(compute_rank, seed)) == "77")
    limited = prepare(tmp_path, path, max_failures="50%", limit_images=1, seed=seed)
    assert (limited["ok"] + limited["cached"], limited["failed"]) == (1, 1)


@pytest.mark.parametrize("option", [{"split_ratios": "nan,nan,nan"}, {"max_failures": "nan%"}])
def test_an_invalid_number_is_wrong_usage(tmp_path: Path, train: Path, option: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="nan"):
        prepare(tmp_path, train, **option)


def test_limits_select_the_same_images_as_prepare_features(tmp_path: Path, photos: Any, coco: Any) -> None:
    annotations, images = coco(range(12)), photos(12)
    common = {"store": str(tmp_path / "store"), "dataset_type": "coco", "annotations": [str(annotations)], "seed": 3}
    capt.prepare_features(
        **common, images=[str(images)], extractor="mobilenet_v3_small", weights="random:1", limit_images=5
    )
    capt.prepare_captions(**common, limit_images=5)
    store = capt.open_store(tmp_path / "store")
    (table,) = store.caption_tables()
    catalog = set(store.dataset("coco").catalog()["image_id"].to_pylist())
    assert set(table.captions()["image_id"].to_pylist()) == catalog
    assert len(catalog) == 5


def captions_of(store: Path) -> list[tuple[str, str]]:
    """Image ID and caption ID of the captions in the only table, sorted."""
    (table,) = capt.open_store(store).caption_tables()
    rows = table.captions().to_pylist()
    return sorted((row["image_id"], row["caption_id"]) for row in rows)


def test_a_sample_has_captions_of_all_images_and_prepare_features_selects_their_images(
    tmp_path: Path, photos: Any, coco: Any
) -> None:
    common = {"dataset_type": "coco", "annotations": [str(coco(range(12)))], "seed": 3}
    samples = {}
    for count in (8, 16):
        store = tmp_path / f"store-{count}"
        result = capt.prepare_captions(store=str(store), sample_captions=count, **common)
        assert (result["input"], result["ok"], result["failed"]) == (count, count, 0)
        options = {"extractor": "pixels", "height": 32, "width": 32, "sample_captions": count}
        capt.prepare_features(store=str(store), images=[str(photos(12))], **common, **options)
        samples[count] = captions_of(store)
        catalog = capt.open_store(store).dataset("coco").catalog()
        assert set(catalog["image_id"].to_pylist()) == {image_id for image_id, _ in samples[count]}
    assert set(samples[8]) < set(samples[16])
    # 12 images have 60 captions; images in order of rank would have all five.
    assert len({image_id for image_id, _ in samples[16]}) > 6


def test_the_seed_determines_the_sample_and_a_large_sample_has_every_caption(tmp_path: Path, coco: Any) -> None:
    common = {"dataset_type": "coco", "annotations": [str(coco(range(12)))]}
    found = []
    for number, (seed, count) in enumerate([(1, 8), (1, 8), (2, 8), (1, 100)]):
        store = tmp_path / f"store-{number}"
        capt.prepare_captions(store=str(store), sample_captions=count, seed=seed, **common)
        found.append(captions_of(store))
    assert found[0] == found[1] != found[2]
    assert len(found[3]) == 60


def test_a_sample_contains_its_part_of_the_failed_captions(tmp_path: Path) -> None:
    path = write(tmp_path / "captions_train2017.json", [(n, "A dog" if n % 2 else " ") for n in range(40)])
    result = prepare(tmp_path, path, sample_captions=10, max_failures="100%")
    assert result["input"] == 10
    assert 0 < result["reasons"]["empty"] < 10


def test_a_sample_is_drawn_from_the_images_that_the_limit_keeps(tmp_path: Path, train: Path, val: Path) -> None:
    prepare(tmp_path, train, val, limit_images="train=1", sample_captions=3)
    images = [image_id for image_id, _ in captions_of(tmp_path / "store")]
    assert len(images) == 3
    assert {"1", "2"} - set(images)


def test_a_limit_by_split_keeps_as_many_images_of_each_split(tmp_path: Path, photos: Any, coco: Any) -> None:
    files = [coco(range(8), "captions_train2017.json"), coco(range(8, 12), "captions_val2017.json")]
    store = tmp_path / "store"
    common = {"store": str(store), "dataset_type": "coco", "annotations": list(map(str, files))}
    limited = {**common, "limit_images": "train=3,val=2"}
    options = {"images": [str(photos(12))], "extractor": "pixels", "height": 32, "width": 32}
    capt.prepare_features(**limited, **options)
    capt.prepare_captions(**limited)
    dataset = capt.open_store(store).dataset("coco")
    assert dataset.facts.images == {"train": 3, "val": 2}
    assert {image_id for image_id, _ in captions_of(store)} == set(dataset.catalog()["image_id"].to_pylist())
    capt.prepare_features(**common, **options, limit_images="val=1")
    assert capt.open_store(store).dataset("coco").facts.images == {"train": 8, "val": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_images": "train"}, "--limit-images: cannot parse 'train'. Write 1000, or train=10000,val=5000"),
        ({"limit_images": "dev=3"}, "--limit-images: there is no split 'dev'. Use one of train, val, test, unused"),
        ({"limit_images": "-3"}, "--limit-images: cannot parse '-3'"),
        ({"limit_images": "0"}, "--limit-images: expected at least 1, got 0"),
        ({"limit_images": "val=3,val=4"}, "--limit-images: 'val=3,val=4' names val twice"),
        ({"limit_captions": 3, "sample_captions": 3}, "--sample-captions: not valid with --limit-captions"),
        ({"sample_captions": 0}, "--sample-captions: expected greater than 0"),
        ({"split_ratios": "0.8,0.3"}, "--split-ratios: the fractions 0.8,0.3 are negative, or their sum is not 1"),
    ],
)
def test_invalid_limits_and_ratios_are_one_line(
    tmp_path: Path, train: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(tmp_path, train, **options)
    assert not (tmp_path / "store").exists()


def test_captions_without_a_train_split_have_a_hint(tmp_path: Path, val: Path) -> None:
    with pytest.raises(CaptError, match="--vocab-from FINGERPRINT"):
        prepare(tmp_path, val)


def test_a_min_count_that_no_word_reaches_is_one_line(tmp_path: Path, train: Path) -> None:
    with pytest.raises(CaptError, match="--min-count: no word"):
        prepare(tmp_path, train, min_count=1000)


def test_a_store_of_captions_only_verifies(tmp_path: Path, train: Path) -> None:
    prepare(tmp_path, train)
    found = capt.store_verify(store=str(tmp_path / "store"))
    assert (found["damaged"], found["missing"], found["orphaned"]) == ([], [], [])
