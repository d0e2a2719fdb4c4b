import dataclasses

import numpy as np
import pytest

from features.store import create_store
from schemas.errors import CaptError, StoreError
from trainer.data.caption_data import join_captions, spans
from trainer.data.held_out_images import load_held_out_images
from trainer.data.table_selection import select_tables
from trainer.models.model_specs import model_spec

SPEC = model_spec("soft_attention")


def texts(captions):
    return [captions.tokens[a:b].tolist() for a, b in zip(captions.starts[:-1], captions.starts[1:], strict=True)]


def test_each_caption_refers_to_the_features_of_its_image(store, shown):
    tables = select_tables(store, SPEC)
    data = join_captions(tables)
    expected = {
        (picture.split, picture.key, tuple(len(c.split()) for c in sorted(picture.captions))) for picture in shown
    }
    got = set()
    for split in ("train", "val"):
        captions = data.splits[split]
        for i, row in enumerate(captions.rows):
            mine = [texts(captions)[n] for n in range(captions.first[i], captions.first[i + 1])]
            got.add((split, captions.keys[i].tobytes()))
            assert row == tables.features.lookup(captions.keys[i : i + 1])[0]
            picture = next(p for p in shown if p.key == captions.keys[i].tobytes())
            assert sorted(len(t) - 2 for t in mine) == sorted(len(c.split()) for c in picture.captions)
    assert got == {(split, key) for split, key, _ in expected}


def test_captions_keep_their_splits(store, shown):
    data = join_captions(select_tables(store, SPEC))
    for split in ("train", "val", "test"):
        assert len(data.splits[split]) == sum(len(p.captions) for p in shown if p.split == split)
    assert data.validation_split == "val"


def test_captions_of_the_first_images_are_selected(store):
    captions = join_captions(select_tables(store, SPEC)).splits["val"]
    few = captions.limit_images(3)
    assert few.keys.tolist() == captions.keys[:3].tolist()
    assert texts(few) == texts(captions)[: captions.first[3]]
    assert few.first.tolist() == captions.first[:4].tolist()
    assert captions.limit_images(None) is captions.limit_images(1000) is captions


def test_predicted_tokens_are_counted_without_the_start_token(store):
    captions = join_captions(select_tables(store, SPEC)).splits["val"]
    numbers = np.array([3, 0])
    tokens = [token for number in numbers for token in texts(captions)[number][1:]]
    assert captions.count_targets(numbers) == len(tokens)
    assert captions.count_targets(numbers, (0, tokens[0])) == len([token for token in tokens if token != tokens[0]])


def test_captions_without_features_are_skipped_and_counted(tmp_path, shown, squares):
    store = create_store(tmp_path / "s")
    squares.add_features(store, shown[:20])
    squares.add_captions(store, shown)
    squares.add_dataset(store, shown)
    data = join_captions(select_tables(store, SPEC))
    for split in ("train", "val"):
        assert data.skipped["without_features"][split] == sum(len(p.captions) for p in shown[20:] if p.split == split)
        assert len(data.splits[split]) == sum(len(p.captions) for p in shown[:20] if p.split == split)


def test_captions_of_images_missing_in_the_catalog_are_skipped_and_counted(tmp_path, shown, squares):
    store = create_store(tmp_path / "s")
    squares.add_features(store, shown[:10])
    squares.add_captions(store, shown[:12])
    squares.add_dataset(store, shown[:10])
    data = join_captions(select_tables(store, SPEC))
    assert data.skipped["without_features"]["train"] == sum(len(p.captions) for p in shown[10:12])


def test_an_empty_train_split_is_an_error_with_a_hint(tmp_path, shown, squares):
    held_out = [dataclasses.replace(picture, split="val") for picture in shown[:8]]
    with pytest.raises(CaptError, match="the train split has no captions"):
        join_captions(select_tables(squares.make_store(tmp_path / "a", held_out), SPEC))
    store = create_store(tmp_path / "b")
    squares.add_features(store, held_out)
    squares.add_captions(store, [*held_out, *shown[8:12]])
    squares.add_dataset(store, [*held_out, *shown[8:12]])
    with pytest.raises(CaptError, match=r"no features for any of the 9 captions.*Prepare the images"):
        join_captions(select_tables(store, SPEC))


def test_images_in_train_and_test_are_counted(tmp_path, shown, squares):
    twins = [dataclasses.replace(shown[i], image_id=f"twin{i}", split="test") for i in (0, 1)]
    data = join_captions(select_tables(squares.make_store(tmp_path / "s", [*shown[:8], *twins]), SPEC))
    assert data.count_shared_images() == 2


def test_the_digest_depends_on_captions_and_not_on_their_storage(tmp_path, shown, squares):
    digests = [
        join_captions(select_tables(made, SPEC)).train.digest
        for made in (
            squares.make_store(tmp_path / "a", shown[:16]),
            squares.make_store(tmp_path / "b", list(reversed(shown[:16])), dtype="float32"),
            squares.make_store(tmp_path / "c", shown[:15]),
        )
    ]
    assert digests[0] == digests[1] != digests[2]


def test_two_datasets_with_one_vocabulary_are_joined(tmp_path, squares):
    first, second = squares.pictures(16), squares.pictures(48)[16:]
    store = squares.make_store(tmp_path / "s", [*first, *second])
    squares.add_captions(store, second, "more")
    squares.add_dataset(store, second, "more")
    both = join_captions(select_tables(store, SPEC, ["squares", "more"]))
    one = join_captions(select_tables(store, SPEC, ["more"]))
    again = sum(len(p.captions) for p in second if p.split == "train")
    assert len(one.train) == again
    assert len(both.train) == again + sum(len(p.captions) for p in [*first, *second] if p.split == "train")
    assert len(both.train.rows) == len({p.key for p in [*first, *second] if p.split == "train"})


def test_spans_concatenates_ranges():
    np.testing.assert_array_equal(spans(np.array([5, 0, 9]), np.array([2, 0, 3])), [5, 6, 9, 10, 11])


def test_captions_in_another_split_than_their_images_are_refused(tmp_path, shown, squares):
    made = squares.make_store(tmp_path / "store", shown[:40])
    moved = [
        dataclasses.replace(picture, split="test" if picture.split == "train" else "train") for picture in shown[:2]
    ]
    squares.add_dataset(made, [*moved, *shown[2:40]])
    tables = select_tables(made, SPEC)
    with pytest.raises(StoreError, match="2 images"):
        join_captions(tables)
    with pytest.raises(StoreError, match="2 images"):
        load_held_out_images(tables, "test")
