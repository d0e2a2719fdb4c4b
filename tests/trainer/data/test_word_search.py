import pytest

from schemas.errors import UsageError
from trainer.data.word_search import search_words


def test_a_word_of_the_given_vocabulary_is_not_standardized(store, squares):
    tables = store.caption_tables()
    with pytest.raises(UsageError, match="'-' has no word after standardization"):
        search_words(tables, ["-"])
    red, dash, dog = search_words(tables, ["red", "-", "dog"], 0, [*squares.WORDS, "-"])
    assert red.in_vocabulary
    assert red.occurrences["train"] > 0
    assert (dash.text, dash.in_vocabulary, dash.occurrences["train"]) == ("-", True, 0)
    assert not dog.in_vocabulary
