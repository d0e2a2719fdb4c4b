import keras
import numpy as np
import pytest

from trainer.config import CaptionerTraining
from trainer.models.ema import ema_weights, has_ema
from trainer.training.optimizers import WarmUp, make_optimizer


def rates(steps, **settings):
    optimizer = make_optimizer(CaptionerTraining(**settings), steps)
    variable = keras.Variable(0.0)
    optimizer.build([variable])
    seen = []
    for _ in range(4 * steps):
        seen.append(float(optimizer.learning_rate))
        optimizer.apply([np.float32(0)])
    return seen


def test_adam_takes_the_steps_of_its_paper():
    optimizer = make_optimizer(CaptionerTraining(), 1)
    variable = keras.Variable(1.0)
    optimizer.build([variable])
    value, mean, square = 1.0, 0.0, 0.0
    for step, gradient in enumerate([0.5, -2.0, 0.1], start=1):
        optimizer.apply([np.float32(gradient)])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value -= 1e-3 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-7)
        np.testing.assert_allclose(float(variable), value, rtol=1e-6)


def test_a_constant_learning_rate_does_not_change():
    assert rates(2, learning_rate=0.5) == [0.5] * 8


def test_the_step_schedule_multiplies_the_rate_every_few_epochs():
    assert rates(2, learning_rate=2.0, lr_schedule="step", lr_decay_rate=0.5, lr_decay_epochs=1) == [
        2,
        2,
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]


def test_the_cosine_schedule_decays_to_zero_at_the_last_epoch():
    seen = rates(2, learning_rate=1.0, lr_schedule="cosine", epochs=4)
    np.testing.assert_allclose(seen, (1 + np.cos(np.pi * np.arange(8) / 8)) / 2, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_rises_linearly_and_continues_with_the_schedule(schedule):
    warm = rates(2, learning_rate=1.0, lr_schedule=schedule, warmup_steps=4, epochs=4)
    plain = rates(2, learning_rate=1.0, lr_schedule=schedule, epochs=4)
    np.testing.assert_allclose(warm, np.minimum(np.arange(1, 9) / 4, 1) * plain, rtol=1e-5)


def test_a_schedule_survives_saving():
    schedule = WarmUp(keras.optimizers.schedules.CosineDecay(1.0, 8), 4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(again(step)) for step in range(8)] == [float(schedule(step)) for step in range(8)]


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_gradients_are_clipped_to_the_global_norm(name):
    optimizer = make_optimizer(CaptionerTraining(optimizer=name, learning_rate=1.0, global_clipnorm=5.0), 1)
    assert type(optimizer).__name__.lower() == name
    assert optimizer.global_clipnorm == 5.0


def test_sgd_applies_the_clipped_gradient():
    optimizer = make_optimizer(CaptionerTraining(optimizer="sgd", learning_rate=1.0, global_clipnorm=5.0), 1)
    weights = [keras.Variable([0.0]), keras.Variable([0.0])]
    optimizer.build(weights)
    optimizer.apply([np.array([30.0], np.float32), np.array([40.0], np.float32)])
    np.testing.assert_allclose([float(w.numpy()[0]) for w in weights], [-3, -4], rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_an_extractor_has_its_own_learning_rate(name, precision):
    weights = [keras.Variable([0.0, 0.0]), keras.Variable([0.0, 0.0])]
    config = CaptionerTraining(optimizer=name, learning_rate=0.1, extractor="vgg16", extractor_lr_multiplier=0.2)
    optimizer = make_optimizer(config, 1, weights[1:], config.extractor_lr_multiplier)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
    optimizer.build(weights)
    for _ in range(3):
        optimizer.apply([np.array([3.0, -1.0], np.float32)] * 2)
    fast, slow = (weight.numpy() for weight in weights)
    assert (np.abs(fast) > 0.05).all()
    np.testing.assert_allclose(slow, 0.2 * fast, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_weight_decay_excludes_biases_and_scales(name):
    weights = [keras.Variable([1.0], name=kind) for kind in ("kernel", "bias", "gamma", "beta")]
    optimizer = make_optimizer(CaptionerTraining(optimizer=name, learning_rate=0.1, weight_decay=0.5), 1)
    optimizer.build(weights)
    optimizer.apply([np.zeros(1, np.float32)] * 4)
    np.testing.assert_allclose([float(weight.numpy()[0]) for weight in weights], [0.95, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_ema_replaces_the_weights_only_inside_the_context(precision):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.layers.Input((1,)), layer])
    optimizer = make_optimizer(CaptionerTraining(optimizer="sgd", learning_rate=1.0, ema_momentum=0.5), 1)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
    model.compile(optimizer)
    assert not has_ema(model)
    optimizer.build(model.trainable_variables)
    for _ in range(2):
        optimizer.apply([np.array([[2.0]], np.float32)])
    assert has_ema(model)
    with ema_weights(model):
        assert layer.kernel.numpy() == pytest.approx(0.5 * -1 + 0.5 * -3)
    assert layer.kernel.numpy() == pytest.approx(-3)
    optimizer.finalize_variable_values(model.trainable_variables)
    assert layer.kernel.numpy() == pytest.approx(-3)
