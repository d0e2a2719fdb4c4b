import pytest

from features.text.vocabulary import detokenize, identify_given_vocabulary, read_vocabulary, write_vocabulary
from schemas.errors import StoreError
from schemas.table_config import SPECIAL_TOKENS

WORDS = [*SPECIAL_TOKENS, "a", "dog", "café", "字", "🐶"]


def test_the_file_holds_one_word_a_line_and_the_line_is_the_id(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    assert (tmp_path / "vocabulary.txt").read_bytes() == ("\n".join(WORDS) + "\n").encode()


def test_what_was_written_is_read(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    assert read_vocabulary(tmp_path / "vocabulary.txt") == WORDS


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a", "dog"], "expected a vocabulary that begins with <pad> <unk> <start> <end>, got 'a dog'"),
        ([*SPECIAL_TOKENS, "a", "dog", "a"], "'a' has two ids in the vocabulary: 4 and 6"),
        ([*SPECIAL_TOKENS, "a", "<unk>"], "'<unk>' has two ids in the vocabulary: 1 and 5"),
        ([*SPECIAL_TOKENS, "hot dog"], "line 5 of the vocabulary is not one word: 'hot dog'"),
        ([*SPECIAL_TOKENS, "dog\n"], "line 5 of the vocabulary is not one word"),
        ([*SPECIAL_TOKENS, ""], "line 5 of the vocabulary is not one word: ''"),
    ],
)
def test_words_that_are_no_vocabulary_are_refused(tmp_path, words, complaint):
    with pytest.raises(StoreError, match=complaint):
        write_vocabulary(tmp_path / "vocabulary.txt", words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"<pad>\n<unk>\n<start>\n<end>\ndo", "cut off"),
        (b"", "cut off"),
        (b"<pad>\n<unk>\n<start>\n<end>\n\xff\n", "no UTF-8 text at byte 26"),
        (b"a\n", "begins with"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, data, complaint):
    (tmp_path / "vocabulary.txt").write_bytes(data)
    with pytest.raises(StoreError, match=rf"vocabulary\.txt: .*{complaint}"):
        read_vocabulary(tmp_path / "vocabulary.txt")


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(StoreError, match="there is no vocabulary"):
        read_vocabulary(tmp_path)


def test_ids_become_words_up_to_the_end_token():
    assert detokenize([2, 4, 5, 1, 8, 3, 0, 0, 4], WORDS) == "a dog <unk> 🐶"
    assert detokenize([4, 6], WORDS) == "a café"
    assert detokenize([], WORDS) == ""


def test_a_given_vocabulary_is_named_by_its_words_in_their_order():
    names = {
        identify_given_vocabulary(WORDS),
        identify_given_vocabulary(WORDS[:-1]),
        identify_given_vocabulary([*WORDS[:4], *WORDS[:3:-1]]),
    }
    assert len(names) == 3
    assert all(name.startswith("given:") and len(name) == 6 + 64 for name in names)
