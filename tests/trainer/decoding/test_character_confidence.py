import itertools

import numpy as np
import pytest

from tests.trainer.alignments import LETTERS
from trainer.decoding.character_confidence import alignment_confidences, position_confidences
from trainer.decoding.label_decoder import LabelDecoder
from trainer.models.recognizer_heads import decode_greedily, greedy_confidence


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def best_alignment(steps, ids):
    """The most probable alignment of a label, by trying all; as the number of the character per step, or None."""
    paths = []
    for path in itertools.product(range(steps.shape[1]), repeat=len(steps)):
        runs = [(class_, len(list(run))) for class_, run in itertools.groupby(path)]
        if [class_ for class_, _ in runs if class_] == ids:
            paths.append((steps[range(len(steps)), path].sum(), path))
    return max(paths)[1]


def test_a_characters_confidence_is_its_highest_probability_in_the_best_alignment():
    rng = np.random.default_rng(0)
    logs = log_softmax(rng.normal(0, 2, (8, 5, 3)))
    labels = [[1], [2, 1], [1, 1], [1, 2, 1]] * 2
    ids = np.array([label + [0] * (3 - len(label)) for label in labels], np.int32)
    for steps, label, row in zip(logs, labels, alignment_confidences(logs.astype(np.float32), ids), strict=True):
        path, expected = best_alignment(steps, label), []
        for step, class_ in enumerate(path):
            if class_ and (step == 0 or class_ != path[step - 1]):
                expected.append(0.0)
            if class_:
                expected[-1] = max(expected[-1], np.exp(steps[step, class_]))
        np.testing.assert_allclose(row, expected + [0] * (3 - len(label)), rtol=1e-5)


@pytest.mark.parametrize("head", ["ctc", "attention"])
def test_the_graph_computes_the_confidences_of_greedy_labels(head):
    logits = np.random.default_rng(1).normal(0, 3, (20, 7, 5)).astype(np.float32)
    ids = np.array(decode_greedily(head, logits)[0])
    compute = alignment_confidences if head == "ctc" else position_confidences
    made = np.array(greedy_confidence(head, logits, ids))
    np.testing.assert_allclose(made, compute(log_softmax(logits), ids), atol=1e-5)
    assert ((made > 0) == (ids > 0)).all()


@pytest.mark.parametrize("head", ["ctc", "attention"])
@pytest.mark.parametrize("strategy", ["greedy", "beam", "lexicon"])
def test_every_prediction_has_one_confidence_per_character(head, strategy):
    logits = np.random.default_rng(2).normal(0, 3, (9, 12, LETTERS.num_classes)).astype(np.float32)
    for prediction in LabelDecoder(LETTERS, head, strategy, ["a", "null", "zoo"])(logits):
        assert len(prediction.character_confidence) == len(prediction.text)
        assert all(0 <= one <= 1 for one in prediction.character_confidence)
        assert prediction.confidence == pytest.approx(np.exp(prediction.score))


def test_confidences_follow_the_logical_order_of_a_right_to_left_label():
    from features.text.charset import Charset

    charset = Charset.from_labels(["אב12"])
    # Shown from left to right: 1 2 ב א, with rising logits.
    logits = np.zeros((1, 4, 5), np.float32)
    for step, (class_, size) in enumerate([(1, 2), (2, 4), (4, 6), (3, 8)]):
        logits[0, step, class_] = size
    (prediction,) = LabelDecoder(charset, "attention", "greedy")(logits)
    assert prediction.text == "אב12"
    own = [np.exp(size) / (np.exp(size) + 4) for size in (8, 6, 2, 4)]
    np.testing.assert_allclose(prediction.character_confidence, own, rtol=1e-4)
