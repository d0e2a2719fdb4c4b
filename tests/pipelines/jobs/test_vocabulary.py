import collections
import functools
import random
import re

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

import capt
from features.text.tokenizer import Tokenizer
from features.text.transform import write_transform
from features.text.vocabulary import read_vocabulary
from pipelines.jobs.vocabulary import build_vocabulary
from schemas.errors import UsageError
from schemas.table_config import SPECIAL_TOKENS, CaptionTableConfig

# Frequencies as in real captions: few words often, many words once.
ANIMALS = ["dog", "cat", "bird", "cow", "élan", "ox"]
CAPTIONS = [f"A {ANIMALS[n % 6]} runs on the {'hill' if n % 3 else 'red-brown sand'} ." for n in range(600)]
CAPTIONS += [f"Two dogs, number {n}!" for n in range(40)]


def table_config(**settings):
    return CaptionTableConfig(**({"dataset": "d", "vocabulary": "train:00"} | settings))


def batches_of(captions, size):
    return [pa.record_batch([pa.array(captions[i : i + size])], ["caption"]) for i in range(0, len(captions), size)]


def learn(tmp_path, batches, table_config):
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        size = build_vocabulary(
            pipeline | beam.Create(batches), table_config, tmp_path / "transform", tmp_path / "temp"
        )
        assert_that(size | beam.Map(lambda n: n >= len(SPECIAL_TOKENS)), equal_to([True]))
    return tmp_path / "transform"


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Returns the transform of CAPTIONS, built once per setting."""

    def build(**settings):
        return learn(tmp_path_factory.mktemp("learned"), batches_of(CAPTIONS, 100), table_config(**settings))

    return functools.cache(build)


def expected_words(captions, split, min_count=1, vocab_size=0):
    counts = collections.Counter(word for caption in captions for word in split(caption))
    ranked = sorted(((count, word.encode()) for word, count in counts.items() if count >= min_count), reverse=True)
    words = [*SPECIAL_TOKENS, *(word.decode() for _, word in ranked)]
    return words[: vocab_size or None]


def alnum(caption):
    return re.findall(r"\w+", caption.lower())


def punctuation(caption):
    return re.sub(r"[^\w\s]", "", caption.lower()).split()


@pytest.mark.parametrize(
    "settings", [{"vocab_size": 12}, {"vocab_size": 0}, {"min_count": 40}, {"min_count": 2, "vocab_size": 9}]
)
def test_the_most_frequent_words_are_first_and_ties_are_in_reverse_order(learned, settings):
    path = learned(standardizer="alnum", **settings)
    assert read_vocabulary(path) == expected_words(CAPTIONS, alnum, **settings)


def test_removed_punctuation_joins_words(learned):
    words = read_vocabulary(learned(standardizer="punctuation", max_length=6))
    assert words == expected_words(CAPTIONS, punctuation)
    assert "redbrown" in words


def test_order_and_batching_change_no_byte(tmp_path):
    shuffled = random.Random(3).sample(CAPTIONS, len(CAPTIONS))
    one = learn(tmp_path / "one", batches_of(CAPTIONS, 640), table_config())
    other = learn(tmp_path / "other", batches_of(shuffled, 7), table_config())
    assert (one / "transform_fn/saved_model.pb").read_bytes() == (other / "transform_fn/saved_model.pb").read_bytes()
    assert read_vocabulary(one) == read_vocabulary(other)


def test_a_built_and_a_reused_vocabulary_make_the_same_transform(learned, tmp_path):
    settings = {"standardizer": "punctuation", "max_length": 6}
    built = learned(**settings)
    write_transform(read_vocabulary(built), table_config(**settings), tmp_path)
    for path in [path for path in built.rglob("*") if path.is_file()]:
        assert path.read_bytes() == (tmp_path / path.relative_to(built)).read_bytes()


def test_words_outside_the_vocabulary_are_unknown(learned):
    tokenizer = Tokenizer(learned(standardizer="alnum", vocab_size=12))
    tokens = tokenizer.tokenize([*CAPTIONS, "A zebra"])
    assert tokens.ids.max() == 11
    assert tokens.rows()[-1].tolist() == [2, tokenizer.words.index("a"), 1, 3]


def test_other_columns_are_ignored(tmp_path):
    table = pa.table({"image_id": ["1", "2"], "caption": pa.chunked_array([["a dog"], ["a cat"]])})
    assert read_vocabulary(learn(tmp_path, [table], table_config())) == [*SPECIAL_TOKENS, "a", "dog", "cat"]


@pytest.mark.parametrize(("captions", "vocab_size"), [(["", "."], 0), (["each word once"], 50)])
def test_without_a_frequent_word_the_vocabulary_contains_special_tokens_only(tmp_path, captions, vocab_size):
    path = learn(tmp_path, batches_of(captions, 10), table_config(vocab_size=vocab_size, min_count=2))
    assert read_vocabulary(path) == list(SPECIAL_TOKENS)


def test_limits_without_room_for_a_word_are_refused_before_the_job(tmp_path):
    with pytest.raises(UsageError, match="--vocab-size"), beam.Pipeline(runner=FnApiRunner()) as pipeline:
        build_vocabulary(
            pipeline | beam.Create(batches_of(CAPTIONS, 9)), table_config(vocab_size=3), tmp_path, tmp_path
        )


def test_real_captions_give_the_known_ids(tmp_path, real_data):
    folder = real_data / "flickr8k-text"
    annotations = [folder / "Flickr8k.token.txt", folder / "Flickr_8k.trainImages.txt"]
    words = prepared_words(tmp_path, "flickr8k", annotations, standardize="punctuation")
    assert words[:10] == [*SPECIAL_TOKENS, "a", "in", "the", "on", "is", "and"]
    assert (words.index("dog"), words.index("hat"), len(words)) == (10, 97, 5000)
    train = set(annotations[1].read_text().split())
    lines = annotations[0].read_text(encoding="utf-8").splitlines()
    pairs = [re.fullmatch(r"(\S+)#\d[\t ](.*)", line).groups() for line in lines]
    captions = [caption for image, caption in pairs if image in train]
    assert len(captions) == 30_000
    assert words == expected_words(captions, punctuation, vocab_size=5000)


def test_the_captions_of_coco_give_the_known_number_of_ids(tmp_path, real_data):
    annotations = real_data / "coco" / "annotations" / "captions_train2014.json"
    if not annotations.is_file():
        pytest.skip("CAPT_TEST_DATA holds no coco/annotations/captions_train2014.json")
    words = prepared_words(tmp_path, "coco", [annotations], standardize="alnum", vocab_size=0, min_count=5)
    assert len(words) == 8_769


def prepared_words(tmp_path, dataset, annotations, **options):
    capt.prepare_captions(
        store=str(tmp_path / "store"), dataset_type=dataset, annotations=[str(path) for path in annotations], **options
    )
    (table,) = capt.open_store(tmp_path / "store").caption_tables()
    return table.vocabulary()
