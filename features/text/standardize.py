r"""Standardizes captions and splits them into words with TensorFlow operations for the transform graph.

Each standardizer composes characters (Unicode NFC), splits at white space and control characters, and lower-cases;
accents are kept. Then

    keras         splits at filter characters: by default those of Keras' Tokenizer, ASCII punctuation except the
                  apostrophe
    alnum         splits at everything except letters, marks, numbers and `_`: `[^\p{L}\p{M}\p{N}_]+`
    punctuation   removes ASCII punctuation and symbols and all other Unicode punctuation: `t-shirt` is `tshirt`

No standardizer keeps `<` or `>`, so no text can become a special token.
"""

import re
import string

import tensorflow as tf
import tensorflow_text as tf_text

from schemas.choices import Standardizer
from schemas.table_config import KERAS_FILTERS

_SEPARATORS = r"[\p{Z}\p{Cc}]+"


def _split_at(filters: str) -> str:
    return f"[{re.escape(filters)}]+"


_RULES: dict[Standardizer, tuple[str, str]] = {
    "keras": (_split_at(KERAS_FILTERS), " "),
    "alnum": (r"[^\p{L}\p{M}\p{N}_]+", " "),
    "punctuation": (rf"[{re.escape(string.punctuation)}\p{{P}}]+", ""),
}

# The lower case of these letters and of ASCII I and J depends on the locale (SpecialCasing.txt: Turkish, Azeri,
# Lithuanian), and tf.strings.lower uses the locale of the worker's environment.
_LOCALE_LETTERS = {"\u0130": "i\u0307", "\u00cc": "\u00ec", "\u00cd": "\u00ed", "\u0128": "\u0129", "\u012e": "\u012f"}


def split_words(captions: tf.Tensor, standardizer: Standardizer, filters: str | None = None) -> tf.RaggedTensor:
    """Splits standardized captions, UTF-8 string [N], into words [N, (words)] in NFC, none of them empty.

    `filters` are the characters at which `keras` splits, in the form of `schemas.table_config.parse_filters`.
    """
    rule = _RULES[standardizer] if filters is None else (_split_at(filters), " ")
    # Separators are replaced first, because tf.strings.lower stops at NUL.
    text = tf.strings.regex_replace(tf_text.normalize_utf8(captions, "NFC"), _SEPARATORS, " ")
    text = tf.strings.lower(text)
    for capital, small in _LOCALE_LETTERS.items():
        text = tf.strings.regex_replace(text, capital, small)
    text = tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), *rule)
    # Lower-casing and removal can join a letter and a mark that have a composed form.
    return tf.strings.split(tf_text.normalize_utf8(text, "NFC"))
