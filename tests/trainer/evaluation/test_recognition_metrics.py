from string import ascii_lowercase

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.recognition_metrics import RecognitionScores, align, rank_correct, rank_errors, wilson_interval

WORDS = st.text("abcd", max_size=6)


def distance(one, other):
    """Levenshtein's, by its recursion."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(WORDS, WORDS)
def test_an_alignment_has_all_letters_in_order_and_the_fewest_edits(truth, read):
    pairs = align(truth, read)
    assert "".join(said for said, _ in pairs) == truth
    assert "".join(seen for _, seen in pairs) == read
    assert sum(said != seen for said, seen in pairs) == distance(truth, read)


def test_whole_words_and_letters_are_counted():
    scores = RecognitionScores(("null", "book", "www", "cat"), ("null", "bok", "wwv", "cats"))
    figures = scores.to_dict()
    assert (figures["correct"], figures["exact_match"]) == (1, 0.25)
    assert figures["cer"] == pytest.approx(3 / 14)
    assert scores.by_length() == {3: {"correct": 0, "total": 2}, 4: {"correct": 1, "total": 2}}
    assert scores.by_character()["w"] == {"correct": 2, "total": 3}
    assert scores.by_character()["o"] == {"correct": 1, "total": 2}


def test_the_confusion_is_of_words_read_wrong_and_knows_missed_and_added_letters():
    scores = RecognitionScores(("null", "book", "www", "cat"), ("null", "bok", "wwv", "cats"))
    characters, counts = scores.confusion(ascii_lowercase, 40)
    assert characters == list(ascii_lowercase)
    wrong = {(int(i), int(j)): int(counts[i, j]) for i, j in np.argwhere(counts) if i != j}
    at = ascii_lowercase.index
    assert wrong == {(at("o"), 26): 1, (at("w"), at("v")): 1, (26, at("s")): 1}
    assert counts[at("n"), at("n")] == 0


def test_the_interval_is_wilsons():
    assert wilson_interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == 1
    assert wilson_interval(0, 0) == (0, 1)


def test_of_correct_predictions_the_most_probable_come_first():
    assert rank_correct([-1.0, -0.1, -5.0, -0.2], [0, 1, 0, 0]) == [3, 0, 2]


def test_the_worst_come_first_and_of_equals_the_surest():
    assert rank_errors([-1.0, -0.1, -5.0, -0.2], [1, 1, 2, 0]) == [2, 1, 0]
