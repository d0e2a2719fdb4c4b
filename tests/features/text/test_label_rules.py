"""A label is text that an image can show; anything else is refused with its reason."""

import pytest

from features.text.label_rules import ANY_LABEL, LabelRules
from schemas.errors import RecordError, UsageError


@pytest.mark.parametrize(
    "text",
    ["null", "NaN", "007", "1e5", "a", "A b", "naïve", "שלום", "हिन्दी", "می\u200cخواهم", "漢字", "🙂", "-", "x" * 300],
)
def test_any_visible_text_is_a_label(text):
    assert ANY_LABEL.apply(text) == text


def test_labels_are_composed():
    assert ANY_LABEL.apply("e\u0301") == "é"


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "no label", "empty"),
        (" \t", "no label", "empty"),
        ("\u200d", "no label", "empty"),
        ("a\nb", "control character", "U+000A"),
        ("a\u2028b", "control character", "U+2028 LINE SEPARATOR"),
        ("ab\u200f", "invisible character", "U+200F RIGHT-TO-LEFT MARK"),
        ("a\u00adb", "invisible character", "U+00AD SOFT HYPHEN"),
        ("a\u00a0b", "unusual space", "U+00A0 NO-BREAK SPACE"),
        ("a\ud800", "invalid text", "U+D800"),
        (" ab", "space at an end", "' ab'"),
        ("ab ", "space at an end", "'ab '"),
        ("x" * 200_000, "too long", "200,000 characters"),
    ],
)
def test_what_an_image_cannot_show_is_no_label(text, reason, detail):
    with pytest.raises(RecordError) as caught:
        ANY_LABEL.apply(text)
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    caught.value.detail.encode()


def test_a_charset_refuses_other_characters_by_name():
    rules = LabelRules.parse("abcé")
    assert rules.apply("cabe\u0301") == "cabé"
    with pytest.raises(RecordError) as caught:
        rules.apply("aB")
    assert (caught.value.reason, caught.value.detail) == (
        "not in --charset",
        "'B' U+0042 LATIN CAPITAL LETTER B in 'aB'",
    )


def test_folded_case_also_folds_the_charset():
    assert LabelRules.parse("ABC", fold_case=True).apply("aBc") == "abc"
    assert LabelRules.parse(None, fold_case=True).apply("Straße") == "straße"


def test_a_charset_has_no_characters_that_labels_cannot_have():
    with pytest.raises(UsageError, match="--charset: a value is required"):
        LabelRules.parse("")
    with pytest.raises(UsageError, match=r"--charset: U\+000A is not a character of labels: control character"):
        LabelRules.parse("a\n")


def test_a_combining_mark_of_a_charset_does_not_join_its_neighbour():
    rules = LabelRules.parse("au\u0301")
    assert rules.apply("au") == "au"
    assert rules.apply("u\u0301") == "ú"
