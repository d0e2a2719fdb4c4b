import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.text.charset import Charset
from features.text.visual_order import decode_visually, encode_visually, logical_positions, visual_positions
from tests.features.text.bidirectional_algorithm import display

LABELS = st.text("ab12٢-.% שלبح\u064e", max_size=10)


LETTERS = st.text("שלבح", min_size=1, max_size=3)


def joined_words(characters, separators):
    """Words of one to three characters of a kind, with one separator between two."""
    word = st.one_of([st.text(one, min_size=1, max_size=3) for one in characters])
    return st.lists(st.tuples(word, st.sampled_from(separators)), max_size=3).map(
        lambda parts: "".join(map("".join, parts))[:-1]
    )


def alternating(parts):
    """Parts of right-to-left letters, and between them parts of numbers or of Latin words."""
    return st.lists(st.tuples(LETTERS, parts), max_size=4).flatmap(
        lambda pairs: parts.map(lambda first: first + "".join(map("".join, pairs)))
    )


NUMBERS = joined_words(["012", "٠١٢"], "-./:! ")
LATIN = joined_words(["abc"], "-./:!% ")


def displayed(text):
    return "".join(text[position] for position in visual_positions(text))


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("null", "null"),
        ("שלום", "םולש"),
        ("ب٢٣", "٢٣ب"),
        ("12ب345", "345ب12"),
        ("تهران-11", "11-نارهت"),
        ("ABب", "بAB"),
        ("אב 12-34", "12-34 בא"),
        ("1.5 אב 12:30", "12:30 בא 1.5"),
        ("אבcd-e1 f", "cd-e1 fבא"),
        ("ab cd-11 ef", "ab cd-11 ef"),
        ("ب12-34", "34-12ب"),
        ("ب12/34", "12/34ب"),
        ("12-34ب", "ب12-34"),
        ("ب12-34ש12-34", "12-34ש34-12ب"),
        ("ب٢/٣", "٢/٣ب"),
        ("ب٢/3", "٢/3ب"),
        ("ש٢/3", "3/٢ש"),
        ("", ""),
    ],
)
def test_right_to_left_characters_are_shown_in_reverse_and_numbers_among_them_are_not(label, shown):
    assert displayed(label) == shown


@given(LABELS)
def test_the_order_shown_gives_the_logical_order_back(label):
    shown = displayed(label)
    assert "".join(shown[position] for position in logical_positions(shown)) == label


@given(alternating(st.one_of(NUMBERS, LATIN)))
def test_numbers_and_latin_words_between_letters_are_ordered_as_in_the_standard(label):
    if any(letter in label for letter in "שלבح"):
        assert displayed(label) == display(label)


@given(st.lists(LABELS, min_size=1))
def test_labels_survive_visual_encoding(labels):
    charset = Charset.from_labels([*labels, "a"])
    assert decode_visually(charset, encode_visually(charset, labels)) == labels


def test_ids_are_those_of_the_characters_from_left_to_right():
    charset = Charset.from_labels(["אבג"])
    np.testing.assert_array_equal(encode_visually(charset, ["אבג", "א"]), [[3, 2, 1], [1, 0, 0]])
