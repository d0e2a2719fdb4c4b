import keras
import numpy as np
import pytest

from trainer.models.configs import NicConfig
from trainer.models.nic import Nic


def built(channels=20, vocabulary=23, **sizes):
    keras.utils.set_random_seed(5)
    model = Nic(vocabulary, NicConfig(**sizes))
    model.build({"features": (None, channels), "tokens": (None, None)})
    return model


def test_the_parameters_are_those_counted_by_hand():
    vocabulary, channels, size = 12000, 2048, 512
    lstm = 4 * ((size + size) * size + size)
    layers = channels * size + vocabulary * size + (size + 1) * vocabulary
    model = built(channels, vocabulary)
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == lstm + layers


def test_the_image_is_the_input_before_the_first_word():
    model = built(embedding_dim=6, units=8)
    model.embedding_layer.embeddings.assign(model.embedding_layer.embeddings * 5)
    features = np.random.default_rng(0).normal(size=(1, 20)).astype("float32")
    model.image_layer.kernel.assign(np.outer(features, model.embedding_layer.embeddings[7]) / (features**2).sum())
    _, after_word, _ = model.step(np.array([7], np.int32), model.recurrence.init_state(1))
    for part, value in model.init_state(features).items():
        np.testing.assert_allclose(value, after_word[part], atol=1e-6)


def test_initial_weights_are_in_the_published_range():
    model = built(embedding_dim=32, units=32)
    matrices = [variable for variable in model.trainable_variables if len(variable.shape) == 2]
    assert len(matrices) == 5
    for matrix in matrices:
        assert np.abs(matrix).max() <= 0.08
        assert np.std(matrix) == pytest.approx(0.08 / 3**0.5, rel=0.1), matrix.path


def test_the_image_at_every_step_is_added_to_each_word_and_needs_no_weights_of_its_own():
    once, every = built(embedding_dim=6, units=8), built(embedding_dim=6, units=8, feed="every")
    assert [one.shape for one in once.weights] == [one.shape for one in every.weights]
    every.set_weights(once.get_weights())
    features = np.random.default_rng(0).normal(size=(1, 20)).astype("float32")
    image = once.image_layer(once.feature_normalization(features))
    state, token = every.init_state(features), np.array([7], np.int32)
    np.testing.assert_allclose(state["hidden"], once.init_state(features)["hidden"])
    _, after, _ = every.step(token, state)
    expected = once.recurrence.step(once.embedding_layer(token) + image, once.init_state(features))
    np.testing.assert_allclose(after["hidden"], expected["hidden"], atol=1e-6)


def test_a_run_from_before_the_option_fed_the_image_once():
    assert NicConfig(units=8).feed == "once"
