import keras
import numpy as np
import pytest
from keras import ops

from schemas.recipes import END, PAD, START, UNKNOWN
from trainer.captioner import Captioner
from trainer.decoding import GreedyDecoder
from trainer.model_configs import SoftAttentionConfig
from trainer.models import model_spec

VOCABULARY, PLACES, CHANNELS = 15, 4, 6


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(11)
    sizes = {"embedding": 8, "units": 12, "attention": 8, "projection": 8, "output": 8}
    made = model_spec("soft_attention").build(SoftAttentionConfig(**sizes), VOCABULARY, (PLACES, CHANNELS))
    made.embedding_layer.embeddings.assign(made.embedding_layer.embeddings * 40)
    made.logits_layer.kernel.assign(made.logits_layer.kernel * 20)
    made.logits_layer.bias.assign(4.0 * np.eye(VOCABULARY)[END])
    return made


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(4).normal(size=(16, PLACES, CHANNELS)).astype(np.float32) * 3


def naive(model, features, most):
    """One image at a time, the whole caption read again for every word."""
    words, score = [START], 0.0
    while len(words) <= most:
        logits = np.array(model({"features": features[None], "tokens": np.array([words], np.int32)}))[0, -1]
        logits[[PAD, UNKNOWN, START]] = -np.inf
        shifted = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        words.append(int(logits.argmax()))
        score += shifted[words[-1]]
        if words[-1] == END:
            return words[1:-1], score
    return words[1:], score


def test_a_batch_decodes_as_each_image_alone_with_the_whole_caption_read_again(model, features):
    decoded = GreedyDecoder(model, 7)(features)
    expected = [naive(model, row, 7) for row in features]
    assert [[int(w) for w in row if w] for row in decoded.words] == [words for words, _ in expected]
    np.testing.assert_allclose(decoded.scores, [score for _, score in expected], rtol=1e-3, atol=1e-3)
    lengths = {len(words) for words, _ in expected}
    assert len(lengths) > 1, "the test wants captions of several lengths"


def test_attention_rows_sum_to_one(model, features):
    decoded = GreedyDecoder(model, 7)(features)
    said = decoded.words > 0
    assert decoded.attention.shape == (16, 7, PLACES)
    np.testing.assert_allclose(decoded.attention.sum(-1)[said], 1, atol=1e-5)


def test_batches_of_every_size_decode_alike(model, features):
    decoder = GreedyDecoder(model, 7)
    whole = decoder(features)
    for size in (1, 3, 16):
        np.testing.assert_array_equal(decoder(features[:size]).words, whole.words[:size])


class Scripted(Captioner):
    """Says what it is told, whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = np.asarray(logits, np.float32)

    def begin(self, features):
        return {"position": ops.zeros((ops.shape(features)[0],), "int32")}

    def step(self, token, state):
        logits = ops.take(ops.convert_to_tensor(self.logits), state["position"], axis=0)
        return logits, {"position": state["position"] + 1}, None


def test_padding_unknown_and_start_are_never_said():
    logits = np.zeros((6, 8), np.float32)
    logits[:, [PAD, UNKNOWN, START]] = 50
    logits[:, 6] = 1
    decoded = GreedyDecoder(Scripted(logits), 5)(np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(decoded.words, np.full((2, 5), 6))


def test_nothing_is_said_after_the_end_and_the_end_counts_in_the_score():
    logits = np.full((6, 8), -20, np.float32)
    logits[0, 5] = logits[1, END] = logits[2, 7] = 20
    decoded = GreedyDecoder(Scripted(logits), 5)(np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(decoded.words, [[5, 0, 0, 0, 0]] * 2)
    np.testing.assert_allclose(decoded.scores, 0, atol=1e-5)
    assert decoded.attention is None


def test_a_caption_that_ends_at_once_is_empty():
    logits = np.zeros((6, 8), np.float32)
    logits[:, END] = 9
    assert not GreedyDecoder(Scripted(logits), 5)(np.zeros((2, 3), np.float32)).words.any()
