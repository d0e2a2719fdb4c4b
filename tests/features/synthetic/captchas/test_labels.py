"""Labels are words of the package, words of the user, or random characters of a set."""

import re
import unicodedata
from string import ascii_lowercase

import numpy as np
import pytest

from features.synthetic.captchas.labels import (
    draw_label,
    load_default_words,
    needs_shaping,
    parse_characters,
    read_words,
    select_words,
)
from schemas.errors import UsageError


def test_there_are_2500_default_words_of_three_to_five_letters():
    words = load_default_words()
    assert len(words) == len(set(words)) == 2500
    assert all(re.fullmatch("[a-z]{3,5}", word) for word in words)
    assert set("".join(words)) == set(ascii_lowercase)
    assert {len(word) for word in words} == {3, 4, 5}


def test_the_default_words_include_null_and_repeated_letters():
    words = load_default_words()
    assert {"null", "book", "www", "brrr", "zzz"} <= set(words)
    assert sum(bool(re.search(r"(.)\1", word)) for word in words) > 200


def test_a_word_list_is_read_in_its_order(tmp_path):
    (tmp_path / "words.txt").write_text("null\r\nNöö\r\nпривет\n007\n", encoding="utf-8")
    assert read_words(tmp_path / "words.txt") == ("null", "Nöö", "привет", "007")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("abc\n\n", "line 2: '' is empty"),
        ("abc\na b\n", "line 2: 'a b' has white space"),
        ("a\u200b\n", "line 1: 'a\\u200b' has white space or an invisible character"),
        ("a" * 201, "has more than 200 characters"),
        ("abc\nabd\nabc\n", "line 3: 'abc' is repeated"),
    ],
)
def test_an_invalid_word_list_is_an_error_with_the_line(tmp_path, text, message):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_words(tmp_path / "words.txt")


def test_a_missing_or_binary_word_list_is_an_error(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\0")
    for name in ("words.txt", "other.txt"):
        with pytest.raises(UsageError, match="cannot read the file"):
            read_words(tmp_path / name)


def test_words_are_selected_by_length():
    assert select_words(("a", "bcd", "efgh"), (2, 3)) == ("bcd",)
    with pytest.raises(UsageError, match="--lengths: no word has 8 to 9 characters"):
        select_words(("a", "bcd"), (8, 9))


def test_characters_are_the_code_points_after_nfc_each_once_and_in_order():
    assert parse_characters("ba1a") == ("1", "a", "b")
    assert parse_characters("e\u0301") == ("é",)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a b", "' ' is invisible"), ("a\u200d", "is invisible"), ("\u0301\u0308", "are combining marks")],
)
def test_characters_that_no_label_can_have_are_rejected(text, message):
    with pytest.raises(UsageError, match=f"--charset: .*{message}"):
        parse_characters(text)


def test_random_labels_have_all_characters_and_lengths_equally_often():
    random = np.random.default_rng(1)
    labels = [draw_label("xyz", (1, 4), random) for _ in range(400)]
    assert {len(label) for label in labels} == {1, 2, 3, 4}
    counts = [sum(label.count(character) for label in labels) for character in "xyz"]
    assert sum(counts) == sum(map(len, labels))
    assert max(counts) < 1.3 * min(counts)


def test_a_combining_mark_follows_another_character_and_is_not_composed():
    random = np.random.default_rng(1)
    labels = [draw_label("aе\u0301", (2, 4), random) for _ in range(100)]
    assert any("\u0301" in label for label in labels)
    assert not any(label.startswith("\u0301") or "\u0301\u0301" in label for label in labels)
    assert all(unicodedata.is_normalized("NFC", label) and set(label) <= set("aе\u0301") for label in labels)


def test_right_to_left_and_marked_labels_are_drawn_as_one_piece():
    assert [needs_shaping(label) for label in ("thus", "привет", "漢字", "שלום", "سلام", "а\u0301")] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
