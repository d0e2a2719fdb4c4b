import shutil
import threading

import numpy as np
import pytest

from features.text.tokenizer import Tokenizer
from features.text.transform import write_transform
from schemas.errors import RecordError, StoreError
from schemas.table_config import SPECIAL_TOKENS, CaptionTableConfig

WORDS = [*SPECIAL_TOKENS, "a", "dog", "runs"]


@pytest.fixture(scope="module")
def transform_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("transform")
    write_transform(WORDS, CaptionTableConfig(dataset="d", vocabulary="given:00"), path)
    return path


def test_tokens_are_concatenated_int64(transform_dir):
    tokens = Tokenizer(transform_dir).tokenize(["a dog", "", "a cat runs"])
    assert tokens.ids.dtype == tokens.lengths.dtype == tokens.untruncated.dtype == np.int64
    assert tokens.ids.tolist() == [2, 4, 5, 3, 2, 3, 2, 4, 1, 6, 3]
    assert tokens.lengths.tolist() == tokens.untruncated.tolist() == [4, 2, 5]
    assert [row.tolist() for row in tokens.rows()] == [[2, 4, 5, 3], [2, 3], [2, 4, 1, 6, 3]]


def test_without_captions_there_are_no_rows(transform_dir):
    tokens = Tokenizer(transform_dir).tokenize([])
    assert tokens.rows() == []
    assert tokens.ids.shape == tokens.lengths.shape == tokens.untruncated.shape == (0,)


def test_a_caption_has_the_same_tokens_in_every_batch(transform_dir):
    tokenizer = Tokenizer(transform_dir)
    captions = [" ".join(["a dog runs off"] * n) for n in range(50)]
    together = tokenizer.tokenize(captions).rows()
    assert all(np.array_equal(tokenizer.tokenize([c]).ids, row) for c, row in zip(captions, together, strict=True))


def test_text_becomes_token_ids_and_text_again(transform_dir):
    tokenizer = Tokenizer(transform_dir)
    assert tokenizer.words == WORDS
    assert tokenizer.detokenize(tokenizer.tokenize(["A dog  runs away!"]).ids) == "a dog runs <unk>"


def test_threads_share_one_tokenizer(transform_dir):
    tokenizer = Tokenizer(transform_dir)
    results = {}

    def tokenize(n):
        results[n] = tokenizer.tokenize(["a dog " * n] * 200).lengths.tolist()

    threads = [threading.Thread(target=tokenize, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [2 * n + 2] * 200 for n in range(1, 7)}


def test_an_unpaired_surrogate_is_invalid_text(transform_dir):
    with pytest.raises(RecordError, match="unpaired surrogate at character 2"):
        Tokenizer(transform_dir).tokenize(["a dog", "a \ud83d"])


def test_a_directory_without_a_transform_is_an_error(tmp_path, transform_dir):
    with pytest.raises(StoreError, match="the vocabulary is missing"):
        Tokenizer(tmp_path)
    copy = shutil.copytree(transform_dir, tmp_path / "copy")
    (copy / "transform_fn/saved_model.pb").unlink()
    with pytest.raises(StoreError, match="the transform graph is missing"):
        Tokenizer(copy)
