"""Trains soft attention in plain JAX on the cached features of a store, and captions an image. It needs no TensorFlow.

python soft_attention_jax.py STORE
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import capt

START, END = 2, 3

Parameters = dict[str, jax.Array]


def make_parameters(key: jax.Array, vocabulary: int, channels: int, units: int = 256) -> Parameters:
    """Returns the weights of a GRU with soft attention (Xu et al., 2015)."""
    shapes = {
        "project": (channels, units),
        "query": (units, units),
        "energy": (units, 1),
        "embed": (vocabulary, units),
        "gates": (3 * units, 2 * units),
        "candidate": (3 * units, units),
        "logits": (2 * units, vocabulary),
    }
    keys = jax.random.split(key, len(shapes))
    weights = {
        name: jax.random.normal(one, shape) * shape[0] ** -0.5
        for one, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return {**weights, "bias": jnp.zeros(vocabulary)}


def start(parameters: Parameters, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the projected locations [N, L, units] and the first state [N, units] of features [N, L, channels]."""
    mean, deviation = features.mean(-1, keepdims=True), features.std(-1, keepdims=True)
    locations = (features - mean) / (deviation + 1e-5) @ parameters["project"]
    return locations, jnp.tanh(locations.mean(1))


def step(
    parameters: Parameters, locations: jax.Array, state: jax.Array, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the next state, and the logits [N, vocabulary] of the next token."""
    energy = jnp.tanh(locations + (state @ parameters["query"])[:, None]) @ parameters["energy"]
    context = (jax.nn.softmax(energy, axis=1) * locations).sum(1)
    inputs = jnp.concatenate([parameters["embed"][tokens], context], axis=1)
    gates = jax.nn.sigmoid(jnp.concatenate([inputs, state], axis=1) @ parameters["gates"])
    reset, update = jnp.split(gates, 2, axis=1)
    candidate = jnp.tanh(jnp.concatenate([inputs, reset * state], axis=1) @ parameters["candidate"])
    state = update * state + (1 - update) * candidate
    return state, jnp.concatenate([state, context], axis=1) @ parameters["logits"] + parameters["bias"]


def compute_loss(parameters: Parameters, batch: dict[str, jax.Array]) -> jax.Array:
    """Returns the mean cross-entropy in nats of the target tokens, padding excluded."""
    features = batch["features"].reshape(len(batch["features"]), -1, batch["features"].shape[-1])
    locations, state = start(parameters, features)
    _, logits = jax.lax.scan(partial(step, parameters, locations), state, batch["tokens"].T)
    targets = batch["targets"].T
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return (losses * (targets != 0)).sum() / (targets != 0).sum()


@jax.jit
def train_step(
    parameters: Parameters, moments: tuple[Parameters, Parameters], number: jax.Array, batch: dict[str, jax.Array]
) -> tuple[Parameters, tuple[Parameters, Parameters], jax.Array]:
    """Returns the parameters and moments after one step of Adam, and the loss before it."""
    loss, gradients = jax.value_and_grad(compute_loss)(parameters, batch)
    first = jax.tree.map(lambda moment, gradient: 0.9 * moment + 0.1 * gradient, moments[0], gradients)
    second = jax.tree.map(lambda moment, gradient: 0.999 * moment + 0.001 * gradient**2, moments[1], gradients)
    rate = 1e-3 * jnp.sqrt(1 - 0.999**number) / (1 - 0.9**number)
    parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), parameters, first, second)
    return parameters, (first, second), loss


def caption_image(parameters: Parameters, features: np.ndarray[Any, Any], max_length: int = 20) -> Iterator[int]:
    """Iterates over the token IDs of one image's caption, by greedy decoding."""
    locations, state = start(parameters, jnp.asarray(features).reshape(1, -1, features.shape[-1]))
    token = START
    for _ in range(max_length):
        state, logits = step(parameters, locations, state, jnp.array([token]))
        token = int(logits.argmax())
        if token == END:
            return
        yield token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--feature-table", help="fingerprint, if the store has several tables")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()

    words = capt.open_store(options.store).caption_tables()[0].vocabulary()
    source = capt.caption_source(options.store, "train", feature_table=options.feature_table)
    parameters = make_parameters(jax.random.key(0), len(words), source.feature_shape[-1])
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    moments, number = (zeros, zeros), 0
    for epoch in range(options.epochs):
        # Without the smaller batch, all batches have one shape, and JAX compiles the step once.
        batches = source.batches(options.batch_size, seed=0, epoch=epoch, drop_remainder=True)
        losses = []
        for position in range(len(batches)):
            number += 1
            parameters, moments, loss = train_step(parameters, moments, number, batches[position])
            losses.append(float(loss))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    image = source[0]
    print(image["image_key"][:12], " ".join(words[token] for token in caption_image(parameters, image["features"])))


if __name__ == "__main__":
    main()
