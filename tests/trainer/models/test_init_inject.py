import numpy as np

from trainer.models.configs import InitInjectConfig
from trainer.models.init_inject import InitInject


def built(channels, vocabulary, **sizes):
    model = InitInject(vocabulary, InitInjectConfig(**sizes))
    model.build({"features": (None, channels), "tokens": (None, None)})
    return model


def elu(values):
    return np.where(values > 0, values, np.expm1(values))


def test_the_parameters_are_those_counted_by_hand():
    vocabulary, channels = 8769, 2048
    image = (channels + 1) * 120 + (120 + 1) * 300
    lstm = 4 * ((100 + 300) * 300 + 300)
    words = vocabulary * 100 + (300 + 1) * 120 + (120 + 1) * vocabulary
    model = built(channels, vocabulary)
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == image + lstm + words


def test_hidden_state_and_carry_are_initialized_from_the_image():
    model = built(20, 23, units=6, image_bottleneck=5)
    features = np.random.default_rng(0).normal(size=(3, 20)).astype("float32")
    (w1, b1), (w2, b2) = model.image_layer.get_weights(), model.init_layer.get_weights()
    expected = elu(elu(features @ w1 + b1) @ w2 + b2)
    state = model.init_state(features)
    np.testing.assert_allclose(state["hidden"], expected, atol=1e-5)
    np.testing.assert_allclose(state["carry"], expected, atol=1e-5)
