import itertools

import pytest

from trainer.evaluation.word_classes import classify_word, word_classes


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("the", "function"),
        ("red", "colours"),
        ("grass", "background"),
        ("snow", "background"),
        ("water", "background"),
        ("sand", "background"),
        ("street", "background"),
        ("dog", "nouns"),
        ("sits", "verbs"),
        ("galloping", "verbs"),
        ("building", "nouns"),
        ("sling", "nouns"),
        ("happily", "other"),
    ],
)
def test_each_word_has_one_class(word, expected):
    assert classify_word(word) == expected


def test_no_word_is_listed_twice():
    for (_, one), (_, other) in itertools.combinations(word_classes().items(), 2):
        assert not one & other
    assert all(word == word.lower() for words in word_classes().values() for word in words)
