"""Compares beam search and sampling with plain Python over whole captions."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from pydantic import ValidationError

from schemas.table_config import END, PAD, START, UNKNOWN
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import IMPOSSIBLE, GenerationConfig
from trainer.models.captioner import Captioner
from trainer.models.configs import SoftAttentionConfig
from trainer.models.model_specs import model_spec

VOCABULARY, LOCATIONS, CHANNELS = 15, 4, 6


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(11)
    sizes = {"embedding_dim": 8, "units": 12, "attention_dim": 8, "projection_dim": 8, "output_dim": 8}
    made = model_spec("soft_attention").build(SoftAttentionConfig(**sizes), VOCABULARY, (LOCATIONS, CHANNELS))
    made.embedding_layer.embeddings.assign(made.embedding_layer.embeddings * 40)
    made.logits_layer.kernel.assign(made.logits_layer.kernel * 20)
    made.logits_layer.bias.assign(4.0 * np.eye(VOCABULARY)[END])
    return made


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(4).normal(size=(16, LOCATIONS, CHANNELS)).astype(np.float32) * 3


def decode(model, features, most=7, **options):
    return make_decoder(model, GenerationConfig(max_new_tokens=most, **options))(features)


def best_words(decoded):
    return [[int(word) for word in row[0] if word] for row in decoded.tokens]


def naive(model, features, most):
    """Decodes greedily, one image at a time, and computes the whole caption for every token."""
    words, score = [START], 0.0
    while len(words) <= most:
        shifted = log_probabilities(model, features, words)
        words.append(int(shifted.argmax()))
        score += shifted[words[-1]]
        if words[-1] == END:
            return words[1:-1], score
    return words[1:], score


def log_probabilities(model, features, words):
    logits = np.array(model({"features": features[None], "tokens": np.array([words], np.int32)}))[0, -1]
    logits[[PAD, UNKNOWN, START]] = -np.inf
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_a_beam_width_of_1_is_greedy_decoding_without_a_carried_state(model, features):
    decoded = decode(model, features)
    expected = [naive(model, row, 7) for row in features]
    assert best_words(decoded) == [words for words, _ in expected]
    np.testing.assert_allclose(decoded.scores[:, 0], [score for _, score in expected], rtol=1e-3, atol=1e-3)
    lengths = {len(words) for words, _ in expected}
    assert len(lengths) > 1, "the test needs captions of several lengths"


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 2}, {"temperature": 1.0, "num_return_sequences": 2}]
)
def test_attention_rows_sum_to_one(model, features, options):
    decoded = decode(model, features, **options)
    said = decoded.tokens > 0
    assert decoded.attention.shape == (*decoded.tokens.shape, LOCATIONS)
    np.testing.assert_allclose(decoded.attention.sum(-1)[said], 1, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 1.0}])
def test_captions_do_not_depend_on_the_batch_size(model, features, options):
    decoder = make_decoder(model, GenerationConfig(max_new_tokens=7, **options))
    whole = decoder(features)
    for size in (1, 3, 16):
        np.testing.assert_array_equal(decoder(features[:size]).tokens, whole.tokens[:size])


class Scripted(Captioner):
    """Returns given logits for every image."""

    def __init__(self, logits):
        super().__init__(len(logits[0]))
        self.logits = np.asarray(logits, np.float32)

    def init_state(self, features):
        return {"position": ops.zeros((ops.shape(features)[0],), "int32")}

    def step(self, token, state):
        logits = ops.take(ops.convert_to_tensor(self.logits), state["position"], axis=0)
        return logits, {"position": state["position"] + 1}, None


class Bigrams(Captioner):
    """Predicts from the previous token only: a space of captions that can be enumerated."""

    def __init__(self, words=4, seed=0):
        super().__init__(4 + words)
        self.table = np.random.default_rng(seed).normal(size=(4 + words, 4 + words)).astype(np.float32) * 2

    def init_state(self, features):
        return {"image": ops.cast(features[:, 0], "float32")}

    def step(self, token, state):
        return ops.take(self.table, token, axis=0) * ops.expand_dims(state["image"], 1), state, None

    def score(self, caption, image):
        """Returns the log-probability of token IDs, including the end token."""
        table = self.table.astype(np.float64) * image
        table[:, [PAD, UNKNOWN, START]] = -np.inf
        shifted = table - np.log(np.exp(table).sum(-1, keepdims=True))
        return sum(shifted[before, word] for before, word in itertools.pairwise([START, *caption]))


NO_FEATURES = np.zeros((2, 3), np.float32)
IMAGES = np.array([[0.5], [1.0], [1.7]], np.float32)


def all_captions(words, most):
    for length in range(most + 1):
        for caption in itertools.product(range(4, 4 + words), repeat=length):
            if length < most:
                yield [*caption, END]
            else:
                yield [*caption]


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_an_exhaustive_beam_finds_the_best_captions(penalty):
    toy, most = Bigrams(), 4
    decoded = decode(toy, IMAGES, most, num_beams=512, num_return_sequences=5, length_penalty=penalty)
    for image, words, scores in zip(IMAGES[:, 0], decoded.tokens, decoded.scores, strict=True):
        ended = [c for c in all_captions(4, most) if c[-1:] == [END]]
        ranked = sorted(ended, key=lambda c: -toy.score(c, image) / len(c) ** penalty)[:5]
        assert [[int(w) for w in row if w] for row in words] == [c[:-1] for c in ranked]
        np.testing.assert_allclose(scores, [toy.score(c, image) for c in ranked], rtol=1e-4)


def test_a_wider_beam_finds_captions_that_are_at_least_as_probable():
    toy = Bigrams(words=8, seed=3)
    found = [decode(toy, IMAGES, 6, num_beams=beam, length_penalty=0.0).scores[:, 0] for beam in (1, 4, 2000)]
    assert (found[1] >= found[0] - 1e-5).all()
    assert (found[2] >= found[1] - 1e-5).all()
    assert (found[2] > found[0] + 1e-3).any()


def test_finished_captions_are_first_and_each_group_is_sorted_by_score():
    decoded = decode(Bigrams(), IMAGES, 4, num_beams=8, num_return_sequences=8, length_penalty=0.0)
    for words, scores in zip(decoded.tokens, decoded.scores, strict=True):
        ended = (words == 0).any(axis=1)
        assert ended.tolist() == sorted(ended, reverse=True)
        assert (np.diff(scores[ended]) <= 1e-6).all()
        assert (np.diff(scores[~ended]) <= 1e-6).all()


def test_an_unfinished_beam_is_returned_if_none_is_finished():
    logits = np.zeros((6, 8), np.float32)
    logits[:, 6], logits[:, END] = 5, -1e5
    for beam in (1, 3):
        decoded = decode(Scripted(logits), NO_FEATURES, 5, num_beams=beam)
        np.testing.assert_array_equal(decoded.tokens[:, 0], np.full((2, 5), 6))


def test_missing_captions_have_an_impossible_score():
    logits = np.full((3, 5), -50, np.float32)
    logits[:, END] = 0
    decoded = decode(Scripted(logits), NO_FEATURES, 1, num_beams=8, num_return_sequences=8)
    assert (decoded.scores[:, :2] > IMPOSSIBLE).all()
    assert (decoded.scores[:, 2:] < IMPOSSIBLE).all()


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"temperature": 2.0}])
def test_special_tokens_and_bad_words_are_never_generated(options):
    logits = np.zeros((6, 8), np.float32)
    logits[:, [PAD, UNKNOWN, START, 7]] = 50
    logits[:, END] = -100
    decoded = decode(Scripted(logits), NO_FEATURES, 5, bad_word_ids=(7,), **options)
    assert set(decoded.tokens.ravel()) <= {4, 5, 6}


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_no_token_follows_the_end_token_and_the_score_includes_it(options):
    logits = np.full((6, 8), -20, np.float32)
    logits[0, 5] = logits[1, END] = logits[2, 7] = 20
    decoded = decode(Scripted(logits), NO_FEATURES, 5, **options)
    np.testing.assert_array_equal(decoded.tokens[:, 0], [[5, 0, 0, 0, 0]] * 2)
    np.testing.assert_allclose(decoded.scores[:, 0], 0, atol=1e-5)
    assert decoded.attention is None


def test_a_caption_can_be_empty():
    logits = np.zeros((6, 8), np.float32)
    logits[:, END] = 9
    assert not decode(Scripted(logits), NO_FEATURES, 5).tokens.any()


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 1.0}])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_is_generated_twice(size, options):
    toy = Bigrams(words=4, seed=5)
    toy.table[:, END] = -20
    decoded = decode(toy, IMAGES, 9 if size > 1 else 4, no_repeat_ngram_size=size, **options)
    for row in decoded.tokens[:, 0]:
        said = [int(word) for word in row if word]
        grams = [tuple(said[i : i + size]) for i in range(len(said) - size + 1)]
        assert len(grams) == len(set(grams)) > 0


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 1.0}])
def test_ngrams_longer_than_a_caption_have_no_effect(options):
    expected = decode(Bigrams(words=4, seed=5), IMAGES, 5, **options)
    decoded = decode(Bigrams(words=4, seed=5), IMAGES, 5, no_repeat_ngram_size=10**30, **options)
    np.testing.assert_array_equal(decoded.tokens, expected.tokens)


def test_ngrams_repeat_without_the_option():
    toy = Bigrams(words=4, seed=5)
    toy.table[:, END] = -20
    said = decode(toy, IMAGES, 9).tokens[0, 0].tolist()
    assert len(set(itertools.pairwise(said))) < 8


def test_equal_seeds_give_equal_samples():
    toy = Bigrams(words=8)
    first, again, other = (
        decode(toy, IMAGES, 8, temperature=1.0, num_return_sequences=4, seed=seed).tokens.tolist() for seed in (3, 3, 4)
    )
    assert first == again != other


def test_tokens_are_sampled_with_their_probabilities():
    logits = np.array([[0, 0, 0, -100, 0, np.log(2), np.log(5)]] * 2, np.float32)
    decoded = decode(Scripted(logits), np.zeros((1, 3), np.float32), 1, temperature=1.0, num_return_sequences=4000)
    shares = np.bincount(decoded.tokens[0, :, 0], minlength=7)[4:] / 4000
    np.testing.assert_allclose(shares, [1 / 8, 2 / 8, 5 / 8], atol=0.03)
    cold = decode(Scripted(logits), np.zeros((1, 3), np.float32), 1, temperature=0.5, num_return_sequences=4000)
    shares = np.bincount(cold.tokens[0, :, 0], minlength=7)[4:] / 4000
    np.testing.assert_allclose(shares, [1 / 30, 4 / 30, 25 / 30], atol=0.03)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 1}, {6}),
        ({"top_k": 2}, {5, 6}),
        ({"top_p": 1e-300}, {6}),
        ({"top_p": 0.6}, {6}),
        ({"top_p": 0.7}, {5, 6}),
        ({"top_p": 1.0}, {4, 5, 6}),
    ],
)
def test_top_k_and_top_p_exclude_improbable_tokens(options, words):
    logits = np.array([[0, 0, 0, -100, 0, np.log(2), np.log(5)]] * 2, np.float32)
    decoded = decode(
        Scripted(logits), np.zeros((1, 3), np.float32), 1, temperature=1.0, num_return_sequences=500, **options
    )
    assert set(decoded.tokens.ravel()) == words


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"top_k": 3}, "require a temperature"),
        ({"temperature": 1.0, "num_beams": 2}, "cannot be combined with a beam"),
        ({"num_beams": 2, "num_return_sequences": 3}, "3 captions need a beam"),
        ({"num_beams": 0}, "greater than or equal to 1"),
    ],
)
def test_invalid_generation_configs_are_rejected(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        GenerationConfig(max_new_tokens=5, **options)
