"""`capt store words` tells whether a word is known, how often it occurs in each split, and where."""

import json
from pathlib import Path

import pytest

import capt
from features.store import Store, create_store
from schemas.errors import StoreError, UsageError
from tests.workflows.show_stores import Photo, add_captions, add_dataset, photo
from workflows.show_words import print_words

CAPTIONS = {
    "train": ("A dog runs.", "a dog sees a dog"),
    "val": ("a dog drinks from a water bottle", "water, in a bottle"),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store")


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    splits = ["val" if i % 3 == 2 else "train" for i in range(9)]
    return [photo(tmp_path / "images", i, split, CAPTIONS[split]) for i, split in enumerate(splits)]


def words(store: Store, *given: str, **options) -> dict:
    result = capt.store_words(store.path, given, **options)
    assert json.loads(json.dumps(result)) == result
    return result


def word(store: Store, given: str, **options) -> dict:
    (one,) = words(store, given, **options)["words"]
    return one


def test_a_word_is_counted_by_split(store, photos):
    add_dataset(store, photos)
    add_captions(store, photos)
    dog = word(store, "DOG!")
    assert (dog["word"], dog["token_ids"], dog["in_vocabulary"], dog["reason"]) == ("dog", [5], True, "")
    assert dog["occurrences"] == {"train": 18, "val": 3}
    assert dog["captions"] == {"train": 12, "val": 3}
    assert dog["images"] == {"train": 6, "val": 3}


def test_the_words_of_a_phrase_follow_each_other(store, photos):
    add_captions(store, photos)
    bottle = word(store, "water bottle")
    assert bottle["captions"] == {"val": 3}
    assert (bottle["token_ids"], bottle["in_vocabulary"]) == ([None, None], False)
    assert bottle["reason"] == "water is in no train caption; bottle is in no train caption"


def test_a_word_of_train_captions_may_be_missing_in_the_vocabulary(store, photos):
    add_captions(store, photos)
    assert word(store, "sees")["reason"] == "sees is not in the reused vocabulary"


def test_examples_are_of_different_images_from_the_train_split_first(store, photos):
    add_dataset(store, photos)
    add_captions(store, photos)
    dog = word(store, "dog", num_examples=8)
    assert [one["split"] for one in dog["examples"]] == ["train"] * 6 + ["val"] * 2
    assert len({one["image_id"] for one in dog["examples"]}) == 8
    assert all(one["is_available"] and Path(one["image"]).exists() for one in dog["examples"])
    assert word(store, "dog", num_examples=3)["examples"] == dog["examples"][:3]


def test_the_page_shows_each_word_with_its_images(store, photos, tmp_path):
    add_dataset(store, photos)
    add_captions(store, photos)
    out = tmp_path / "words.html"
    assert words(store, "dog", "<b>", "zebra", output=str(out))["output"] == str(out)
    page = out.read_text(encoding="utf-8")
    assert page.count("<h3") == 3
    assert page.count("<img ") == 3
    assert "not in the vocabulary: zebra is in no train caption" in page


def test_captions_without_images_are_searched(store, photos, capsys):
    add_captions(store, photos)
    result = words(store, "dog", "zebra")
    assert [one["image"] for one in result["words"][0]["examples"]] == [""] * 3
    print_words(result)
    shown = capsys.readouterr().out
    assert "zebra is in no train caption." in shown
    assert "train captions" in shown
    assert "unused captions" not in shown


def test_words_that_are_equal_after_standardization_are_shown_once(store, photos):
    add_captions(store, photos)
    assert [one["word"] for one in words(store, "Dog", "dog.", "a")["words"]] == ["dog", "a"]


def test_a_special_token_is_not_a_word(store, photos):
    add_captions(store, photos)
    start = word(store, "<start>")
    assert (start["word"], start["in_vocabulary"]) == ("start", False)


def test_wrong_inputs_are_one_line(store, photos, tmp_path):
    add_dataset(store, photos)
    with pytest.raises(StoreError, match=r"the dataset pets has no captions. Add them with"):
        words(store, "dog")
    add_captions(store, photos)
    with pytest.raises(UsageError, match=r"'!!' has no word after standardization \(keras\)"):
        words(store, "!!")
    with pytest.raises(UsageError, match="character 1 is not valid Unicode"):
        words(store, "a\udc80")
    with pytest.raises(UsageError, match="this is a directory"):
        words(store, "dog", output=str(tmp_path))
