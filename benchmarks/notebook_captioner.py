"""Implements the captioner of the reference notebooks, which benchmarks compare with.

It is a reimplementation with their inefficiencies and errors:

- Features are one `.npy` file per image, read by `np.load` in a `numpy_function`, once per caption.
- Captions are padded to the longest of all, and the loss is averaged over padding.
- The train step is a Python loop over words in a `tf.function`, unrolled; each word projects all keys again.
- The GRU is called without its previous state; only the attention uses the state.
- Captions are generated one image at a time, with one eager call per word.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_SHUFFLED = 1000


class Encoder(keras.Model):  # type: ignore[misc]
    """Projects features [B, 64, 2048] to the decoder's size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = keras.layers.Dense(size)

    def call(self, features: Any) -> Any:
        return tf.nn.relu(self.fc(features))


class Attention(keras.Model):  # type: ignore[misc]
    """Additive attention."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.W1 = keras.layers.Dense(units)
        self.W2 = keras.layers.Dense(units)
        self.V = keras.layers.Dense(1)

    def call(self, features: Any, hidden: Any) -> tuple[Any, Any]:
        score = self.V(tf.nn.tanh(self.W1(features) + self.W2(tf.expand_dims(hidden, 1))))
        weights = tf.nn.softmax(score, axis=1)
        return tf.reduce_sum(weights * features, axis=1), weights


class Decoder(keras.Model):  # type: ignore[misc]
    """Predicts the next word."""

    def __init__(self, vocabulary: int, embedding: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.embedding = keras.layers.Embedding(vocabulary, embedding)
        self.gru = keras.layers.GRU(units, return_sequences=True, return_state=True)
        self.fc1 = keras.layers.Dense(units)
        self.fc2 = keras.layers.Dense(vocabulary)
        self.attention = Attention(units)

    def call(self, word: Any, features: Any, hidden: Any) -> tuple[Any, Any, Any]:
        context, weights = self.attention(features, hidden)
        x = tf.concat([tf.expand_dims(context, 1), self.embedding(word)], axis=-1)
        output, state = self.recur(x, hidden)
        x = self.fc1(output)
        x = tf.reshape(x, (-1, x.shape[2]))
        return self.fc2(x), state, weights

    def recur(self, x: Any, hidden: Any) -> tuple[Any, Any]:
        """Returns the GRU's output and state; the previous state is ignored."""
        output, state = self.gru(x)
        return output, state

    def reset_state(self, batch: int) -> Any:
        """Returns the initial state."""
        return tf.zeros((batch, self.units))


class StatefulDecoder(Decoder):
    """A decoder whose GRU receives its state, so that its captions can be compared with capt's."""

    def recur(self, x: Any, hidden: Any) -> tuple[Any, Any]:
        output, state = self.gru(x, initial_state=hidden)
        return output, state


def reader(paths: Sequence[str], captions: NDArray[np.int32], batch: int) -> tf.data.Dataset:
    """Returns one shuffled pass: features float32 [batch, 64, 2048] and captions [batch, T].

    Args:
        paths: The `.npy` file of each caption's image.
        captions: Token IDs int32 [captions, T], padded with 0.
        batch: Batch size in captions.
    """

    def load(path: bytes, caption: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        return np.load(path.decode("utf-8")), caption

    dataset = tf.data.Dataset.from_tensor_slices((list(paths), captions))
    dataset = dataset.map(
        lambda path, caption: tf.numpy_function(load, [path, caption], [tf.float32, tf.int32]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.shuffle(_SHUFFLED).batch(batch).prefetch(tf.data.AUTOTUNE)


def train_step(encoder: Encoder, decoder: Decoder, start: int) -> Callable[[Any, Any], Any]:
    """Returns the train step: features [B, 64, 2048] and captions [B, T] to the loss."""
    optimizer = keras.optimizers.Adam()
    loss_object = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def loss_function(real: Any, predicted: Any) -> Any:
        mask = tf.cast(tf.math.not_equal(real, 0), tf.float32)
        return tf.reduce_mean(loss_object(real, predicted) * mask)

    @tf.function  # type: ignore[untyped-decorator]
    def step(images: Any, target: Any) -> Any:
        loss = 0.0
        hidden = decoder.reset_state(target.shape[0])
        word = tf.expand_dims([start] * target.shape[0], 1)
        with tf.GradientTape() as tape:
            features = encoder(images)
            for i in range(1, target.shape[1]):
                predictions, hidden, _ = decoder(word, features, hidden)
                loss += loss_function(target[:, i], predictions)
                word = tf.expand_dims(target[:, i], 1)
        variables = encoder.trainable_variables + decoder.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss / int(target.shape[1])

    compiled: Callable[[Any, Any], Any] = step
    return compiled


def caption(
    encoder: Encoder, decoder: Decoder, path: str, words: Sequence[str], start: int, end: int, most: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Captions one image.

    Args:
        encoder: A trained encoder.
        decoder: A trained decoder.
        path: The `.npy` file of the image's features.
        words: The vocabulary.
        start: ID of the start token.
        end: ID of the end token.
        most: Maximum number of words.

    Returns:
        The words without the end token, and the attention weights float32 [most, 64].
    """
    features = encoder(tf.expand_dims(np.load(path), 0))
    plot = np.zeros((most, features.shape[1]), np.float32)
    hidden = decoder.reset_state(1)
    word = tf.expand_dims([start], 0)
    result: list[str] = []
    for i in range(most):
        predictions, hidden, weights = decoder(word, features, hidden)
        plot[i] = tf.reshape(weights, (-1,)).numpy()
        predicted = int(tf.argmax(predictions[0]).numpy())
        if predicted == end:
            break
        result.append(words[predicted])
        word = tf.expand_dims([predicted], 0)
    return result, plot
