import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import capt
from schemas.table_config import END, START
from trainer.models.configs import HardAttentionConfig, SoftAttentionConfig
from trainer.models.hard_attention import HardAttention, discount_future_costs, sample_location
from trainer.models.losses import MaskedCrossEntropy
from trainer.models.soft_attention import SoftAttention
from trainer.runs.checkpoints import random_states

VOCABULARY, LOCATIONS, CHANNELS = 7, 3, 4
SIZES = {"rnn_cell": "gru", "embedding_dim": 3, "units": 4, "attention_dim": 5, "output_dim": 4, "dropout": 0.0}
PLAIN = {**SIZES, "use_context_gate": False, "doubly_stochastic": 0.0, "entropy_weight": 0.0}


def make(seed=1, **sizes):
    keras.utils.set_random_seed(seed)
    model = HardAttention(VOCABULARY, HardAttentionConfig(**{**SIZES, **sizes}))
    model.build({"features": (None, LOCATIONS, CHANNELS), "tokens": (None, None)})
    model.attention_layer.score_layer.kernel.assign(4 * model.attention_layer.score_layer.kernel)
    return model


def make_inputs(captions, words=2):
    """The same caption of the same image, `captions` times."""
    rng = np.random.default_rng(3)
    targets = np.array([[*[5, 4, 6, 5][: words - 1], END]], np.int32)
    tokens = np.insert(targets[:, :-1], 0, START, axis=1).astype(np.int32)
    return {
        "features": rng.normal(size=(1, LOCATIONS, CHANNELS)).astype(np.float32) * 2,
        "image": np.zeros(captions, np.int32),
        "tokens": np.repeat(tokens, captions, axis=0),
        "targets": np.repeat(targets, captions, axis=0),
    }


def call_until(model, inputs, *, hard):
    """Call in training until the draw is hard, or until it is soft, each time with the same baseline; the logits."""
    expected, baseline = np.array(model(inputs)), np.array(model.baseline)
    for _ in range(60):
        model.baseline.assign(baseline)
        logits = np.array(model(inputs, training=True))
        if (np.abs(logits - expected).max() > 1e-4) == hard:
            return logits
    raise AssertionError(f"no draw was {'hard' if hard else 'soft'}")


def costs_of(logits, targets):
    """Cross entropies [B, T] in nats."""
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(shifted, targets[..., None], -1)[..., 0]


def paths_of(model, inputs):
    """Of every way to look: the logarithm of its probability and its mean cost a word, as tensors."""
    state = model.init_state(inputs["features"])
    tokens, targets = inputs["tokens"][0], inputs["targets"][0]
    for path in itertools.product(range(LOCATIONS), repeat=len(tokens)):
        hidden, logarithm, cost = {"hidden": state["hidden"]}, 0.0, 0.0
        for place, token, target in zip(path, tokens, targets, strict=True):
            weights = model.attention_layer(hidden["hidden"], state["keys"])
            logarithm += tf.math.log(weights[0, place])
            read = tf.concat([state["values"][:, place], model.embedding_layer(np.array([token]))], -1)
            hidden = model.recurrence.step(read, hidden)
            logits = model.logits_layer(model.output_layer(hidden["hidden"]))
            cost -= tf.nn.log_softmax(logits)[0, target] / len(tokens)
        yield logarithm, cost


@pytest.mark.parametrize("discount", [None, 1.0])
def test_the_estimate_is_the_gradient_of_the_expected_cost(discount):
    captions, words, weight = 20_000, 2, 0.3
    model, inputs = make(**PLAIN, reinforce_weight=weight, discount=discount), make_inputs(captions, words)
    attentions = model.attention_layer.trainable_variables
    with tf.GradientTape() as tape:
        expected = sum(tf.exp(logarithm) * tf.stop_gradient(cost) for logarithm, cost in paths_of(model, inputs))
    exact = np.concatenate([np.ravel(part) for part in tape.gradient(expected, attentions)])
    model.baseline.assign(np.full(model.baseline.shape, float(expected)))
    with tf.GradientTape() as tape:
        call_until(model, inputs, hard=True)
        loss = sum(model.losses)
    estimate = np.concatenate([np.ravel(part) for part in tape.gradient(loss, attentions)])
    # Of a batch's sum divided by the words of a caption; or of a word's mean, so that a weight of 1 is unbiased.
    exact *= weight * (captions / words if discount is None else 1)
    assert np.linalg.norm(exact) > (1 if discount is None else 1e-3)
    assert np.linalg.norm(estimate - exact) < 0.1 * np.linalg.norm(exact)


def test_a_hard_batch_adds_the_published_term():
    model, inputs = make(**PLAIN, reinforce_weight=0.1), make_inputs(6, words=1)
    model.baseline.assign(0.5)
    costs = costs_of(call_until(model, inputs, hard=True), inputs["targets"])[:, 0]
    added = float(sum(model.losses))
    logarithms, by_place = map(np.array, zip(*paths_of(model, inputs), strict=True))
    place = np.abs(by_place - costs[:, None]).argmin(axis=1)
    assert len(set(place)) > 1
    assert added == pytest.approx((0.1 * (costs - 0.5) * logarithms[place]).sum(), rel=1e-4)


@pytest.mark.parametrize(("discount", "shares"), [(0.0, (1, 0, 0)), (0.5, (1, 0.5, 0.25)), (1.0, (1, 1, 1))])
def test_a_location_is_credited_with_the_discounted_costs_after_it(discount, shares):
    costs = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    expected = [[sum(s * c for s, c in zip(shares, row[t:], strict=False)) for t in range(3)] for row in costs]
    np.testing.assert_allclose(discount_future_costs(costs, discount), expected, rtol=1e-5)


def test_the_baseline_of_a_word_follows_its_own_mean_cost():
    model, inputs = make(discount=0.0), make_inputs(3, words=2)
    model.baseline.assign(np.full(VOCABULARY, 2.0))
    costs = costs_of(np.array(model(inputs, training=True)), inputs["targets"])
    expected = np.full(VOCABULARY, 2.0)
    for place, word in enumerate(inputs["targets"][0]):
        expected[word] = 0.9 * 2.0 + 0.1 * costs[:, place].mean()
    np.testing.assert_allclose(model.baseline, expected, rtol=1e-5)


def test_a_soft_batch_adds_only_the_entropy():
    model, inputs = make(**{**PLAIN, "entropy_weight": 0.002}), make_inputs(4, words=1)
    state = model.init_state(inputs["features"])
    weights = np.array(model.attention_layer(state["hidden"], state["keys"]))[0]
    call_until(model, inputs, hard=False)
    assert float(sum(model.losses)) == pytest.approx(0.002 * 4 * (weights * np.log(weights)).sum(), rel=1e-5)


def test_the_baseline_follows_the_mean_cost():
    model, inputs = make(), make_inputs(3, words=4)
    inputs["targets"][1, 2:] = 0
    model.baseline.assign(2.0)
    logits = np.array(model(inputs, training=True))
    real = inputs["targets"] > 0
    cost = (costs_of(logits, inputs["targets"]) * real).sum(1) / real.sum(1)
    assert float(model.baseline) == pytest.approx(0.9 * 2.0 + 0.1 * cost.mean(), rel=1e-5)
    after = float(model.baseline)
    model(inputs)
    assert float(model.baseline) == after
    assert any(variable is model.baseline for variable in model.non_trainable_variables)
    assert not any(variable is model.baseline for variable in model.trainable_variables)


def test_empty_rows_do_not_count():
    model, inputs = make(entropy_weight=0.1), make_inputs(3, words=4)
    padded = {
        name: np.concatenate([inputs[name], np.zeros_like(inputs[name])]) for name in ("image", "tokens", "targets")
    }
    added = []
    for rows in (inputs, {"features": inputs["features"], **padded}):
        model.baseline.assign(1.0)
        call_until(model, rows, hard=False)
        added.append((float(model.baseline), float(sum(model.losses))))
    np.testing.assert_allclose(*added, rtol=1e-5)


def test_validation_and_decoding_use_soft_attention():
    hard = make()
    soft = SoftAttention(
        VOCABULARY,
        SoftAttentionConfig(**{**SIZES, "init_state": "mean", "use_context_gate": True, "projection_dim": None}),
    )
    inputs = make_inputs(2, words=4)
    soft(inputs)
    soft.set_weights([w for w in hard.get_weights() if w.shape != ()])
    np.testing.assert_allclose(hard(inputs), soft(inputs), atol=1e-6)
    hard.compile("sgd", MaskedCrossEntropy(), jit_compile=False)
    expected = float(MaskedCrossEntropy()(inputs["targets"], soft(inputs)))
    assert hard.test_on_batch(inputs, inputs["targets"]) == pytest.approx(expected, rel=1e-5)


def test_about_half_of_the_batches_are_hard():
    model, inputs = make(), make_inputs(40, words=3)
    expected = np.array(model(inputs))
    kinds = {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype) for name, value in inputs.items()}
    lengthless = {name: tf.TensorSpec((None, None), tf.int32) for name in ("tokens", "targets")}
    call = tf.function(lambda batch: model(batch, training=True), input_signature=[{**kinds, **lengthless}])
    hard = [np.abs(call(inputs) - expected).max() > 1e-6 for _ in range(100)]
    assert 30 <= sum(hard) <= 70


def test_samples_follow_from_the_saved_state_of_the_generator():
    model, inputs = make(), make_inputs(5, words=4)
    before = [np.array(variable) for variable in model.non_trainable_variables]
    assert random_states(model)
    first = [np.array(model(inputs, training=True)) for _ in range(4)]
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    again = [np.array(model(inputs, training=True)) for _ in range(4)]
    np.testing.assert_array_equal(first, again)
    assert any(np.abs(first[0] - later).max() > 1e-6 for later in first[1:])


def test_locations_are_sampled_with_their_weights():
    draws = np.array([0.0, 0.19, 0.21, 0.69, 0.71, 0.9999999], np.float32)
    weights = np.tile(np.array([0.0, 0.2, 0.5, 0.3, 0.0], np.float32), (len(draws), 1))
    place = np.array(sample_location(tf.constant(weights), tf.constant(draws)))
    np.testing.assert_array_equal(place.argmax(1), [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(place.sum(1), np.ones(len(draws)))


@pytest.mark.slow
def test_a_resumed_run_samples_as_an_uninterrupted_one(store, tmp_path, tiny_sizes):
    options = {**tiny_sizes["hard_attention"], "dropout": 0.3, "batch_size": 32, "num_sample_captions": 0}
    for run, parts in (("unbroken", (3,)), ("resumed", (1, 3))):
        for epochs in parts:
            capt.train_captioner(
                store=store.path, run_dir=tmp_path / run, model="hard_attention", epochs=epochs, hyperparameters=options
            )
    unbroken, resumed = (
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("unbroken", "resumed")
    )
    np.testing.assert_allclose(resumed, unbroken, atol=1e-5)
