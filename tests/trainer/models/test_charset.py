import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.models.charset import CHARACTERS, NUM_CLASSES, decode, encode


@given(st.lists(st.text(CHARACTERS, max_size=6)))
def test_labels_survive_encoding(words):
    ids = encode(words)
    assert ids.dtype == np.int32
    assert ids.shape == (len(words), max(map(len, words), default=0))
    assert decode(ids) == words


def test_characters_are_1_to_26_and_0_is_padding():
    np.testing.assert_array_equal(encode(["az", "null"]), [[1, 26, 0, 0], [14, 21, 12, 12]])
    assert NUM_CLASSES == 27


@pytest.mark.parametrize("word", ["Fail", "it's", "naïve", "a b", "a1"])
def test_other_characters_are_rejected(word):
    with pytest.raises(ValueError, match="is not a character from a to z"):
        encode(["fine", word])
