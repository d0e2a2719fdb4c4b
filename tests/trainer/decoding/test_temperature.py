import numpy as np
import pytest

from tests.trainer.alignments import LETTERS
from trainer.decoding.label_decoder import LabelDecoder, log_softmax
from trainer.decoding.label_scores import score_labels
from trainer.decoding.temperature import HIGHEST, LOWEST, fit_temperature
from trainer.models.recognizer_heads import decode_greedily


def draw(logits, rng):
    """One class per row, drawn with the probabilities of the logits."""
    return (log_softmax(logits) + rng.gumbel(size=logits.shape)).argmax(-1)


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_of_labels_that_are_drawn_with_it_is_found(true):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 1, LETTERS.num_classes)).astype(np.float32)
    ids = LabelDecoder(LETTERS, "attention", "greedy").decode_ids(logits)
    correct = ids[:, 0] == draw(logits[:, 0] / true, rng)
    found = fit_temperature(lambda one: score_labels("attention", log_softmax(logits / one), ids), correct)
    assert found == pytest.approx(true, rel=0.1)


def test_without_an_error_the_confidence_is_that_of_one_more_right_label_and_one_more_wrong_one():
    logits = np.random.default_rng(1).normal(0, 1, 50)

    def score(temperature):
        return -np.logaddexp(0, -(2 + np.abs(logits)) / temperature)

    found = fit_temperature(score, np.ones(50, bool))
    assert LOWEST < found < HIGHEST
    assert np.exp(score(found)).mean() == pytest.approx(51 / 52, abs=0.01)


def test_the_temperature_is_bounded():
    assert fit_temperature(lambda one: np.full(30, -1.0), np.arange(30) % 2 == 0) <= HIGHEST
    sure = fit_temperature(lambda one: np.full(30, -1e-9 * one), np.zeros(30, bool))
    assert LOWEST <= sure <= HIGHEST


@pytest.mark.parametrize("head", ["ctc", "attention"])
def test_labels_have_the_score_that_the_graph_computes(head):
    logits = np.random.default_rng(2).normal(0, 3, (40, 9, 5)).astype(np.float32)
    ids, scores = map(np.array, decode_greedily(head, logits))
    np.testing.assert_allclose(score_labels(head, log_softmax(logits), ids), scores, rtol=1e-4, atol=1e-5)
    shorter = ids[:, : (ids > 0).sum(axis=1).max()]
    np.testing.assert_allclose(score_labels(head, log_softmax(logits), shorter), scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["ctc", "attention"])
def test_a_label_that_does_not_fit_has_no_probability(head):
    log_probabilities = log_softmax(np.zeros((2, 3, 5), np.float32))
    fits, too_long = score_labels(head, log_probabilities, np.array([[1, 2, 0, 0], [1, 2, 3, 4]], np.int32))
    assert fits > -10
    assert too_long <= -1e29


@pytest.mark.parametrize("head", ["ctc", "attention"])
@pytest.mark.parametrize("temperature", [0.2, 5.0])
def test_greedy_labels_do_not_depend_on_the_temperature(head, temperature):
    logits = np.random.default_rng(3).normal(0, 3, (50, 9, LETTERS.num_classes)).astype(np.float32)
    decode = LabelDecoder(LETTERS, head, "greedy")
    texts = [one.text for one in decode(logits)]
    assert [one.text for one in decode(logits / np.float32(temperature))] == texts
