"""`capt tokenize` shows the words and IDs of captions, and the words of IDs."""

import json

import pytest

import capt
from features.text.tokenizer import Tokenizer
from schemas.errors import StoreError, UsageError
from trainer.inference.tokenize_captions import print_tokens


def test_a_caption_table_tokenizes_as_its_saved_transform(store):
    (table,) = store.caption_tables()
    captions = ["A red square, at the top!", "there is a zebra", "!!"]
    result = capt.tokenize(captions, store=store.path)
    expected = Tokenizer(table.transform_path).tokenize(captions).rows()
    assert [one["token_ids"] for one in result["results"]] == [ids.tolist() for ids in expected]
    assert result["vocab_size"] == len(table.vocabulary())
    assert json.loads(json.dumps(result)) == result


def test_a_caption_is_shown_as_words_ids_and_text(store):
    (one,) = capt.tokenize("A red zebra!", store=store.path)["results"]
    assert one["words"] == ["a", "red", "zebra"]
    assert one["tokens"] == ["<start>", "a", "red", "<unk>", "<end>"]
    assert one["text"] == "a red <unk>"
    assert one["unknown_words"] == ["zebra"]


def test_token_ids_are_shown_as_words(store):
    words = store.caption_tables()[0].vocabulary()
    ids = f"2, {words.index('red')} {words.index('square')},3,0"
    (one,) = capt.tokenize(ids=ids, store=store.path)["results"]
    assert one["tokens"] == ["<start>", "red", "square", "<end>", "<pad>"]
    assert (one["text"], one["caption"]) == ("red square", None)


def test_settings_alone_build_the_vocabulary_from_the_captions():
    captions = ["A dog runs.", "A dog", "a t-shirt"]
    result = capt.tokenize(captions, standardize="keras", min_count=2)
    assert result["source"] == "keras, vocabulary of the given captions"
    assert [one["token_ids"] for one in result["results"]] == [[2, 4, 5, 1, 3], [2, 4, 5, 3], [2, 4, 1, 1, 3]]
    small = capt.tokenize(captions, vocab_size=5, max_length=3)["results"]
    assert [(one["token_ids"], one["truncated"]) for one in small] == [([2, 4, 3], True)] * 3
    assert capt.tokenize("a t-shirt", filters="!")["results"][0]["words"] == ["a", "t-shirt"]


def test_the_table_shows_each_token_with_its_id_and_the_unknown_words(store, capsys):
    print_tokens(capt.tokenize(["a red zebra"], ids=["2,3"], store=store.path))
    shown = capsys.readouterr().out
    assert next(line.split() for line in shown.splitlines() if "<unk>" in line) == ["<unk>", "zebra", "1"]
    assert "text: (empty)" in shown
    assert "caption table " in shown


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "there is nothing to tokenize"),
        ({"ids": "2,3"}, "--ids: only a vocabulary can convert token IDs to words"),
        ({"captions": "a", "store": "S", "run": "R"}, "--run: a store and a run are two sources"),
        ({"captions": "a", "store": "S", "min_count": 2}, "--min-count: the rules of the store cannot be changed"),
        ({"captions": "a", "caption_table": "00"}, "--caption-table: a caption table needs its store"),
        ({"captions": "a", "standardize": "alnum", "filters": "!"}, "--filters: the standardizer alnum has no"),
        ({"captions": "a", "max_length": 2}, "--max-length: a caption of 2 tokens has no room"),
        ({"captions": "a\udc80"}, "character 1 is not valid Unicode"),
    ],
)
def test_options_that_exclude_each_other_are_wrong_usage(options, problem):
    with pytest.raises(UsageError, match=problem):
        capt.tokenize(**options)


@pytest.mark.parametrize(
    ("ids", "problem"),
    [("2,x", "'x' is not a token ID"), ("999", "has no ID 999. Use 0 to "), (", ", "there are no token IDs")],
)
def test_unknown_token_ids_are_wrong_usage(store, ids, problem):
    with pytest.raises(UsageError, match=f"^--ids: .*{problem}"):
        capt.tokenize(ids=ids, store=store.path)


def test_a_store_without_a_single_caption_table_is_one_line(store, squares, tmp_path):
    empty = squares.create_store(tmp_path / "store")
    with pytest.raises(StoreError, match="the store has no caption table"):
        capt.tokenize("a", store=empty.path)
    for length in (5, 6):
        squares.add_captions(empty, squares.pictures(4), max_length=length)
    with pytest.raises(StoreError, match=r"several caption tables: .*Choose one with --caption-table FINGERPRINT"):
        capt.tokenize("a", store=empty.path)
