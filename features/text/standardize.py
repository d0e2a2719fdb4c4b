r"""Standardizers: how a caption's text becomes words, in TensorFlow operations that a transform graph can hold.

All of them compose characters (Unicode NFC), take every white space and control character for a separator and
lower-case; accents are kept. Then

    keras         the Keras Tokenizer's filter characters separate words: ASCII punctuation but the apostrophe
    alnum         everything but letters, marks, numbers and `_` separates words: `[^\p{L}\p{M}\p{N}_]+`
    punctuation   ASCII punctuation and symbols and all other Unicode punctuation are removed: `t-shirt` is `tshirt`

None of them leaves `<` or `>`, so no text can turn into a special token.
"""

import re
import string

import tensorflow as tf
import tensorflow_text as tf_text

from schemas.choices import Standardizer

KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'

_SEPARATORS = r"[\p{Z}\p{Cc}]+"

_RULES: dict[Standardizer, tuple[str, str]] = {
    "keras": (f"[{re.escape(KERAS_FILTERS)}]+", " "),
    "alnum": (r"[^\p{L}\p{M}\p{N}_]+", " "),
    "punctuation": (rf"[{re.escape(string.punctuation)}\p{{P}}]+", ""),
}

# Unicode's lower-casing lets the locale decide over these and over ASCII I and J (SpecialCasing.txt: Turkish, Azeri,
# Lithuanian), and tf.strings.lower takes the locale from the worker's environment.
_LOCALE_LETTERS = {"\u0130": "i\u0307", "\u00cc": "\u00ec", "\u00cd": "\u00ed", "\u0128": "\u0129", "\u012e": "\u012f"}


def split_words(captions: tf.Tensor, standardizer: Standardizer) -> tf.RaggedTensor:
    """The words of each caption.

    Args:
        captions: string [N]. UTF-8 text.
        standardizer: str. `keras`, `alnum` or `punctuation`.

    Returns:
        string [N, (words)]. UTF-8 words in NFC, none of them empty.
    """
    pattern, replacement = _RULES[standardizer]
    # Separators go first: tf.strings.lower takes NUL for the end of the text.
    text = tf.strings.regex_replace(_composed(captions), _SEPARATORS, " ")
    text = tf.strings.regex_replace(_lower(text), pattern, replacement)
    # Lower-casing and removing can bring a letter and a mark together that have a composed form.
    return tf.strings.split(_composed(text))


def _composed(text: tf.Tensor) -> tf.Tensor:
    return tf_text.normalize_utf8(text, "NFC")


def _lower(text: tf.Tensor) -> tf.Tensor:
    text = tf.strings.lower(text)
    for capital, small in _LOCALE_LETTERS.items():
        text = tf.strings.regex_replace(text, capital, small)
    return tf.strings.lower(text, encoding="utf-8")
