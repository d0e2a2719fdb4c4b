"""A recognizer like that of Keras' OCR example, in Keras alone, which benchmarks compare with.

    gray image 50×200, 0 to 1, transposed: its width is the time      200×50×1
      → 2 × 3×3 convolution (32 and 64 filters), 2×2 max pooling      50×12×64
      → one vector per column, dense layer, dropout 0.2               50×64
      → 2 bidirectional LSTMs with 128 and 64 units, dropout 0.25     50×128
      → dense layer: logits of the blank and the characters           50×classes

CTC computes the softmax. Adam trains in batches of 16, at most 100 epochs, until the validation loss has not improved
for 10. The weights of the best epoch are kept, and labels are recognized greedily. The input size is fixed, so images
of other sizes are stretched. The characters are those of the train labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.images.decode import open_image
from features.text.charset import BLANK, Charset
from features.text.visual_order import decode_visually, encode_visually
from schemas.errors import CaptError
from trainer.data.label_limits import LabelLimits

HEIGHT, WIDTH = 50, 200
TIME_STEPS = WIDTH // 4
MAX_EPOCHS = 100
_PATIENCE = 10
_BATCH = 16

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledPixels:
    """Images of `load_pixels` with their labels."""

    pixels: Pixels
    labels: tuple[str, ...]

    def select(self, chosen: NDArray[np.bool_]) -> "LabelledPixels":
        """Returns the images that are chosen, bool [N]."""
        return LabelledPixels(self.pixels[chosen], tuple(compress(self.labels, chosen)))


def load_pixels(files: Sequence[bytes]) -> Pixels:
    """Decodes encoded images and returns them gray, transposed and stretched, uint8 [N, 200, 50, 1]."""
    pixels = np.empty((len(files), WIDTH, HEIGHT, 1), np.uint8)
    for row, data in zip(pixels, files, strict=True):
        gray = open_image(data).convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        row[..., 0] = np.asarray(gray).T
    return pixels


def build_network(num_classes: int) -> keras.Model:
    """Returns the network, from uint8 [B, 200, 50, 1] to logits float32 [B, 50, classes]."""
    layers = keras.layers
    pixels = keras.Input((WIDTH, HEIGHT, 1), dtype="uint8")
    outputs = layers.Rescaling(1 / 255)(pixels)
    for filters in (32, 64):
        outputs = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(outputs)
        outputs = layers.MaxPooling2D()(outputs)
    outputs = layers.Reshape((TIME_STEPS, -1))(outputs)
    outputs = layers.Dense(64, activation="relu")(outputs)
    outputs = layers.Dropout(0.2)(outputs)
    for units in (128, 64):
        outputs = layers.Bidirectional(layers.LSTM(units, return_sequences=True, dropout=0.25))(outputs)
    return keras.Model(pixels, layers.Dense(num_classes)(outputs))


class KerasOcr:
    """The recognizer of a set of train labels.

    Args:
        labels: The train labels.

    Raises:
        CaptError: A label needs more than 50 time steps.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.charset = Charset.from_labels(labels)
        self._limits = LabelLimits(self.charset, max_length=TIME_STEPS, time_steps=TIME_STEPS)
        if problems := self._limits.describe_problems(labels):
            raise CaptError(f"the Keras OCR example cannot learn all train labels: {problems}")
        self.network = build_network(self.charset.num_classes)

    def fit(self, train: LabelledPixels, val: LabelledPixels, max_epochs: int = MAX_EPOCHS) -> int:
        """Trains the network and returns the number of epochs.

        Labels of `val` with characters that the train labels lack have no loss and are not used.
        """
        val = val.select(self._limits.allows(val.labels))
        if not val.labels:
            raise CaptError("no val label has only characters of the train labels", hint="Use a larger set.")
        stop = keras.callbacks.EarlyStopping("val_loss", patience=_PATIENCE, restore_best_weights=True)
        self.network.compile(optimizer=keras.optimizers.Adam(), loss=keras.losses.CTC())
        history = self.network.fit(
            train.pixels,
            encode_visually(self.charset, train.labels),
            batch_size=_BATCH,
            epochs=max_epochs,
            validation_data=(val.pixels, encode_visually(self.charset, val.labels)),
            callbacks=[stop],
            verbose=0,
        )
        return len(history.epoch)

    def recognize(self, pixels: Pixels) -> list[str]:
        """Returns the label of each image, by greedy decoding."""
        return merge_classes(self.charset, self.network.predict(pixels, verbose=0).argmax(axis=2))


def merge_classes(charset: Charset, classes: NDArray[np.int64]) -> list[str]:
    """Returns the labels of the most probable classes [N, T]: repeated classes are merged, blanks are removed."""
    is_first = np.diff(classes, axis=1, prepend=BLANK) != 0
    return decode_visually(charset, np.where(is_first, classes, BLANK).astype(np.int32))
