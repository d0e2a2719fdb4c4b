import hashlib
import shutil
import threading
import time

import pytest
import tensorflow as tf
import tensorflow_transform as tft

from features.text.tokenizer import Tokenizer
from features.text.transform import order_vocabulary, write_transform
from features.text.vocabulary import read_vocabulary
from schemas.errors import StoreError, UsageError
from schemas.table_config import SPECIAL_TOKENS, CaptionTableConfig

WORDS = [*SPECIAL_TOKENS, "a", "dog", "runs", "café"]


def table_config(**settings):
    return CaptionTableConfig(**({"dataset": "d", "vocabulary": "given:00"} | settings))


def rows(transform_dir, *captions):
    return [row.tolist() for row in Tokenizer(transform_dir).tokenize(captions).rows()]


def digests(directory):
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_words_become_token_ids_between_start_and_end(tmp_path):
    write_transform(WORDS, table_config(), tmp_path)
    assert rows(tmp_path, "A DOG runs.", "Cafe\u0301 cat", "") == [[2, 4, 5, 6, 3], [2, 7, 1, 3], [2, 3]]


def test_the_vocabulary_is_stored_with_the_graph(tmp_path):
    write_transform(WORDS, table_config(), tmp_path)
    assert read_vocabulary(tmp_path) == WORDS


def test_a_long_caption_is_truncated_and_keeps_its_end_token(tmp_path):
    write_transform(WORDS, table_config(max_length=4), tmp_path)
    tokens = Tokenizer(tmp_path).tokenize(["a dog runs a dog", "a dog", "a", ""])
    assert [row.tolist() for row in tokens.rows()] == [[2, 4, 5, 3], [2, 4, 5, 3], [2, 4, 3], [2, 3]]
    assert tokens.lengths.tolist() == [4, 4, 3, 2]
    assert tokens.untruncated.tolist() == [7, 4, 3, 2]
    assert tokens.truncated == 1


@pytest.mark.parametrize("standardizer", ["keras", "alnum", "punctuation"])
def test_the_graph_contains_the_standardizer_of_the_table_config(tmp_path, standardizer):
    words = [*SPECIAL_TOKENS, "t", "shirt", "tshirt", "girl's", "girls", "girl", "s"]
    write_transform(words, table_config(standardizer=standardizer), tmp_path)
    expected = {"keras": [2, 4, 5, 7, 3], "alnum": [2, 4, 5, 9, 10, 3], "punctuation": [2, 6, 8, 3]}
    assert rows(tmp_path, "T-shirt, girl's") == [expected[standardizer]]


def test_equal_words_give_equal_bytes(tmp_path):
    write_transform(WORDS, table_config(), tmp_path / "one")
    tf.function(lambda x: tf.cond(x > 0, lambda: x, lambda: -x))(tf.constant(1))
    worker = threading.Thread(target=write_transform, args=(WORDS, table_config(), tmp_path / "deep" / "two"))
    worker.start()
    worker.join()
    assert digests(tmp_path / "one") == digests(tmp_path / "deep" / "two")
    assert str(tmp_path).encode() not in (tmp_path / "one/transform_fn/saved_model.pb").read_bytes()


def test_only_the_transform_is_written(tmp_path):
    write_transform(WORDS, table_config(), tmp_path)
    assert sorted(digests(tmp_path)) == [
        "transform_fn/assets/vocabulary.txt",
        "transform_fn/saved_model.pb",
        "transform_fn/variables/variables.data-00000-of-00001",
        "transform_fn/variables/variables.index",
        "transformed_metadata/schema.pbtxt",
    ]


def test_a_moved_transform_tokenizes_as_before(tmp_path):
    write_transform(WORDS, table_config(), tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert rows(tmp_path / "there", "a café") == [[2, 4, 7, 3]]


def test_two_transforms_loaded_from_one_path_have_their_own_words(tmp_path):
    write_transform(WORDS, table_config(), tmp_path)
    first = Tokenizer(tmp_path)
    (tmp_path / "kept.txt").write_text("beside the transform")
    write_transform([*SPECIAL_TOKENS, "dog", "a"], table_config(), tmp_path)
    second = Tokenizer(tmp_path)
    assert first.tokenize(["a dog"]).ids.tolist() == [2, 4, 5, 3]
    assert second.tokenize(["a dog"]).ids.tolist() == [2, 5, 4, 3]
    assert (tmp_path / "kept.txt").exists()


def test_tensorflow_transform_reads_what_is_saved(tmp_path):
    write_transform(WORDS, table_config(max_length=4), tmp_path)
    output = tft.TFTransformOutput(str(tmp_path))
    features = output.transform_raw_features({"caption": tf.constant(["a dog runs", "café"])})
    assert features["tokens"].to_list() == [[2, 4, 5, 3], [2, 7, 3]]
    assert features["untruncated"].numpy().tolist() == [5, 3]
    assert set(output.transformed_feature_spec()) == {"tokens", "untruncated"}


def test_a_vocabulary_without_words_makes_each_word_oov(tmp_path):
    write_transform(SPECIAL_TOKENS, table_config(), tmp_path)
    assert rows(tmp_path, "a dog") == [[2, 1, 1, 3]]


def test_words_are_sorted_by_frequency_and_ties_in_reverse():
    counts = "2 cat\n2 ant\n10 bee\n2 élan\n2 car\n1 zoo\n".encode()
    assert order_vocabulary(counts) == [*SPECIAL_TOKENS, "bee", "élan", "cat", "car", "ant", "zoo"]


def test_words_that_are_not_a_vocabulary_are_rejected(tmp_path):
    with pytest.raises(StoreError, match="starts with"):
        write_transform(["a", "dog"], table_config(), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 4}, "a vocabulary of 4 has no room"),
        ({"max_length": 2}, "a caption of 2 tokens has no room"),
        ({"min_count": 0}, "invalid number 0"),
        ({"special": ("<p>", "<u>", "<s>", "<e>")}, "the special tokens must be <pad>"),
    ],
)
def test_limits_without_room_for_a_word_are_rejected(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        write_transform(WORDS, table_config(**settings), tmp_path)


def test_tokenizing_is_fast(tmp_path):
    write_transform(WORDS, table_config(), tmp_path)
    tokenizer = Tokenizer(tmp_path)
    captions = ["A dog runs to a café with its friends ."] * 10_000
    tokenizer.tokenize(captions[:10])
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        tokenizer.tokenize(captions)
        durations.append(time.perf_counter() - start)
    # The shortest, because other tests run beside this one.
    assert min(durations) < 2
