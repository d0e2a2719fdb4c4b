"""Recognizer: reads the word in a noisy image, letter by letter, wherever in the image it stands.

    images → convolutions → cells [rows, columns, C], of eight by eight pixels
    cells  → attention over each column's rows → columns     so that noise above and below the word is left out
    columns → recurrence in both directions → context        which tells one column what the others read
    context → CTC head: a letter or the blank, twice a column                     (Graves et al., ICML 2006)
            → attention head: for each position of the word, the columns that it is read from, and its letter

One head reads, the other learns beside it. CTC alone reads nothing for its first hundred thousand images, until letters
and their places are found at once. So the cells learn by themselves how often each letter is anywhere, from the first
step on; then places are soon found.
"""

import math
from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.decoding.ctc_greedy import greedy_ids
from trainer.models.charset import CLASSES
from trainer.models.ctc_losses import ace_losses, ctc_losses, padded, position_losses

_PIXELS_A_FRAME = 4

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class Convolution(keras.layers.Layer):
    """A 3×3 convolution, normalized over the batch (Ioffe and Szegedy, 2015, arXiv:1502.03167).

    Args:
        width: int. Channels out.
        stride: int. Down and across.

    Call arguments:
        inputs: float [B, H, W, C].

    Returns:
        float [B, ⌈H / stride⌉, ⌈W / stride⌉, width].
    """

    def __init__(self, width: int, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.stride = stride
        self.convolution = keras.layers.Conv2D(
            width, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name="convolution"
        )
        self.normalization = keras.layers.BatchNormalization(momentum=0.95, name="normalization")

    def build(self, input_shape: Any) -> None:
        self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.normalization(self.convolution(inputs), training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.convolution.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "stride": self.stride}


@keras.saving.register_keras_serializable("capt")
class Residual(keras.layers.Layer):
    """Two convolutions whose result is added to what they read (He et al., 2016, arXiv:1512.03385).

    Args:
        width: int. Channels in and out.

    Call arguments:
        inputs: float [B, H, W, width].
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.first = Convolution(width, name="first")
        self.second = Convolution(width, name="second")

    def build(self, input_shape: Any) -> None:
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        between = ops.relu(self.first(inputs, training=training))
        return ops.relu(inputs + self.second(between, training=training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("capt")
class ColumnAttention(keras.layers.Layer):
    """Every column of a map as one vector: its rows by learned weights, which sum to 1.

    Call arguments:
        cells: float [B, rows, columns, C].

    Returns:
        float [B, columns, C].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.score_layer = keras.layers.Dense(1, use_bias=False, name="score")

    def build(self, input_shape: Any) -> None:
        self.score_layer.build(input_shape)

    def call(self, cells: Any) -> Any:
        weights = ops.softmax(ops.cast(self.score_layer(cells), "float32"), axis=1)
        return ops.sum(ops.cast(weights, cells.dtype) * cells, axis=1)


@keras.saving.register_keras_serializable("capt")
class PositionAttention(keras.layers.Layer):
    """For each position of a word, the columns it is read from: a learned query a position, all at once.

    Args:
        positions: int. Letters of a word at most.

    Call arguments:
        columns: float [B, columns, C].

    Returns:
        float [B, positions, C].
    """

    def __init__(self, positions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.positions = positions
        self.score_layer = keras.layers.Dense(positions, use_bias=False, name="score")

    def build(self, input_shape: Any) -> None:
        self.score_layer.build(input_shape)

    def call(self, columns: Any) -> Any:
        weights = ops.softmax(ops.cast(self.score_layer(columns), "float32"), axis=1)
        return ops.matmul(ops.transpose(ops.cast(weights, columns.dtype), (0, 2, 1)), columns)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "positions": self.positions}


# === Model ===


@keras.saving.register_keras_serializable("capt")
class Recognizer(keras.Model):
    """Reads words of the letters a to z.

    `compile` needs an optimizer and no loss: the loss is the model's own, as are its metrics, `loss`, `head_loss` (that
    of the head that reads) and `word_accuracy` (greedy, the whole word right).

    Args:
        head: str. Which head reads, `ctc` or `attention`.
        filters: sequence of int. Channels of each stage; a stage begins by halving the size. At least two.
        blocks_per_stage: sequence of int. Residual blocks of each stage.
        units: int. Size of the recurrence's state, each way.
        dropout: float. Share of the context's components that training leaves out, 0 to 1.
        max_label_length: int. Letters of a word at most.
        ace_loss_weight: float. Weight of the loss of how often letters come anywhere.
        auxiliary_loss_weight: float. Weight of the loss of the head that does not read.
        label_smoothing: float. Share of each position's target that is spread over all letters.

    Call arguments:
        images: uint8 [B, H, W, 3]. RGB.

    Returns:
        dict of float32 tensors, all logits:
            `ctc`: [B, frames, 27]. A frame is four pixels wide; class 0 is the blank.
            `attention`: [B, longest, 27]. Class 0 says that the word has ended.
            `cells`: [B, rows · columns, 27]. Class 0 is nothing.
    """

    def __init__(
        self,
        head: str = "ctc",
        filters: tuple[int, ...] = (32, 64, 128),
        blocks_per_stage: tuple[int, ...] = (0, 1, 2),
        units: int = 96,
        dropout: float = 0.1,
        max_label_length: int = 5,
        ace_loss_weight: float = 3.0,
        auxiliary_loss_weight: float = 0.5,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.head = head
        self.filters = tuple(filters)
        self.blocks_per_stage = tuple(blocks_per_stage)
        self.units = units
        self.dropout = dropout
        self.max_label_length = max_label_length
        self.ace_loss_weight = ace_loss_weight
        self.auxiliary_loss_weight = auxiliary_loss_weight
        self.label_smoothing = label_smoothing
        frames_a_column = 2 ** len(self.filters) // _PIXELS_A_FRAME
        self.trunk = keras.Sequential(self._trunk(), name="trunk")
        self.cell_layer = keras.layers.Dense(CLASSES, dtype="float32", name="cells")
        self.column_attention = ColumnAttention(name="columns")
        self.context = keras.layers.Bidirectional(keras.layers.GRU(units, return_sequences=True), name="context")
        self.context_dropout = keras.layers.Dropout(dropout, name="context_dropout")
        self.ctc_layer = keras.layers.Dense(frames_a_column * CLASSES, dtype="float32", name="ctc")
        self.position_attention = PositionAttention(max_label_length, name="positions")
        self.attention_layer = keras.layers.Dense(CLASSES, dtype="float32", name="attention")
        self.head_loss = keras.metrics.Mean(name="head_loss")
        self.word_accuracy = keras.metrics.Mean(name="word_accuracy")

    def _trunk(self) -> list[keras.layers.Layer]:
        layers: list[keras.layers.Layer] = []
        for width, blocks in zip(self.filters, self.blocks_per_stage, strict=True):
            layers += [Convolution(width, stride=2), keras.layers.ReLU(), *(Residual(width) for _ in range(blocks))]
        return layers

    def build(self, input_shape: Any) -> None:
        images = (None, *input_shape[1:])
        cells = self.trunk.compute_output_shape(images)
        columns, context = (None, *cells[2:]), (None, cells[2], 2 * self.units)
        self.trunk.build(images)
        self.cell_layer.build(cells)
        self.column_attention.build(cells)
        self.context.build(columns)
        self.ctc_layer.build(context)
        self.position_attention.build(context)
        self.attention_layer.build((None, self.max_label_length, 2 * self.units))
        self.built = True

    def call(self, images: Any, training: bool = False) -> dict[str, Any]:
        # White paper becomes 0, which is also what convolutions see beyond the image's edge.
        ink = 1 - ops.cast(images, self.compute_dtype) / 255
        cells = self.trunk(ink, training=training)
        columns = self.context_dropout(self.context(self.column_attention(cells)), training=training)
        return {
            "ctc": _in_rows_of(CLASSES, self.ctc_layer(columns)),
            "attention": self.attention_layer(self.position_attention(columns)),
            "cells": _in_rows_of(CLASSES, self.cell_layer(cells)),
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The weighted sum of the three outputs' losses, a scalar; y is int32 [B, L], letter ids padded with 0."""
        words = padded(y, self.max_label_length)
        losses = {
            "ctc": ctc_losses(words, y_pred["ctc"]),
            "attention": position_losses(words, y_pred["attention"], self.label_smoothing),
        }
        own = losses.pop(self.head)
        (other,) = losses.values()
        self.head_loss.update_state(own)
        letters = ace_losses(words, y_pred["cells"])
        return ops.mean(own + self.auxiliary_loss_weight * other + self.ace_loss_weight * letters)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """`loss`, `head_loss` and `word_accuracy`, of what has been seen since the epoch began."""
        read = greedy_ids(self.head, y_pred[self.head])
        self.word_accuracy.update_state(ops.all(ops.equal(read, padded(y, read.shape[1])), axis=1))
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head": self.head,
            "filters": self.filters,
            "blocks_per_stage": self.blocks_per_stage,
            "units": self.units,
            "dropout": self.dropout,
            "max_label_length": self.max_label_length,
            "ace_loss_weight": self.ace_loss_weight,
            "auxiliary_loss_weight": self.auxiliary_loss_weight,
            "label_smoothing": self.label_smoothing,
        }


def _in_rows_of(size: int, tensor: Any) -> Any:
    """[B, …] as [B, rows, size]."""
    return ops.reshape(tensor, (-1, math.prod(tensor.shape[1:]) // size, size))
