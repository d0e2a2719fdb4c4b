"""Words of CAPTCHAs: the list that comes with capt, and files of one's own."""

import re

import pytest

from features.synthetic.captchas import CHARACTERS, load_default_words, read_words
from schemas.errors import UsageError


def test_the_words_are_2500_of_three_to_five_letters():
    words = load_default_words()
    assert len(words) == len(set(words)) == 2500
    assert all(re.fullmatch("[a-z]{3,5}", word) for word in words)
    assert set("".join(words)) == set(CHARACTERS)
    assert {len(word) for word in words} == {3, 4, 5}


def test_null_and_doubled_and_tripled_letters_are_among_them():
    words = load_default_words()
    assert {"null", "book", "www", "brrr", "zzz"} <= set(words)
    assert sum(bool(re.search(r"(.)\1", word)) for word in words) > 200


def test_a_file_of_words_is_read_in_its_order(tmp_path):
    (tmp_path / "words.txt").write_text("null\nabc\n")
    assert read_words(tmp_path / "words.txt") == ("null", "abc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no word"),
        ("abc\nAbc\n", "line 2: 'Abc' is not three to five letters"),
        ("abc\n\n", "line 2: ''"),
        ("ab\n", "line 1: 'ab'"),
        ("abcdef\n", "line 1: 'abcdef'"),
        ("nöö\n", "line 1: 'nöö'"),
        ("abc\nabd\nabc\n", "line 3: 'abc' is there twice"),
    ],
)
def test_a_file_of_anything_else_is_one_clear_line(tmp_path, text, message):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_words(tmp_path / "words.txt")


def test_a_file_that_is_not_there_or_not_text_is_one_clear_line(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\0")
    for name in ("words.txt", "other.txt"):
        with pytest.raises(UsageError, match="cannot read the file"):
            read_words(tmp_path / name)
