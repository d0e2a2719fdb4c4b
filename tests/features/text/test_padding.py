import numpy as np
import pytest

import capt
from schemas.errors import UsageError


def test_captions_are_padded_at_their_ends_to_the_longest():
    matrix = capt.pad_tokens([[2, 4, 5, 3], [2, 3], np.array([2, 4, 3])])
    assert matrix.dtype == np.int32
    assert matrix.tolist() == [[2, 4, 5, 3], [2, 3, 0, 0], [2, 4, 3, 0]]


def test_a_length_sets_the_number_of_columns():
    assert capt.pad_tokens([[2, 3]], 4).tolist() == [[2, 3, 0, 0]]
    assert capt.pad_tokens([]).shape == (0, 0)


def test_a_caption_is_never_truncated():
    with pytest.raises(UsageError, match=r"^length: a caption of 4 tokens is longer than 2. Use at least 4, or"):
        capt.pad_tokens([[2, 4, 5, 3]], 2)
