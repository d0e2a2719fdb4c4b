import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tests.trainer.alignments import LETTERS, NUM_CLASSES, frames_of, word_probabilities
from trainer.models.recognizer_heads import ace_losses, ctc_losses, pad_labels, position_losses


def test_ctc_loss_is_minus_the_log_probability_over_all_alignments():
    rng = np.random.default_rng(0)
    logits = np.stack([frames_of(rng.normal(size=(5, 4))) for _ in range(4)])
    words = ["", "ab", "aa", "cab"]
    expected = [-np.log(word_probabilities(frames)[word]) for frames, word in zip(logits, words, strict=True)]
    np.testing.assert_allclose(ctc_losses(LETTERS.encode(words), logits), expected, rtol=1e-5)


def test_ctc_loss_does_not_depend_on_the_padding():
    logits = np.random.default_rng(1).normal(size=(2, 8, NUM_CLASSES)).astype(np.float32)
    words = LETTERS.encode(["fig", "no"])
    np.testing.assert_array_equal(pad_labels(words, 5), [[6, 9, 7, 0, 0], [14, 15, 0, 0, 0]])
    np.testing.assert_allclose(ctc_losses(pad_labels(words, 5), logits), ctc_losses(words, logits), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_position_loss_sums_over_characters_and_ends(smoothing):
    logits = np.random.default_rng(2).normal(size=(2, 5, NUM_CLASSES)).astype(np.float32)
    words = np.array(pad_labels(LETTERS.encode(["null", "zzzzz"]), 5))
    targets = (1 - smoothing) * np.eye(NUM_CLASSES)[words] + smoothing / NUM_CLASSES
    expected = -(targets * log_softmax(logits, axis=-1)).sum((1, 2))
    np.testing.assert_allclose(position_losses(words, logits, smoothing), expected, rtol=1e-5)


def test_ace_compares_the_counts_of_characters():
    logits = np.random.default_rng(3).normal(0, 2, size=(2, 12, NUM_CLASSES)).astype(np.float32)
    counts = np.zeros((2, NUM_CLASSES))
    counts[0, [0, 14, 21, 12]] = 8, 1, 1, 2
    counts[1, [0, 26]] = 9, 3
    shares = softmax(logits, axis=-1).mean(axis=1)
    expected = -(counts * np.log(shares)).sum(1)
    np.testing.assert_allclose(ace_losses(LETTERS.encode(["null", "zzz"]), logits), expected, rtol=1e-5)


def test_ace_expects_no_empty_cell_if_a_label_has_more_characters_than_there_are_cells():
    logits = np.random.default_rng(4).normal(0, 2, size=(1, 3, NUM_CLASSES)).astype(np.float32)
    counts = np.zeros(NUM_CLASSES)
    counts[[14, 21, 12]] = 1, 1, 2
    expected = -(counts * np.log(softmax(logits, axis=-1).mean(axis=1)[0])).sum()
    np.testing.assert_allclose(ace_losses(LETTERS.encode(["null"]), logits), [expected], rtol=1e-5)


def test_ace_is_least_with_one_cell_per_character():
    logits = np.zeros((1, 12, NUM_CLASSES), np.float32)
    logits[:, :, 0] = 20
    logits[0, [2, 5, 6, 9], LETTERS.encode(["null"])[0]] = 40
    best = float(ace_losses(LETTERS.encode(["null"]), logits)[0])
    missed = logits.copy()
    missed[0, 9] = logits[0, 0]
    assert best < float(ace_losses(LETTERS.encode(["null"]), missed)[0])
    counts = np.array([8, 1, 1, 2])
    assert best == pytest.approx(-(counts * np.log(counts / 12)).sum(), rel=1e-3)
