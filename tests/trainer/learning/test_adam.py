"""Our Adam takes the steps that Keras' takes."""

import keras
import numpy as np
import pytest

from trainer.config import TrainingConfig
from trainer.learning.adam import Adam
from trainer.learning.optimizers import make_optimizer


def trained(optimizer, steps=6):
    """A small model after some steps; some of its word vectors get no gradient."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 5), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    words, targets = rng.integers(0, 6, (2 * steps, 4)), rng.integers(0, 3, 2 * steps)
    model.fit(words, targets, batch_size=2, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e-2},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(1e-2, 6), "global_clipnorm": 0.1},
        {"learning_rate": 1e-2, "weight_decay": 0.1},
        {"learning_rate": 1e-2, "use_ema": True, "ema_momentum": 0.5},
    ],
    ids=["constant", "cosine, clipped", "decay", "average"],
)
def test_weights_and_state_are_those_of_keras(options):
    ours, theirs = trained(Adam(**options)), trained(keras.optimizers.Adam(**options))
    for one, other in zip(
        [*ours.weights, *ours.optimizer.variables], [*theirs.weights, *theirs.optimizer.variables], strict=True
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-7)


def test_runs_learn_with_it():
    assert isinstance(make_optimizer(TrainingConfig(optimizer="adam"), 1), Adam)


def test_it_scales_the_loss_in_half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = trained(Adam(1e-2))
    finally:
        keras.config.set_dtype_policy(before)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
