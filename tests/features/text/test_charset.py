import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.text.charset import Charset, count_characters, normalize_label

CYRILLIC = "абвгдеёжз"
HEBREW = "שלום"
HINDI = "हिन्दी"


@given(st.lists(st.text(CYRILLIC + "09Aa" + HEBREW + HINDI, min_size=1, max_size=6), min_size=1))
def test_labels_survive_encoding(labels):
    charset = Charset.from_labels(labels)
    ids = charset.encode(labels)
    assert ids.dtype == np.int32
    assert ids.shape == (len(labels), max(map(len, labels)))
    assert charset.decode(ids) == [normalize_label(label) for label in labels]


def test_ids_follow_the_code_points_and_0_is_padding():
    charset = Charset.from_labels(["b1", "A", "é"])
    assert charset.characters == ("1", "A", "b", "é")
    assert charset.num_classes == 5
    np.testing.assert_array_equal(charset.encode(["éA", "b"]), [[4, 2], [3, 0]])


def test_a_character_is_a_code_point_after_nfc():
    assert Charset.from_labels(["e\u0301"]).characters == ("é",)
    assert Charset.from_labels([HINDI]).encode([HINDI]).shape == (1, len(HINDI))


def test_case_and_digits_stay():
    assert count_characters(["Aa0", "0"]) == {"0": 2, "A": 1, "a": 1}


@pytest.mark.parametrize(
    ("text", "folded"),
    [("ABC", "abc"), ("ΣΑΣ", "σασ"), ("ς", "σ"), ("Straße", "straße"), ("ẞ", "ß"), ("ﬁ", "ﬁ"), ("J\u030c", "ǰ")],
)
def test_case_folding_keeps_one_character_per_character(text, folded):
    assert normalize_label(text, fold_case=True) == folded


def test_characters_that_the_charset_lacks_are_named():
    charset = Charset.from_labels(["abc"])
    assert charset.find_unknown(["cab", "äbÄ"]) == ("Ä", "ä")
    with pytest.raises(ValueError, match="'abä': the charset lacks 'ä'"):
        charset.encode(["abä"])


@pytest.mark.parametrize("characters", [(), ("b", "a"), ("a", "a"), ("ab",)])
def test_a_charset_has_each_character_once_in_order(characters):
    with pytest.raises(ValueError, match="at least one character"):
        Charset(characters)


def test_no_label_has_no_ids():
    assert Charset.from_labels(["a"]).encode([]).shape == (0, 0)
