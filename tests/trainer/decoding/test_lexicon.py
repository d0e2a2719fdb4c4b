import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.synthetic.captchas.labels import load_default_words
from tests.trainer.alignments import LETTERS, NUM_CLASSES, frames_of, word_probabilities
from trainer.decoding.lexicon import Lexicon
from trainer.decoding.log_probabilities import log_add
from trainer.models.recognizer_heads import ctc_losses

SCORES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=st.floats(-9, 9, width=32, allow_subnormal=False)
)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@settings(deadline=None, max_examples=50)
@given(SCORES)
def test_a_lexicon_scores_every_word_over_all_its_alignments(scores):
    logits = frames_of(scores)
    expected = word_probabilities(logits)
    lexicon = Lexicon(LETTERS.encode(list(expected)))
    made = lexicon.score_time_steps(log_softmax(logits)[None])[0]
    np.testing.assert_allclose(np.exp(made), [expected[word] for word in expected], rtol=1e-3, atol=1e-9)


def test_words_with_common_prefixes_score_as_alone():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (3, 40, NUM_CLASSES)).astype(np.float32)
    words = ["a", "as", "ass", "sass", "www", "null", "zebra"]
    made = Lexicon(LETTERS.encode(words)).score_time_steps(log_softmax(logits))
    for word, column in zip(words, made.T, strict=True):
        alone = -np.array(ctc_losses(np.repeat(LETTERS.encode([word]), 3, axis=0), logits))
        np.testing.assert_allclose(column, alone, rtol=1e-4)


def test_a_word_that_is_too_long_has_an_impossible_score():
    frames = log_softmax(np.zeros((1, 4, NUM_CLASSES), np.float32))
    made = Lexicon(LETTERS.encode(["www", "abcd", "abcde"])).score_time_steps(frames)[0]
    assert made[0] < -1e29
    assert made[1] == pytest.approx(-4 * np.log(27), rel=1e-5)
    assert made[2] < -1e29


def test_words_are_comparable_at_extreme_logits():
    sure = np.full((1, 40, NUM_CLASSES), -1e4, np.float32)
    sure[0, :, 0] = 0
    made = Lexicon(LETTERS.encode(["a", "ab"])).score_time_steps(sure)[0]
    assert made[0] == pytest.approx(-1e4 + np.log(40), rel=1e-3)
    assert made[1] == pytest.approx(-2e4, rel=1e-3)


def test_position_scores_are_those_of_the_word_and_its_end():
    positions = log_softmax(np.random.default_rng(5).normal(size=(2, 4, NUM_CLASSES)).astype(np.float32))
    words = ["an", "null", "words"]
    made = Lexicon(LETTERS.encode(words)).score_positions(positions)
    ids = LETTERS.encode(words)[:, :4]
    for column, row in zip(made.T[:2], ids, strict=False):
        np.testing.assert_allclose(column, positions[:, np.arange(4), row].sum(1), rtol=1e-5)
    assert (made[:, 2] < -1e29).all()


def test_common_prefixes_of_2500_words_are_computed_once(monkeypatch):
    images, steps, words = 128, 40, load_default_words()
    frames = log_softmax(np.random.default_rng(6).normal(0, 4, (images, steps, NUM_CLASSES)).astype(np.float32))
    computed = []

    def count(one, other):
        computed.append(one.size)
        return log_add(one, other)

    monkeypatch.setattr("trainer.decoding.lexicon.log_add", count)
    lexicon = Lexicon(LETTERS.encode(words))
    assert lexicon.score_time_steps(frames).shape == (images, len(words))
    prefixes = {word[:end] for word in words for end in range(len(word) + 1)}
    assert len(prefixes) < sum(map(len, words)) / 2
    assert sum(computed) == (3 * steps + 1) * len(prefixes) * images
