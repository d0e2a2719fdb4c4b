import numpy as np

from trainer.models.configs import MergeConfig
from trainer.models.merge import Merge


def built(channels, vocabulary, **sizes):
    model = Merge(vocabulary, MergeConfig(**sizes))
    model.build({"features": (None, channels), "tokens": (None, None)})
    return model


def test_the_parameters_are_those_counted_by_hand():
    vocabulary, channels, embedding, units = 5000, 4096, 200, 256
    lstm = 4 * ((embedding + units) * units + units)
    layers = (channels + 1) * units + vocabulary * embedding + (units + 1) * units + (units + 1) * vocabulary
    model = built(channels, vocabulary)
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == lstm + layers


def test_the_recurrent_state_does_not_depend_on_the_image():
    model = built(20, 23, embedding_dim=6, units=8)
    features = np.random.default_rng(0).normal(size=(2, 20)).astype("float32")
    state = model.init_state(features)
    for _ in range(3):
        logits, state, _ = model.step(np.array([7, 7], np.int32), state)
    np.testing.assert_array_equal(state["hidden"][0], state["hidden"][1])
    assert np.abs(logits[0] - logits[1]).max() > 1e-4
