import numpy as np
import pytest
from scipy.special import expit, log_softmax

from tests.trainer.alignments import frames_of, word_probabilities
from trainer.alphabet import CLASSES, encode
from trainer.word_losses import ctc_losses, letter_losses, padded, position_losses


def test_ctc_is_minus_the_logarithm_of_a_words_probability_over_all_alignments():
    rng = np.random.default_rng(0)
    logits = np.stack([frames_of(rng.normal(size=(5, 4))) for _ in range(4)])
    words = ["", "ab", "aa", "cab"]
    expected = [-np.log(word_probabilities(frames)[word]) for frames, word in zip(logits, words, strict=True)]
    np.testing.assert_allclose(ctc_losses(encode(words), logits), expected, rtol=1e-5)


def test_the_loss_of_a_word_does_not_depend_on_how_far_it_is_padded():
    logits = np.random.default_rng(1).normal(size=(2, 8, CLASSES)).astype(np.float32)
    words = encode(["fig", "no"])
    np.testing.assert_array_equal(padded(words, 5), [[6, 9, 7, 0, 0], [14, 15, 0, 0, 0]])
    np.testing.assert_allclose(ctc_losses(padded(words, 5), logits), ctc_losses(words, logits), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_positions_are_apart_and_end_in_nothing(smoothing):
    logits = np.random.default_rng(2).normal(size=(2, 5, CLASSES)).astype(np.float32)
    words = np.array(padded(encode(["null", "zzzzz"]), 5))
    targets = (1 - smoothing) * np.eye(CLASSES)[words] + smoothing / CLASSES
    expected = -(targets * log_softmax(logits, axis=-1)).sum((1, 2))
    np.testing.assert_allclose(position_losses(words, logits, smoothing), expected, rtol=1e-5)


def test_a_letter_is_there_or_not_however_often():
    logits = np.random.default_rng(3).normal(size=(2, 26)).astype(np.float32)
    there = np.zeros((2, 26), bool)
    there[0, [13, 20, 11]] = there[1, [25]] = True
    expected = -np.log(np.where(there, expit(logits), expit(-logits))).sum(1)
    np.testing.assert_allclose(letter_losses(encode(["null", "zzz"]), logits), expected, rtol=1e-5)
