import numpy as np

from trainer.models.configs import ParInjectConfig
from trainer.models.par_inject import ParInject


def built(channels, vocabulary, **sizes):
    model = ParInject(vocabulary, ParInjectConfig(**sizes))
    model.build({"features": (None, channels), "tokens": (None, None)})
    return model


def test_the_parameters_are_those_counted_by_hand():
    vocabulary, channels, size = 5000, 4096, 256
    gru = 3 * ((size + size) * size + 2 * size)
    layers = (channels + 1) * size + vocabulary * size + (size + 1) * vocabulary
    model = built(channels, vocabulary)
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == gru + layers


def test_the_recurrent_layer_reads_the_sum_of_word_and_image():
    model = built(20, 23, embedding_dim=6, units=8)
    features = np.random.default_rng(0).normal(size=(2, 20)).astype("float32")
    kernel, bias = model.image_layer.get_weights()
    token = np.array([7, 9], np.int32)
    read = np.array(model.embedding_layer(token)) + features @ kernel + bias
    state = model.init_state(features)
    _, after, _ = model.step(token, state)
    np.testing.assert_allclose(after["hidden"], model.recurrence.step(read, state)["hidden"], atol=1e-6)
