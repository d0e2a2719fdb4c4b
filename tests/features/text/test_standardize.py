import os
import random
import re
import string
import subprocess
import sys
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from features.text.standardize import split_words
from features.text.tokenizer import Tokenizer
from features.text.transform import write_transform
from schemas.table_config import KERAS_FILTERS, SPECIAL_TOKENS, CaptionTableConfig, parse_filters

STANDARDIZERS = ("keras", "alnum", "punctuation")

# Unicode 3.2: old enough that Python, RE2 and ICU know every character, and know it alike.
OLD = unicodedata.ucd_3_2_0
CHARACTERS = "aAbBéÉßẞİıIiÌJĮſΑΣσςΐЖжאبक็なカ漢字한𝔸ﬁ"
MARKS = "\u0301\u0307\u030c\u0327\u0328\u0345\u0591\u093c\u0e31\u3099"
EMOJI = "🐶😀🏽❤\ufe0f\u200d👩🇨🇭"
OTHERS = "0٣²½_-'’“”.,;:!?#$%&()*+/<=>@[\\]^`{|}~¿、。€×"
# Sequences that a fault would take apart, and letters whose small form is another length, or depends on its place.
SEQUENCES = [
    "👩\u200d👩\u200d👧",
    "🏳\ufe0f\u200d🌈",
    "👍🏽",
    "1\ufe0f\u20e3",
    "ΟΔΟΣ",
    "ΌΣΟΣ.",
    "İI",
    "\u212aÅ\u212b",
    "ǅŉǰ",
    "ᾳͅΣ",
]
SPACES = " \t\n\r\v\f\0\x1c\x85\xa0\u2003\u2028\u3000"


ATOMS = [*CHARACTERS, *MARKS, *EMOJI, *OTHERS, *SPACES, *SEQUENCES]


def reference(standardizer, text):
    """Splits a text with Python's Unicode tables, independent of the graph."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if kind(c) == "Cc" or kind(c)[0] == "Z" else c for c in text).lower()
    if standardizer == "keras":
        text = "".join(" " if c in string.punctuation and c != "'" else c for c in text)
    if standardizer == "alnum":
        text = "".join(c if kind(c)[0] in "LMN" or c == "_" else " " for c in text)
    if standardizer == "punctuation":
        text = "".join("" if c in string.punctuation or kind(c)[0] == "P" else c for c in text)
    return [word for word in unicodedata.normalize("NFC", text).split(" ") if word]


def kind(character):
    return unicodedata.category(character)


def words_of(standardizer, texts):
    words = split_words(tf.constant([text.encode() for text in texts], tf.string, [len(texts)]), standardizer)
    return [[word.decode() for word in row] for row in words.to_list()]


@pytest.mark.parametrize("standardizer", STANDARDIZERS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(ATOMS), max_size=40).map("".join), max_size=30))
def test_the_graph_and_python_agree_on_accents_marks_cjk_and_emoji(standardizer, texts):
    assert words_of(standardizer, texts) == [reference(standardizer, text) for text in texts]


@pytest.mark.parametrize("standardizer", STANDARDIZERS)
def test_the_saved_graph_and_python_agree(standardizer, tmp_path):
    draw = random.Random(7)
    texts = ["".join(draw.choices(ATOMS, k=draw.randrange(40))) for _ in range(2000)]
    expected = [reference(standardizer, text) for text in texts]
    words = [*SPECIAL_TOKENS, *sorted({word for row in expected for word in row})]
    table_config = CaptionTableConfig(dataset="d", vocabulary="given:00", standardizer=standardizer)
    write_transform(words, table_config, tmp_path)
    got = [[words[number] for number in ids[1:-1]] for ids in Tokenizer(tmp_path).tokenize(texts).rows()]
    assert len(words) > 3000
    assert got == expected


@pytest.mark.parametrize("standardizer", STANDARDIZERS)
def test_the_graph_and_python_agree_on_every_character_of_unicode_3_2(standardizer):
    known = [c for c in map(chr, range(sys.maxunicode + 1)) if OLD.category(c) not in ("Cn", "Cs", "Co")]
    texts = [f"Ab{c}cD" for c in known]
    got = words_of(standardizer, texts)
    assert [
        (text, words) for text, words in zip(texts, got, strict=True) if words != reference(standardizer, text)
    ] == []


@pytest.mark.parametrize(
    ("standardizer", "words"),
    [
        ("keras", "a girl's t shirt 1 2 off"),
        ("alnum", "a girl s t shirt 1 2 off"),
        ("punctuation", "a girls tshirt 12 off"),
    ],
)
def test_a_plain_caption_is_split_by_the_standardizer(standardizer, words):
    assert words_of(standardizer, ["  A Girl's T-shirt,\n1/2\toff. "]) == [words.split()]


@pytest.mark.parametrize("standardizer", STANDARDIZERS)
def test_composed_and_decomposed_accents_give_equal_words(standardizer):
    written = ["CAFÉ", "cafe\u0301", "J\u030c", "\u01f0"]
    assert words_of(standardizer, written) == [["café"], ["café"], ["\u01f0"], ["\u01f0"]]


def test_removing_punctuation_leaves_composed_characters():
    assert words_of("punctuation", ["caf" + "e.\u0301"]) == [["café"]]


@pytest.mark.parametrize("standardizer", STANDARDIZERS)
def test_no_text_turns_into_a_special_token(standardizer):
    (words,) = words_of(standardizer, ["<pad> <unk> <start> <end> < start >"])
    assert words == ["pad", "unk", "start", "end", "start"]


@pytest.mark.parametrize("standardizer", STANDARDIZERS)
def test_text_after_a_nul_is_kept(standardizer):
    assert words_of(standardizer, ["A\0B"]) == [["a", "b"]]


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", pytest.param("lt_LT.UTF-8", marks=pytest.mark.slow)])
def test_the_locale_has_no_effect(locale):
    text = "I \u0130 I\u0307 J\u0301 \u00cc \u00cd \u0128 \u012e\u0301 \u012e"
    program = (
        "import tensorflow as tf; from features.text.standardize import split_words\n"
        f"words = split_words(tf.constant([{text!r}]), 'keras')\n"
        "print(b' '.join(words.values.numpy().tolist()).hex())"
    )
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True)
    assert bytes.fromhex(done.stdout).decode().split(" ") == reference("keras", text)


def test_the_filter_characters_are_ascii_punctuation_but_the_apostrophe():
    assert set(re.sub(r"\s", "", KERAS_FILTERS)) == set(string.punctuation) - {"'"}


def test_given_filter_characters_replace_the_default_ones():
    text = ["A well-known café, it's 5 € <off>"]
    filters = parse_filters("€'", "keras")
    words = split_words(tf.constant(text), "keras", filters).to_list()[0]
    assert [word.decode() for word in words] == ["a", "well-known", "café,", "it", "s", "5", "off"]


@pytest.mark.parametrize("filters", ["^", "]-a", "\\", "[:alpha:]", "é"])
def test_filter_characters_are_no_pattern(filters):
    words = split_words(tf.constant([f"x{filters}y z"]), "keras", parse_filters(filters, "keras")).to_list()[0]
    assert [words[0], *words[-2:]] == [b"x", b"y", b"z"]
