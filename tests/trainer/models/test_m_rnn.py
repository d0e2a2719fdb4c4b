from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from schemas.errors import UsageError
from trainer.config import parse_options
from trainer.models.configs import MRnnConfig
from trainer.models.m_rnn import MRnn, scaled_tanh

AUTHOR = Path(__file__).parents[3] / "examples" / "configs" / "m_rnn_author.yaml"


def built(channels=20, vocabulary=23, **sizes):
    keras.utils.set_random_seed(5)
    model = MRnn(vocabulary, MRnnConfig(**sizes))
    model.build({"features": (None, channels), "tokens": (None, None)})
    return model


def parameters(model):
    return sum(np.prod(variable.shape) for variable in model.trainable_variables)


def test_the_parameters_are_those_counted_by_hand():
    vocabulary, channels = 10000, 4096
    words = vocabulary * 128 + (128 + 1) * 256
    multimodal = (256 + 1) * 512 + 256 * 512 + channels * 512
    assert parameters(built(channels, vocabulary)) == words + 256 * 256 + multimodal + (512 + 1) * vocabulary


def test_the_authors_config_gives_the_parameters_counted_by_hand():
    _, config = parse_options(MRnnConfig, yaml.safe_load(AUTHOR.read_text()))
    assert (config.embedding_dim, config.embedding_dim_2, config.units, config.multimodal) == (1024, None, 2048, 2048)
    # A sixteenth of each, for the first weights of so large a GRU take seconds to draw.
    vocabulary, channels, embedding, units, multimodal = 300, 20, 64, 128, 128
    small = {**config.model_dump(), "embedding_dim": embedding, "units": units, "multimodal": multimodal}
    gru = 3 * ((embedding + units) * units + 2 * units)
    met = (embedding + 1) * multimodal + units * multimodal + channels * multimodal
    tied = vocabulary * embedding + (multimodal + 1) * embedding + vocabulary
    assert parameters(built(channels, vocabulary, **small)) == gru + met + tied


def test_the_authors_config_has_the_training_of_their_code():
    training, config = parse_options(MRnnConfig, yaml.safe_load(AUTHOR.read_text()))
    assert (training.optimizer, training.learning_rate, training.global_clipnorm) == ("sgd", 1.0, 10.0)
    assert (training.batch_size, config.dropout, config.rnn_cell, config.tie_word_embeddings) == (64, 0.5, "gru", True)


def test_logits_are_those_of_the_published_equations():
    model = built(embedding_dim=4, embedding_dim_2=6, units=6, multimodal=8)
    features = np.random.default_rng(0).normal(size=(1, 20)).astype("float32")
    tokens = [2, 9, 5]
    table, (second, bias) = np.array(model.embedding_layer.embeddings), model.second_layer.get_weights()
    (v_w, b_w), (v_r,), (v_i,) = (
        layer.get_weights() for layer in (model.from_word, model.from_state, model.from_image)
    )
    (u,), (out, b_out) = model.recurrence.get_weights(), model.logits_layer.get_weights()
    recurrent, expected = np.zeros(6), []
    for token in tokens:
        word = table[token] @ second + bias
        recurrent = np.maximum(recurrent @ u + word, 0)
        met = 1.7159 * np.tanh(2 / 3 * (word @ v_w + b_w + recurrent @ v_r + features[0] @ v_i))
        expected.append(met @ out + b_out)
    logits = model({"features": features, "tokens": np.array([tokens], np.int32)})
    np.testing.assert_allclose(logits[0], expected, atol=1e-5)


def test_the_scaled_tanh_maps_1_to_1():
    np.testing.assert_allclose(scaled_tanh(np.array([-1.0, 0.0, 1.0], "float32")), [-1, 0, 1], atol=1e-4)


def test_tied_output_weights_are_the_word_embeddings():
    model = built(
        rnn_cell="gru", embedding_dim=4, embedding_dim_2=None, units=5, multimodal=6, tie_word_embeddings=True
    )
    inputs = {"features": np.ones((1, 20), "float32"), "tokens": np.array([[2, 9]], "int32")}
    before = np.array(model(inputs))
    table = np.array(model.embedding_layer.embeddings)
    table[17] *= 3
    model.embedding_layer.embeddings.assign(table)
    after = np.array(model(inputs))
    np.testing.assert_allclose(after[..., 17], before[..., 17] * 3, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.delete(after, 17, -1), np.delete(before, 17, -1), atol=1e-6)
    assert np.abs(before[..., 17]).max() > 1e-4


def test_the_papers_cell_requires_units_of_the_size_of_its_inputs():
    with pytest.raises(UsageError, match="units must be 512"):
        parse_options(MRnnConfig, {"embedding_dim_2": 512})
    parse_options(MRnnConfig, {"embedding_dim_2": 512, "rnn_cell": "gru"})
    parse_options(MRnnConfig, {"embedding_dim_2": None, "embedding_dim": 256})
