"""Tests that every captioner implements the interface of `trainer.models.captioner`."""

import functools
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from schemas.options.training import CaptionerName
from schemas.table_config import END, START
from trainer.models.losses import MaskedCrossEntropy
from trainer.models.model_specs import MODELS, model_spec

# Patch tokens need not form a square.
VOCABULARY, LOCATIONS, CHANNELS, WORDS = 23, 15, 20, 7
CASES = [
    *((name, {}) for name in MODELS),
    ("soft_attention", {"rnn_cell": "lstm", "projection_dim": None, "init_state": "mean", "use_context_gate": True}),
    ("hard_attention", {"rnn_cell": "gru", "projection_dim": 14, "init_state": "zeros"}),
    ("transformer", {"num_layers": 2, "num_heads": 4}),
    ("nic", {"rnn_cell": "gru"}),
    ("nic", {"feed": "every"}),
    ("m_rnn", {"rnn_cell": "gru", "embedding_dim_2": None, "units": 14, "tie_word_embeddings": True}),
    ("m_rnn", {"rnn_cell": "lstm"}),
    ("init_inject", {"rnn_cell": "rnn"}),
    ("par_inject", {"rnn_cell": "lstm"}),
    ("merge", {"rnn_cell": "rnn"}),
]
IDS = ["-".join((name, *map(str, sizes.values()))) for name, sizes in CASES]
DROPOUTS = [(n, key) for n, spec in MODELS.items() for key in spec.config.model_fields if key.endswith("dropout")]
CASES = [(name, tuple(sizes.items())) for name, sizes in CASES]  # hashable, for the models that tests share
every_case = pytest.mark.parametrize(("name", "sizes"), CASES, ids=IDS)
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def build(tiny_sizes):
    """Builds a model of a seed."""

    def make(name, **sizes):
        keras.utils.set_random_seed(5)
        spec = model_spec(name)
        return spec.build(spec.config(**{**tiny_sizes[name], **sizes}), VOCABULARY, shape_of(name))

    return make


@pytest.fixture(scope="module")
def shared(build):
    """Returns a model that tests only read."""
    return functools.cache(lambda name, sizes=(): build(name, **dict(sizes)))


@pytest.fixture(scope="module")
def shared_logits(shared):
    """Returns the logits of a shared model for the inputs of all tests."""
    return functools.cache(lambda name, sizes=(): logits_of(shared(name, sizes), make_inputs(name)))


@pytest.fixture
def inputs(name):
    return make_inputs(name)


def make_inputs(name):
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, VOCABULARY, (5, WORDS)).astype(np.int32)
    tokens[:, 0] = START
    features = rng.normal(size=(5, *shape_of(name))).astype(np.float32)
    targets = np.append(tokens[:, 1:], np.full((5, 1), END, np.int32), axis=1)
    return {"features": features, "tokens": tokens, "targets": targets}


def shape_of(name):
    return (LOCATIONS, CHANNELS) if MODELS[name].spatial else (CHANNELS,)


def logits_of(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs))


@every_case
def test_steps_give_the_logits_of_the_whole_caption(shared, shared_logits, inputs, name, sizes):
    model, whole = shared(name, sizes), shared_logits(name, sizes)
    assert whole.shape == (5, WORDS, VOCABULARY)
    state = model.init_state(inputs["features"])
    for t in range(WORDS):
        logits, state, attention = model.step(inputs["tokens"][:, t], state)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)
        if attention is not None:
            assert attention.shape == (5, LOCATIONS)
            np.testing.assert_allclose(keras.ops.sum(attention, -1), np.ones(5), atol=1e-5)


@pytest.mark.parametrize(("name", "sizes"), [case for case in CASES if MODELS[case[0]].spatial])
def test_the_attention_of_a_step_is_the_mean_over_layers_and_heads(shared, inputs, name, sizes):
    model = shared(name, sizes)
    weights = keras.ops.convert_to_numpy(model.compute_attention(inputs["features"], inputs["tokens"]))
    assert (weights.shape[0], *weights.shape[3:]) == (5, WORDS, LOCATIONS)
    state = model.init_state(inputs["features"])
    for t in range(WORDS):
        _, state, attention = model.step(inputs["tokens"][:, t], state)
        np.testing.assert_allclose(weights.mean((1, 2))[:, t], attention, atol=1e-5)


@every_case
def test_a_state_keeps_its_parts_and_their_shapes(shared, inputs, name, sizes):
    model = shared(name, sizes)
    state = model.init_state(inputs["features"])
    _, after, _ = model.step(inputs["tokens"][:, 0], state)
    assert {part: (value.shape, value.dtype) for part, value in after.items()} == {
        part: (value.shape, value.dtype) for part, value in state.items()
    }
    assert all(value.shape[0] == 5 for value in state.values())


@every_case
def test_a_word_affects_later_logits_only(shared, shared_logits, inputs, name, sizes):
    changed = {**inputs, "tokens": inputs["tokens"].copy()}
    changed["tokens"][:, 2] = 4 + (changed["tokens"][:, 2] - 3) % (VOCABULARY - 4)
    before, after = shared_logits(name, sizes), logits_of(shared(name, sizes), changed)
    np.testing.assert_allclose(before[:, :2], after[:, :2], atol=1e-6)
    for later in range(2, WORDS):
        assert (np.abs(before[:, later] - after[:, later]).max(axis=-1) > 1e-6).all()


@every_model
def test_the_image_affects_every_word(shared, shared_logits, inputs, name):
    other = {**inputs, "features": inputs["features"][::-1].copy()}
    changes = np.abs(shared_logits(name) - logits_of(shared(name), other)).max(axis=-1)
    assert (changes[[0, 1, 3, 4]] > 1e-6).all()


@every_case
def test_captions_can_share_the_features_of_an_image(shared, inputs, name, sizes):
    model = shared(name, sizes)
    image = np.array([0, 0, 2, 2, 1], np.int32)
    repeated = {**inputs, "features": inputs["features"][image]}
    few = {"features": inputs["features"][:3], "image": image, "tokens": inputs["tokens"]}
    np.testing.assert_allclose(logits_of(model, few), logits_of(model, repeated), atol=1e-6)


@every_model
def test_padding_does_not_affect_the_logits(shared, shared_logits, inputs, name):
    longer = {**inputs, "tokens": np.pad(inputs["tokens"], [(0, 0), (0, 5)])}
    np.testing.assert_allclose(logits_of(shared(name), longer)[:, :WORDS], shared_logits(name), atol=1e-5)


@every_model
def test_scale_and_offset_of_the_features_do_not_matter(build, inputs, name):
    small, large = build(name), build(name)
    small.feature_normalization.fit(inputs["features"])
    large.feature_normalization.fit(inputs["features"] * 50 + 10)
    bigger = {**inputs, "features": inputs["features"] * 50 + 10}
    np.testing.assert_allclose(logits_of(large, bigger), logits_of(small, inputs), atol=1e-4)


@every_case
def test_every_variable_has_a_gradient(shared, inputs, name, sizes):
    model = shared(name, sizes)
    with tf.GradientTape() as tape:
        loss = MaskedCrossEntropy()(inputs["targets"], model(inputs, training=True)) + sum(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.path


@every_case
def test_a_model_survives_config_and_weights(build, inputs, name, sizes, tmp_path):
    model = build(name, **dict(sizes))
    model.feature_normalization.factor.assign(np.full(CHANNELS, 0.5))
    model.save_weights(tmp_path / "model.weights.h5")
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.build({"features": (None, *shape_of(name)), "tokens": (None, None)})
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(logits_of(again, inputs), logits_of(model, inputs))


def test_the_command_line_offers_every_model():
    assert set(get_args(CaptionerName)) == set(MODELS)


@every_model
def test_a_model_has_the_config_of_its_spec(shared, name):
    assert shared(name).config_class is model_spec(name).config
    assert type(shared(name).config) is model_spec(name).config


@pytest.mark.parametrize(("name", "dropout"), DROPOUTS)
def test_dropout_acts_in_training_only(build, inputs, name, dropout):
    model = build(name, **{dropout: 0.5})
    np.testing.assert_array_equal(logits_of(model, inputs), logits_of(model, inputs))
    assert np.abs(model(inputs, training=True) - model(inputs, training=True)).max() > 0


@every_case
def test_mixed_precision_gives_float32_logits_close_to_those_of_float32(build, shared_logits, inputs, name, sizes):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build(name, **dict(sizes))
    finally:
        keras.config.set_dtype_policy("float32")
    logits = mixed(inputs)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, shared_logits(name, sizes), atol=0.15)
    stepped, _, _ = mixed.step(inputs["tokens"][:, 0], mixed.init_state(inputs["features"]))
    assert stepped.dtype == "float32"
    np.testing.assert_allclose(stepped, logits[:, 0], atol=0.05)
    assert all(variable.dtype == "float32" for variable in mixed.trainable_variables)


@every_model
def test_a_model_overfits_four_captions(build, name):
    rng = np.random.default_rng(2)
    model = build(name)
    features = rng.normal(size=(4, *shape_of(name))).astype("float32")
    words = np.full((4, 6), START, np.int32)
    words[:, 1:5] = rng.integers(4, VOCABULARY, (4, 4))
    words[:, 5] = END
    words[3, 3:] = [END, 0, 0]
    inputs = {"features": features, "tokens": words[:, :-1], "targets": words[:, 1:]}
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step():
        with tf.GradientTape() as tape:
            loss = MaskedCrossEntropy()(inputs["targets"], model(inputs, training=True)) + sum(model.losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    for _ in range(60):
        train_step()
    logits = model(inputs)
    assert float(MaskedCrossEntropy()(words[:, 1:], logits)) < 0.2
    said = words[:, 1:] > 0
    np.testing.assert_array_equal(np.argmax(logits, -1)[said], words[:, 1:][said])
