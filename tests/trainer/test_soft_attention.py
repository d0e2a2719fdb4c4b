import keras
import numpy as np
import pytest
import tensorflow as tf

from schemas.recipes import START
from trainer.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.model_configs import SoftAttentionConfig
from trainer.models import model_spec
from trainer.soft_attention import AdditiveAttention, SoftAttention

SIZES = {"embedding": 12, "units": 16, "attention": 10, "projection": 14, "output": 18}
VOCABULARY, PLACES, CHANNELS = 23, 9, 20


def build(**sizes):
    keras.utils.set_random_seed(5)
    config = SoftAttentionConfig(**{**SIZES, **sizes})
    return model_spec("soft_attention").build(config, VOCABULARY, (PLACES, CHANNELS))


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, VOCABULARY, (5, 7)).astype(np.int32)
    tokens[:, 0] = START
    features = rng.normal(size=(5, PLACES, CHANNELS)).astype(np.float32)
    return {"features": features, "tokens": tokens}


def logits_of(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs))


def test_logits_have_a_row_for_every_word(inputs):
    assert logits_of(build(), inputs).shape == (5, 7, VOCABULARY)


def test_the_state_is_carried_from_word_to_word(inputs):
    model = build()
    changed = {**inputs, "tokens": inputs["tokens"].copy()}
    changed["tokens"][:, 2] = 4 + (changed["tokens"][:, 2] - 3) % (VOCABULARY - 4)
    before, after = logits_of(model, inputs), logits_of(model, changed)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    for later in range(2, 7):
        assert (np.abs(before[:, later] - after[:, later]).max(axis=-1) > 1e-6).all()


def test_step_by_step_gives_the_logits_of_the_whole(inputs):
    model = build()
    state = model.begin(inputs["features"])
    for t in range(7):
        logits, state, attention = model.step(inputs["tokens"][:, t], state)
        np.testing.assert_allclose(logits, logits_of(model, inputs)[:, t], atol=1e-5)
        np.testing.assert_allclose(keras.ops.sum(attention, -1), np.ones(5), atol=1e-5)
        assert attention.shape == (5, PLACES)


def test_captions_that_share_an_image_need_its_features_once(inputs):
    model = build()
    image = np.array([0, 0, 2, 2, 1], np.int32)
    repeated = {**inputs, "features": inputs["features"][image]}
    shared = {"features": inputs["features"][:3], "image": image, "tokens": inputs["tokens"]}
    np.testing.assert_allclose(logits_of(model, shared), logits_of(model, repeated), atol=1e-6)


def test_what_follows_a_caption_changes_none_of_its_words(inputs):
    model = build()
    longer = {**inputs, "tokens": np.pad(inputs["tokens"], [(0, 0), (0, 5)])}
    np.testing.assert_allclose(logits_of(model, longer)[:, :7], logits_of(model, inputs), atol=1e-6)


def test_attention_is_the_published_score():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    query, values = rng.normal(size=(2, 6)).astype("float32"), rng.normal(size=(2, 4, 5)).astype("float32")
    layer = AdditiveAttention(3)
    layer.build((None, 6), (None, 4, 3), (None, 4, 5))
    context, weights = layer(query, layer.keys(values), values)
    w1, (w2, b2), v = layer.key_layer.kernel, layer.query_layer.get_weights(), layer.score_layer.kernel
    score = np.tanh(values @ np.array(w1) + (query @ w2 + b2)[:, None]) @ np.array(v)[:, 0]
    expected = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(context, np.einsum("bl,blc->bc", expected, values), atol=1e-5)


def test_the_size_and_offset_of_the_features_do_not_matter(inputs):
    small, large = build(), build()
    small.feature_scale.fit(inputs["features"])
    large.feature_scale.fit(inputs["features"] * 50 + 10)
    bigger = {**inputs, "features": inputs["features"] * 50 + 10}
    np.testing.assert_allclose(logits_of(large, bigger), logits_of(small, inputs), atol=1e-4)


def test_channels_that_never_change_keep_their_size():
    model = build()
    model.feature_scale.fit(np.zeros((2, PLACES, CHANNELS), np.float16))
    assert np.array_equal(model.feature_scale.factor, np.ones(CHANNELS))


def test_large_half_floats_are_measured_without_overflow():
    model = build()
    features = np.zeros((2, PLACES, CHANNELS), np.float16)
    features[0] = 6e4
    model.feature_scale.fit(features)
    np.testing.assert_allclose(model.feature_scale.mean, 3e4, rtol=1e-3)
    np.testing.assert_allclose(model.feature_scale.factor, 1 / 3e4, rtol=1e-3)


def test_every_variable_has_a_gradient(inputs):
    model = build()
    with tf.GradientTape() as tape:
        loss = MaskedCrossEntropy()(np.roll(inputs["tokens"], -1, 1), model(inputs, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.path


def test_the_gradient_agrees_with_finite_differences(inputs):
    model = build()
    targets = np.roll(inputs["tokens"], -1, 1)
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


def test_the_model_comes_back_from_its_config_and_weights(inputs, tmp_path):
    model = build(dropout=0.3)
    model.feature_scale.factor.assign(np.full(CHANNELS, 0.5))
    model.save_weights(tmp_path / "model.weights.h5")
    again = SoftAttention.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.build({"features": (None, PLACES, CHANNELS), "tokens": (None, None)})
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(logits_of(again, inputs), logits_of(model, inputs))


def test_the_attention_layer_comes_back_from_its_config():
    config = AdditiveAttention(7, name="looks").get_config()
    assert AdditiveAttention.from_config(config).get_config() == config


def test_dropout_acts_in_training_alone(inputs):
    model = build(dropout=0.5)
    np.testing.assert_array_equal(logits_of(model, inputs), logits_of(model, inputs))
    assert np.abs(model(inputs, training=True) - model(inputs, training=True)).max() > 0


def test_mixed_precision_gives_float32_logits_close_to_those_of_float32(inputs):
    plain = build()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build()
    finally:
        keras.config.set_dtype_policy("float32")
    logits = mixed(inputs)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, plain(inputs), atol=0.1)
    assert all(variable.dtype == "float32" for variable in mixed.trainable_variables)


def test_it_learns_eight_captions_by_heart():
    rng = np.random.default_rng(2)
    model = build(units=48)
    features = rng.normal(size=(8, PLACES, CHANNELS)).astype("float32")
    words = np.pad(rng.integers(4, VOCABULARY, (8, 6)), [(0, 0), (1, 1)], constant_values=((0, 0), (START, 3)))
    words[3, 5:] = [3, 0, 0]
    words = words.astype(np.int32)
    model.compile(keras.optimizers.Adam(0.01), MaskedCrossEntropy(), metrics=[CrossEntropy(), MaskedAccuracy()])
    data = tf.data.Dataset.from_tensors(({"features": features, "tokens": words[:, :-1]}, words[:, 1:])).repeat(60)
    model.fit(data, verbose=0, epochs=2, shuffle=False)
    figures = model.evaluate(data.take(1), verbose=0, return_dict=True)
    assert figures["accuracy"] == 1
    assert figures["cross_entropy"] < 0.1
