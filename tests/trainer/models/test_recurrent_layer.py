import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.recurrent_layer import RecurrentLayer

CELLS = ("rnn", "lstm", "gru", "adding")


def made(cell, units=6, reads=6, **arguments):
    keras.utils.set_random_seed(3)
    recurrence = RecurrentLayer(cell, units, **arguments)
    recurrence.build((None, None, reads))
    return recurrence


@pytest.mark.parametrize("cell", CELLS)
def test_single_steps_equal_the_whole_sequence(cell):
    recurrence = made(cell)
    words = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    state = recurrence.init_state(3)
    whole = np.array(recurrence(words, state))
    for t in range(5):
        state = recurrence.step(words[:, t], state)
        np.testing.assert_allclose(state["hidden"], whole[:, t], atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_an_lstm_has_a_carry_besides_the_hidden_state(cell):
    state = made(cell).init_state(2)
    assert list(state) == (["hidden", "carry"] if cell == "lstm" else ["hidden"])
    assert all(value.shape == (2, 6) for value in state.values())


def test_the_adding_cell_is_the_published_one():
    recurrence = made("adding")
    rng = np.random.default_rng(1)
    word, hidden = rng.normal(size=(2, 4, 6)).astype("float32")
    (kernel,) = recurrence.get_weights()
    expected = np.maximum(word + hidden @ kernel, 0)
    np.testing.assert_allclose(recurrence.step(word, {"hidden": hidden})["hidden"], expected, atol=1e-6)


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_weights_have_the_shapes_of_the_gates(cell, gates):
    kernel, recurrent, _ = made(cell, units=5, reads=7).get_weights()
    assert (kernel.shape, recurrent.shape) == ((7, gates * 5), (5, gates * 5))


@pytest.mark.parametrize("forget", [1.0, 3.0])
def test_the_forget_bias_is_the_initial_forget_gate(forget):
    recurrence = made("lstm", forget_bias=forget)
    zeros = np.zeros((2, 6), "float32")
    after = recurrence.step(zeros, {"hidden": zeros, "carry": np.ones((2, 6), "float32")})
    np.testing.assert_allclose(after["carry"], 1 / (1 + np.exp(-forget)), rtol=1e-5)


def test_initial_weights_fill_their_range_and_differ():
    kernel, recurrent, _ = made("lstm", 64, 64, init_scale=0.08).get_weights()
    for weights in (kernel, recurrent):
        assert 0.079 < np.abs(weights).max() <= 0.08
        assert weights.std() == pytest.approx(0.08 / 3**0.5, rel=0.05)
    assert not np.array_equal(kernel, recurrent)


@pytest.mark.parametrize("cell", CELLS)
def test_training_drops_the_same_recurrent_weights_for_all_steps(cell):
    recurrence = made(cell, units=32, reads=32, recurrent_weight_dropout=0.3)
    words = np.random.default_rng(0).normal(size=(8, 6, 32)).astype("float32")
    kernel = recurrence.layer.cell.recurrent_kernel
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(recurrence(words, recurrence.init_state(8), training=True) ** 2)
    left_out = tape.gradient(loss, kernel.value).numpy() == 0
    assert left_out.mean() == pytest.approx(0.3, abs=0.05)
    assert recurrence.layer.cell.recurrent_kernel is kernel


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_weights_are_dropped_in_training_only(cell):
    words = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    whole, dropped = made(cell), made(cell, recurrent_weight_dropout=0.5)
    dropped.set_weights(whole.get_weights())
    expected = np.array(whole(words, whole.init_state(3), training=True))
    np.testing.assert_array_equal(dropped(words, dropped.init_state(3)), expected)
    assert not np.allclose(dropped(words, dropped.init_state(3), training=True), expected)


@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_layer_survives_its_config(cell):
    config = RecurrentLayer(cell, 6, 0.1, recurrent_weight_dropout=0.2, name="words").get_config()
    assert RecurrentLayer.from_config(config).get_config() == config
