"""Examples show all that is known of an image, also if parts are missing."""

import json
import zipfile
from pathlib import Path

import pytest

import capt
from features.inputs import FileReference
from features.store import Store, create_store
from schemas.errors import CaptError, StoreError, UsageError
from schemas.table_config import SPECIAL_TOKENS
from tests.trainer.words import add_words, captcha, put_images
from tests.workflows.show_stores import Photo, add_captions, add_dataset, photo, picture
from workflows.show_examples import print_examples

CAPTIONS = ("a dog runs", "A dog <b>snores</b>", "a dog sleeps")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store")


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return [photo(tmp_path / "images", i, "val" if i % 3 == 2 else "train", CAPTIONS) for i in range(9)]


def examples(store: Store, **options) -> dict:
    result = capt.store_show(store=str(store.path), **options)
    assert json.loads(json.dumps(result)) == result
    return result


def ids(result: dict) -> list[str]:
    return [example["image_id"] for example in result["examples"]]


def test_an_example_has_its_image_all_captions_split_and_tokens(store, photos):
    add_dataset(store, photos)
    text = add_captions(store, photos)
    result = examples(store)
    assert (result["dataset"], result["caption_table"], result["images"], result["shown"]) == ("pets", text, 9, 9)
    assert (result["unavailable_images"], result["without_captions"], result["without_image"]) == (0, 0, 0)
    example = next(example for example in result["examples"] if example["image_id"] == "2")
    assert example["split"] == "val"
    assert example["image"] == photos[2].reference.location
    assert example["is_available"]
    assert [caption["caption"] for caption in example["captions"]] == list(CAPTIONS)
    assert example["captions"][0]["token_ids"] == [2, 4, 5, 6, 3]
    assert example["captions"][0]["tokens"] == ["<start>", "a", "dog", "runs", "<end>"]
    assert example["captions"][1]["tokens"][1] == "<unk>"


def test_captions_are_in_the_order_of_their_ids(store, tmp_path):
    texts = [f"caption {number}" for number in range(12)]
    shown = [photo(tmp_path, 1, captions=texts)]
    add_dataset(store, shown)
    add_captions(store, shown)
    (example,) = examples(store)["examples"]
    assert [caption["caption"] for caption in example["captions"]] == texts


def test_a_seed_selects_the_same_examples_and_a_larger_number_adds_to_them(store, photos):
    add_dataset(store, photos)
    few, more = examples(store, num_examples=3), examples(store, num_examples=6)
    assert (few["shown"], few["images"]) == (3, 9)
    assert ids(more)[:3] == ids(few)
    assert ids(examples(store, num_examples=3)) == ids(few)
    assert {tuple(ids(examples(store, num_examples=3, seed=seed))) for seed in range(5)} != {tuple(ids(few))}


def test_split_selects_the_examples_of_one_split(store, photos):
    add_dataset(store, photos)
    add_captions(store, photos)
    result = examples(store, split="val")
    assert sorted(ids(result)) == ["2", "5", "8"]
    assert result["images"] == 3
    assert examples(store, split="test")["examples"] == []


def test_the_page_shows_every_example(store, photos, tmp_path):
    add_dataset(store, photos)
    add_captions(store, photos)
    out = tmp_path / "new" / "page.html"
    result = examples(store, output=str(out), num_examples=4)
    page = out.read_text(encoding="utf-8")
    assert result["output"] == str(out)
    assert page.count("<article") == 4
    assert page.count("<img ") == 4
    assert page.count("a dog runs") == 4
    assert "&lt;b&gt;snores&lt;/b&gt;" in page
    assert "4 of 9" in page
    assert all(f"image {image_id}" in page for image_id in ids(result))


def test_a_missing_corrupt_or_changed_image_does_not_affect_others(store, photos, tmp_path):
    damaged = photo(tmp_path / "images", 9, captions=CAPTIONS)
    damaged = Photo("9", damaged.data[:-20], damaged.reference, "train", CAPTIONS)
    Path(damaged.reference.location).write_bytes(damaged.data)
    add_dataset(store, [*photos, damaged])
    add_captions(store, [*photos, damaged])
    Path(photos[0].reference.location).unlink()
    Path(photos[1].reference.location).write_bytes(picture(777))
    out = tmp_path / "page.html"
    result = examples(store, output=str(out))
    page = out.read_text(encoding="utf-8")
    assert (result["shown"], result["unavailable_images"]) == (10, 2)
    assert {example["image_id"] for example in result["examples"] if not example["is_available"]} == {"0", "1"}
    assert page.count("<article") == 10
    assert page.count("<img ") == 7
    assert page.count("the image is not available") == 2
    assert page.count("the image cannot be shown: truncated") == 1


def test_images_are_read_in_place_from_an_archive(store, tmp_path):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train/1.png", picture(1))
    shown = [
        Photo("1", picture(1), FileReference(str(archive), "train/1.png")),
        Photo("2", picture(2), FileReference(str(archive), "train/2.png")),
    ]
    add_dataset(store, shown)
    result = examples(store)
    assert {example["image_id"]: example["is_available"] for example in result["examples"]} == {"1": True, "2": False}
    assert {example["image"] for example in result["examples"]} == {
        f"{archive}/train/1.png",
        f"{archive}/train/2.png",
    }


def test_a_dataset_without_captions_is_shown(store, photos, tmp_path, capsys):
    add_dataset(store, photos)
    out = tmp_path / "page.html"
    result = examples(store, output=str(out))
    assert (result["caption_table"], result["shown"], result["without_captions"]) == (None, 9, 9)
    assert all(example["captions"] == [] for example in result["examples"])
    assert out.read_text(encoding="utf-8").count("<img ") == 9
    print_examples(examples(store))
    assert "9 of 9 examples of pets" in capsys.readouterr().out


def test_captions_without_images_are_shown(store, photos, tmp_path):
    add_captions(store, photos)
    out = tmp_path / "page.html"
    result = examples(store, output=str(out), split="train")
    assert (result["shown"], result["unavailable_images"], result["without_image"]) == (6, 6, 9)
    assert all(example["image"] == "" and len(example["captions"]) == 3 for example in result["examples"])
    page = out.read_text(encoding="utf-8")
    assert page.count("the image is not available") == 6
    assert page.count("a dog sleeps") == 6


def test_examples_of_a_complete_dataset_have_image_and_captions(store, photos):
    add_dataset(store, photos[:6])
    add_captions(store, photos[4:])
    result = examples(store)
    assert sorted(ids(result)) == ["4", "5"]
    assert (result["without_captions"], result["without_image"]) == (4, 3)


def test_several_datasets_without_option_are_an_error(store, photos):
    add_dataset(store, photos)
    add_captions(store, photos, "flowers")
    with pytest.raises(StoreError, match=r"several datasets: flowers, pets"):
        examples(store)
    assert examples(store, dataset="pets")["caption_table"] is None
    assert examples(store, dataset="flowers")["without_image"] == 9


def test_several_caption_tables_without_option_are_an_error(store, photos):
    add_dataset(store, photos)
    first, second = add_captions(store, photos), add_captions(store, photos, words=(*SPECIAL_TOKENS, "a"))
    with pytest.raises(StoreError, match=r"several caption tables match") as error:
        examples(store)
    assert first[:16] in str(error.value)
    assert second[:16] in str(error.value)
    result = examples(store, caption_table=second[:6])
    assert result["caption_table"] == second
    assert result["examples"][0]["captions"][0]["tokens"] == ["<start>", "a", "<unk>", "<unk>", "<end>"]


def test_a_caption_table_selects_its_dataset(store, photos):
    add_dataset(store, photos)
    add_dataset(store, photos[:2], "flowers")
    text = add_captions(store, photos)
    assert examples(store, caption_table=text)["dataset"] == "pets"
    with pytest.raises(StoreError, match=f"the caption table {text[:16]} contains captions of pets"):
        examples(store, caption_table=text, dataset="flowers")


def test_the_error_for_an_unknown_dataset_lists_the_datasets(store, photos):
    add_dataset(store, photos)
    with pytest.raises(StoreError, match=r"no dataset 'cats'.*pets"):
        examples(store, dataset="cats")


def test_a_store_without_datasets_is_an_error(store):
    with pytest.raises(StoreError, match=r"no dataset.*capt prepare"):
        examples(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_examples": 0}, "--num-examples"),
        ({"split": "dev"}, "--split: .*'dev'"),
    ],
)
def test_invalid_options_are_usage_errors(store, options, message):
    with pytest.raises(UsageError, match=message):
        examples(store, **options)


def test_a_page_that_cannot_be_written_is_an_error(store, photos, tmp_path):
    add_dataset(store, photos)
    with pytest.raises(UsageError, match="this is a directory"):
        examples(store, output=str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptError, match=r"file/page\.html: the page cannot be written"):
        examples(store, output=str(tmp_path / "file" / "page.html"))


def test_the_examples_or_the_path_of_their_page_are_printed(store, photos, tmp_path, capsys):
    add_dataset(store, photos)
    add_captions(store, photos)
    Path(photos[0].reference.location).unlink()
    print_examples(examples(store))
    shown = capsys.readouterr().out
    assert "9 of 9 examples of pets" in shown
    assert shown.count("<start>/2 a/4 dog/5 runs/6 <end>/3") == 9
    assert shown.count("A dog <b>snores</b>") == 9
    assert "Images that cannot be read: 1" in shown
    print_examples(examples(store, output=str(tmp_path / "page.html")))
    assert f"9 of 9 examples of pets: {tmp_path / 'page.html'}" in capsys.readouterr().out
    print_examples(examples(store, split="test"))
    assert "There are no examples to show." in capsys.readouterr().out


def test_the_label_of_a_captcha_is_shown_as_its_caption(store, tmp_path, capsys):
    shown = [captcha(number, split) for number, split in enumerate(("train", "train", "test"))]
    add_words(store, shown, ("train",), put_images(tmp_path / "images", shown))
    result = examples(store, output=str(tmp_path / "page.html"))
    words = {example["image_id"]: [c["caption"] for c in example["captions"]] for example in result["examples"]}
    assert words == {"a0": ["an"], "a1": ["no"], "a2": []}
    assert (result["without_captions"], result["unavailable_images"]) == (1, 0)
    assert ">no</span>" in (tmp_path / "page.html").read_text()
    print_examples(examples(store))
    assert "an" in capsys.readouterr().out
