import pytest

from features.text.vocabulary import detokenize, identify_given_vocabulary, read_vocabulary, write_vocabulary
from schemas.errors import StoreError
from schemas.table_config import SPECIAL_TOKENS

WORDS = [*SPECIAL_TOKENS, "a", "dog", "café", "字", "🐶"]


def test_the_file_has_one_word_per_line_in_the_order_of_token_ids(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    assert (tmp_path / "vocabulary.txt").read_bytes() == ("\n".join(WORDS) + "\n").encode()


def test_a_written_vocabulary_is_read_back(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    assert read_vocabulary(tmp_path / "vocabulary.txt") == WORDS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "dog"], "expected a vocabulary that starts with <pad> <unk> <start> <end>, got 'a dog'"),
        ([*SPECIAL_TOKENS, "a", "dog", "a"], "'a' has two token IDs: 4 and 6"),
        ([*SPECIAL_TOKENS, "a", "<unk>"], "'<unk>' has two token IDs: 1 and 5"),
        ([*SPECIAL_TOKENS, "hot dog"], "line 5 of the vocabulary is not one word: 'hot dog'"),
        ([*SPECIAL_TOKENS, "dog\n"], "line 5 of the vocabulary is not one word"),
        ([*SPECIAL_TOKENS, ""], "line 5 of the vocabulary is not one word: ''"),
    ],
)
def test_words_that_are_not_a_vocabulary_are_rejected(tmp_path, words, message):
    with pytest.raises(StoreError, match=message):
        write_vocabulary(tmp_path / "vocabulary.txt", words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<pad>\n<unk>\n<start>\n<end>\ndo", "truncated"),
        (b"", "truncated"),
        (b"<pad>\n<unk>\n<start>\n<end>\n\xff\n", "not UTF-8 at byte 26"),
        (b"a\n", "starts with"),
    ],
)
def test_a_corrupt_file_is_an_error_with_its_path(tmp_path, data, message):
    (tmp_path / "vocabulary.txt").write_bytes(data)
    with pytest.raises(StoreError, match=rf"vocabulary\.txt: .*{message}"):
        read_vocabulary(tmp_path / "vocabulary.txt")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="the vocabulary is missing"):
        read_vocabulary(tmp_path)


def test_token_ids_become_words_up_to_the_end_token():
    assert detokenize([2, 4, 5, 1, 8, 3, 0, 0, 4], WORDS) == "a dog <unk> 🐶"
    assert detokenize([4, 6], WORDS) == "a café"
    assert detokenize([], WORDS) == ""


def test_a_given_vocabulary_is_identified_by_its_words_and_their_order():
    names = {
        identify_given_vocabulary(WORDS),
        identify_given_vocabulary(WORDS[:-1]),
        identify_given_vocabulary([*WORDS[:4], *WORDS[:3:-1]]),
    }
    assert len(names) == 3
    assert all(name.startswith("given:") and len(name) == 6 + 64 for name in names)
