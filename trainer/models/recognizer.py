"""Defines the recognizer: it finds the label in a noisy image and recognizes it character by character.

    images → convolutions → cells [rows, columns, C], of eight by eight pixels
    cells  → attention over the rows of each column → columns      ignores noise above and below the label
    columns → bidirectional recurrent layer → context              shares evidence between columns
    context → CTC head: two time steps per column, each a character or the blank      (Graves et al., ICML 2006)
            → attention head: for each position of the label, the columns it attends to, and its character

One head predicts the labels; the auxiliary head is only trained. CTC alone recognizes nothing in its first 100,000
images, because it must learn characters and their locations together. Therefore an aggregation cross-entropy (ACE) on
the cells trains from the first step how often each character occurs anywhere. The locations are learned soon after.

With `language_model: none`, a convolution replaces the recurrent layer. There is no attention head then, because it
counts the characters before a position.
"""

import math
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from features.runtime.keras_settings import keras, ops
from trainer.models.configs import RecognizerConfig
from trainer.models.recognizer_heads import ace_losses, ctc_losses, greedy_ids, pad_labels, position_losses

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class Convolution(keras.layers.Layer):
    """A 3×3 convolution with batch normalization (Ioffe and Szegedy, 2015, arXiv:1502.03167).

    Maps float [B, H, W, C] to float [B, ⌈H / stride⌉, ⌈W / stride⌉, filters].
    """

    def __init__(self, filters: int, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(
            filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name="convolution"
        )
        self.normalization = keras.layers.BatchNormalization(momentum=0.95, name="normalization")

    def build(self, input_shape: Any) -> None:
        self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.normalization(self.convolution(inputs), training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.convolution.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable("capt")
class ResidualBlock(keras.layers.Layer):
    """Two convolutions whose output is added to their input [B, H, W, filters] (He et al., 2016, arXiv:1512.03385)."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = Convolution(filters, name="first")
        self.second = Convolution(filters, name="second")

    def build(self, input_shape: Any) -> None:
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        hidden = ops.relu(self.first(inputs, training=training))
        return ops.relu(inputs + self.second(hidden, training=training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable("capt")
class ColumnAttention(keras.layers.Layer):
    """Reduces every column of a feature map to the weighted mean of its rows, with learned attention.

    Maps float [B, rows, columns, C] to float [B, columns, C].
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
    """Computes the weighted mean of the columns for each position of a label, with one learned query per position.

    Maps float [B, columns, C] to float [B, positions, C].
    """

    def __init__(self, positions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.score_layer = keras.layers.Dense(positions, use_bias=False, name="score")

    def build(self, input_shape: Any) -> None:
        self.score_layer.build(input_shape)

    def call(self, columns: Any) -> Any:
        weights = ops.softmax(ops.cast(self.score_layer(columns), "float32"), axis=1)
        return ops.matmul(ops.transpose(ops.cast(weights, columns.dtype), (0, 2, 1)), columns)


def _make_context(config: RecognizerConfig) -> Any:
    """Returns the layer that shares evidence between columns, float [B, columns, C] to [B, columns, 2 · units]."""
    if config.reads_words:
        return keras.layers.Bidirectional(keras.layers.GRU(config.units, return_sequences=True), name="context")
    return keras.layers.Conv1D(2 * config.units, 3, padding="same", activation="relu", name="context")


# === Model ===


@keras.saving.register_keras_serializable("capt")
class Recognizer(keras.Model):
    """Recognizes labels of the characters in `config.charset`.

    `compile` needs an optimizer only: the model has its own loss and metrics, `loss`, `head_loss` (of the head that
    predicts the labels) and `exact_match` (of greedy decoding).

    Args:
        config: Hyperparameters, with `filters`, `charset` and `max_label_length`.

    Call arguments:
        images: uint8 [B, H, W, 3]. RGB.

    Returns:
        Logits by name, float32; classes from 1 are the characters.
            `ctc`: [B, time steps, classes]. A time step is four pixels wide; class 0 is the blank.
            `attention`: [B, positions, classes]. Class 0 is the end of the label. Absent with `language_model: none`.
            `cells`: [B, rows · columns, classes]. Class 0 means no character.
    """

    config_class: ClassVar[type[RecognizerConfig]] = RecognizerConfig

    def __init__(self, config: RecognizerConfig | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # From a saved model, the config is a dict.
        self.config = config = self.config_class.model_validate(config or {})
        self.num_classes = classes = config.characters.num_classes
        layers: list[Any] = []
        for filters, blocks in config.stages:
            stage = (ResidualBlock(filters) for _ in range(blocks))
            layers += [Convolution(filters, stride=2), keras.layers.ReLU(), *stage]
        self.trunk = keras.Sequential(layers, name="trunk")
        self.cell_layer = keras.layers.Dense(classes, dtype="float32", name="cells")
        self.column_attention = ColumnAttention(name="columns")
        self.context = _make_context(config)
        self.context_dropout = keras.layers.Dropout(config.dropout, name="context_dropout")
        self.ctc_layer = keras.layers.Dense(config.steps_per_column * classes, dtype="float32", name="ctc")
        if config.reads_words:
            self.position_attention = PositionAttention(config.num_positions, name="positions")
            self.attention_layer = keras.layers.Dense(classes, dtype="float32", name="attention")
        self.head_loss = keras.metrics.Mean(name="head_loss")
        self.exact_match = keras.metrics.Mean(name="exact_match")

    def build(self, input_shape: Any) -> None:
        images = (None, *input_shape[1:])
        cells = self.trunk.compute_output_shape(images)
        length = self.config.text_rows * cells[2]
        columns, context = (None, length, cells[3]), (None, length, 2 * self.config.units)
        self.trunk.build(images)
        self.cell_layer.build(cells)
        self.column_attention.build(cells)
        self.context.build(columns)
        self.ctc_layer.build(context)
        if self.config.reads_words:
            self.position_attention.build(context)
            self.attention_layer.build((None, self.config.num_positions, 2 * self.config.units))
        self.built = True

    def call(self, images: Any, training: bool = False) -> dict[str, Any]:
        # White becomes 0, as the zero padding of the convolutions.
        ink = 1 - ops.cast(images, self.compute_dtype) / 255
        cells = self.trunk(ink, training=training)
        columns = self.context_dropout(self.context(self._attend_to_rows(cells)), training=training)
        outputs = {"ctc": self._split_classes(self.ctc_layer(columns))}
        if self.config.reads_words:
            outputs["attention"] = self.attention_layer(self.position_attention(columns))
        return outputs | {"cells": self._split_classes(self.cell_layer(cells))}

    def _attend_to_rows(self, cells: Any) -> Any:
        """Returns the columns of every row of text, one row after the other, float [B, text_rows · columns, C]."""
        if self.config.text_rows == 1:
            return self.column_attention(cells)
        edges = np.linspace(0, cells.shape[1], self.config.text_rows + 1).round().astype(int).tolist()
        return ops.concatenate([self.column_attention(cells[:, a:b]) for a, b in pairwise(edges)], axis=1)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Returns the weighted sum of the losses of the three outputs; y is int32 [B, L], IDs padded with 0."""
        config = self.config
        labels = pad_labels(y, config.num_positions)
        losses = {"ctc": ctc_losses(labels, y_pred["ctc"])}
        if config.reads_words:
            losses["attention"] = position_losses(labels, y_pred["attention"], config.label_smoothing)
        own = losses.pop(config.head)
        self.head_loss.update_state(own)
        ace = ace_losses(labels, y_pred["cells"])
        return ops.mean(own + config.auxiliary_loss_weight * sum(losses.values()) + config.ace_loss_weight * ace)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates `exact_match`, and returns all metrics since the last reset, by name."""
        predicted = greedy_ids(self.config.head, y_pred[self.config.head])
        self.exact_match.update_state(ops.all(ops.equal(predicted, pad_labels(y, predicted.shape[1])), axis=1))
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.model_dump()}

    def _split_classes(self, logits: Any) -> Any:
        """Reshapes [B, …] to [B, rows, classes]."""
        return ops.reshape(logits, (-1, math.prod(logits.shape[1:]) // self.num_classes, self.num_classes))
