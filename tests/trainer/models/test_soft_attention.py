from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from schemas.table_config import END, START
from trainer.config import parse_options
from trainer.models.configs import SoftAttentionConfig
from trainer.models.losses import MaskedCrossEntropy
from trainer.models.model_specs import MODELS
from trainer.models.soft_attention import AdditiveAttention, SoftAttention, weighted_sum

ROOT = Path(__file__).parents[3]


def test_the_parameters_are_those_counted_by_hand():
    vocabulary, channels, embedding, units, attention, projection, output = 5000, 2048, 256, 512, 512, 256, 512
    model = SoftAttention(vocabulary)
    model.build({"features": (None, 64, channels), "tokens": (None, None)})
    gru = 3 * ((projection + embedding + units) * units + 2 * units)
    scores = projection * attention + (units + 1) * attention + attention
    layers = (channels + 1) * projection + vocabulary * embedding + (units + 1) * output + (output + 1) * vocabulary
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == gru + scores + layers


def test_attention_is_the_published_score():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    query, values = rng.normal(size=(2, 6)).astype("float32"), rng.normal(size=(2, 4, 5)).astype("float32")
    layer = AdditiveAttention(3)
    layer.build((None, 6), (None, 4, 5))
    weights = layer(query, layer.compute_keys(values))
    w1, (w2, b2), v = layer.key_layer.kernel, layer.query_layer.get_weights(), layer.score_layer.kernel
    score = np.tanh(values @ np.array(w1) + (query @ w2 + b2)[:, None]) @ np.array(v)[:, 0]
    expected = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    context = weighted_sum(weights, keras.ops.convert_to_tensor(values))
    np.testing.assert_allclose(context, np.einsum("bl,blc->bc", expected, values), atol=1e-5)


def test_the_gradient_agrees_with_finite_differences(tiny_sizes):
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(0)
    model = SoftAttention(23, SoftAttentionConfig(**tiny_sizes["soft_attention"]))
    tokens = np.insert(rng.integers(4, 23, (5, 6)), 0, START, axis=1).astype(np.int32)
    inputs = {"features": rng.normal(size=(5, 9, 20)).astype(np.float32), "tokens": tokens}
    targets = np.roll(tokens, -1, 1)
    model(inputs)
    kernel = model.attention_layer.query_layer.kernel
    with tf.GradientTape() as tape:
        loss = MaskedCrossEntropy()(targets, model(inputs))
    gradient = tape.gradient(loss, kernel.value).numpy()
    direction = gradient / np.linalg.norm(gradient)
    start, step, ends = kernel.numpy(), 0.05, []
    for sign in (1, -1):
        kernel.assign(start + sign * step * direction)
        ends.append(float(MaskedCrossEntropy()(targets, model(inputs))))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(np.linalg.norm(gradient), rel=0.02)


def test_the_attention_layer_survives_its_config():
    config = AdditiveAttention(7, name="attentions").get_config()
    assert AdditiveAttention.from_config(config).get_config() == config


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    tokens = np.insert(rng.integers(4, 23, (3, 5)), 0, START, axis=1).astype(np.int32)
    targets = np.append(tokens[:, 1:], np.full((3, 1), END, np.int32), axis=1)
    targets[1, 3:] = 0
    return {"features": rng.normal(size=(3, 9, 20)).astype(np.float32), "tokens": tokens, "targets": targets}


def weights_of(model, batch):
    """The attention [B, T, places] at every word of the batch."""
    state, seen = model.init_state(batch["features"]), []
    for token in batch["tokens"].T:
        _, state, weights = model.step(token, state)
        seen.append(np.array(weights))
    return np.stack(seen, axis=1)


def test_the_regularizer_is_the_papers_over_real_words(batch, tiny_sizes):
    model = SoftAttention(23, SoftAttentionConfig(**tiny_sizes["soft_attention"], doubly_stochastic=0.7))
    model(batch, training=True)
    real = batch["targets"] > 0
    seen = (weights_of(model, batch) * real[..., None]).sum(axis=1)
    assert float(sum(model.losses)) == pytest.approx(0.7 * ((1 - seen) ** 2).sum() / real.sum(), rel=1e-5)
    model(batch)
    assert model.losses == []


def test_empty_rows_do_not_count_in_the_regularizer(batch, tiny_sizes):
    model = SoftAttention(23, SoftAttentionConfig(**tiny_sizes["soft_attention"], doubly_stochastic=1.0))
    model(batch, training=True)
    alone = float(sum(model.losses))
    model({name: np.concatenate([value, np.zeros_like(value[:2])]) for name, value in batch.items()}, training=True)
    assert float(sum(model.losses)) == pytest.approx(alone, rel=1e-5)


def test_a_closed_gate_hides_the_image_and_an_open_one_has_no_effect(batch, tiny_sizes):
    model = SoftAttention(23, SoftAttentionConfig(**tiny_sizes["soft_attention"], use_context_gate=True))
    other = {**batch, "features": batch["features"][::-1].copy()}
    ajar = np.array(model(batch))
    model.gate_layer.bias.assign([-1e4])
    np.testing.assert_array_equal(model(batch), model(other))
    model.gate_layer.bias.assign([1e4])
    opened = np.array(model(batch))
    model.config = model.config.model_copy(update={"use_context_gate": False})
    np.testing.assert_allclose(opened, model(batch), atol=1e-6)
    assert np.abs(opened - ajar).max() > 1e-6


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_initial_state_can_be_a_projection_of_the_mean(batch, tiny_sizes, cell):
    model = SoftAttention(23, SoftAttentionConfig(**tiny_sizes["soft_attention"], rnn_cell=cell, init_state="mean"))
    model(batch)
    state = model.init_state(batch["features"])
    for name, layer in zip(model.recurrence.state_names, model.init_layers, strict=True):
        kernel, bias = layer.get_weights()
        expected = np.tanh(np.array(state["values"]).mean(axis=1) @ kernel + bias)
        np.testing.assert_allclose(state[name], expected, atol=1e-5)


def test_the_committed_paper_config_is_valid():
    options = yaml.safe_load((ROOT / "examples/configs/show_attend_tell.yaml").read_text())
    training, sizes = parse_options(MODELS["soft_attention"].config, options)
    assert (sizes.use_context_gate, sizes.init_state, sizes.doubly_stochastic, sizes.dropout) == (
        True,
        "mean",
        1.0,
        0.5,
    )
    assert training.batch_size == 64


def attentions(model, features, words):
    """Where the model attentions as it reads each of the words first, [words, places]."""
    state = model.init_state(np.repeat(features, len(words), axis=0))
    return np.array(model.step(np.array(words, np.int32), state)[2])


@pytest.mark.parametrize(("query", "differ"), [("state", False), ("word", True)])
def test_the_attention_depends_on_the_word_only_if_configured(query, differ):
    keras.utils.set_random_seed(2)
    model = SoftAttention(
        23,
        SoftAttentionConfig(
            embedding_dim=8, units=6, attention_dim=5, projection_dim=None, output_dim=6, attention_query=query
        ),
    )
    features = np.random.default_rng(0).normal(size=(1, 9, 20)).astype("float32")
    model.build({"features": (None, 9, 20), "tokens": (None, None)})
    model.embedding_layer.embeddings.assign(20 * model.embedding_layer.embeddings)
    first, second = attentions(model, features, [7, 8])
    assert (np.abs(first - second).max() > 1e-3) == differ


def test_image_dropout_acts_in_training_only():
    keras.utils.set_random_seed(2)
    model = SoftAttention(
        23,
        SoftAttentionConfig(
            embedding_dim=4, units=6, attention_dim=5, projection_dim=None, output_dim=6, image_dropout=0.5
        ),
    )
    model.build({"features": (None, 9, 20), "tokens": (None, None)})
    features = np.ones((2, 9, 20), "float32")
    np.testing.assert_array_equal(model.init_state(features)["values"], features)
    values = np.array(model.init_state(features, training=True)["values"])
    assert 0.3 < (values == 0).mean() < 0.7
    assert values.max() == 2
