"""Recognizer: reads the word in a noisy image, letter by letter, wherever in the image it stands.

    images → convolutions → cells [rows, columns, C]        a column keeps four pixels' width, a row eight or more
    cells  → attention over each column's rows → columns     so that noise above and below the word is left out
    columns → recurrence in both directions → context        which tells one column what the others read
    context → CTC head: a letter or the blank a column       (Graves et al., 2006)
            → attention head: for each position of the word, the columns that it is read from, and its letter

One head reads. The other learns beside it: CTC alone says nothing for its first hundred thousand images, until letters
and places are found at once, and positions find them sooner. A third output, which letters there are anywhere, gives
the convolutions something to learn from the first step, before either head has found a place.
"""

from typing import Any, ClassVar

import keras
from keras import ops

from trainer.alphabet import CLASSES, LETTERS
from trainer.readings import greedy_ids
from trainer.word_losses import ctc_losses, letter_losses, padded, position_losses

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class Convolution(keras.layers.Layer):
    """A 3×3 convolution, normalized over the batch, and a ReLU.

    Args:
        width: int. Channels out.
        strides: pair of int. Down and across.

    Call arguments:
        inputs: float [B, H, W, C].

    Returns:
        float [B, ⌈H / down⌉, ⌈W / across⌉, width].
    """

    def __init__(self, width: int, strides: tuple[int, int] = (1, 1), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.strides = tuple(strides)
        self.convolution = keras.layers.Conv2D(
            width, 3, self.strides, "same", use_bias=False, kernel_initializer="he_normal", name="convolution"
        )
        self.normalization = keras.layers.BatchNormalization(momentum=0.95, name="normalization")

    def build(self, input_shape: Any) -> None:
        self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool = False) -> Any:
        return ops.relu(self.normalization(self.convolution(inputs), training=training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.convolution.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "strides": self.strides}


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
        return inputs + self.second(self.first(inputs, training=training), training=training)

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
        widths: sequence of int. Channels at 1/2 and 1/4 of the image's size, then of each stage that halves the rows.
        blocks: sequence of int. Residual blocks of each of those from 1/4 on.
        units: int. Size of the recurrence's state, each way.
        dropout: float. Share of the context's components that training leaves out, 0 to 1.
        longest: int. Letters of a word at most.
        letters_weight: float. Weight of the loss of which letters there are.
        other_head_weight: float. Weight of the loss of the head that does not read.
        label_smoothing: float. Share of each position's target that is spread over all letters.

    Call arguments:
        images: uint8 [B, H, W, 3]. RGB.

    Returns:
        dict of float32 tensors, all logits:
            `ctc`: [B, ⌈W / 4⌉, 27]. Class 0 is the blank.
            `attention`: [B, longest, 27]. Class 0 is the word's end.
            `letters`: [B, 26]. Whether a letter is in the word.
    """

    heads: ClassVar[tuple[str, ...]] = ("ctc", "attention")

    def __init__(
        self,
        head: str = "ctc",
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: tuple[int, ...] = (1, 2),
        units: int = 96,
        dropout: float = 0.1,
        longest: int = 5,
        letters_weight: float = 0.5,
        other_head_weight: float = 0.5,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.head = head
        self.widths = tuple(widths)
        self.blocks = tuple(blocks)
        self.units = units
        self.dropout = dropout
        self.longest = longest
        self.letters_weight = letters_weight
        self.other_head_weight = other_head_weight
        self.label_smoothing = label_smoothing
        self.trunk = keras.Sequential(self._trunk(), name="trunk")
        self.letter_layer = keras.layers.Dense(len(LETTERS), name="letters")
        self.column_attention = ColumnAttention(name="columns")
        self.context = keras.layers.Bidirectional(keras.layers.GRU(units, return_sequences=True), name="context")
        self.context_dropout = keras.layers.Dropout(dropout, name="context_dropout")
        self.ctc_layer = keras.layers.Dense(CLASSES, dtype="float32", name="ctc")
        self.position_attention = PositionAttention(longest, name="positions")
        self.attention_layer = keras.layers.Dense(CLASSES, dtype="float32", name="attention")
        self.head_loss = keras.metrics.Mean(name="head_loss")
        self.word_accuracy = keras.metrics.Mean(name="word_accuracy")

    def _trunk(self) -> list[keras.layers.Layer]:
        first, second, *others = self.widths
        layers = [Convolution(first, (2, 2)), Convolution(second, (2, 2))]
        for i, (width, blocks) in enumerate(zip((second, *others), self.blocks, strict=True)):
            layers += [Convolution(width, (2, 1))] if i else []
            layers += [Residual(width) for _ in range(blocks)]
        return layers

    def build(self, input_shape: Any) -> None:
        cells = (None, *self.trunk.compute_output_shape((None, *input_shape[1:]))[1:])
        columns, context = (None, cells[2], cells[3]), (None, cells[2], 2 * self.units)
        self.trunk.build((None, *input_shape[1:]))
        self.letter_layer.build(cells)
        self.column_attention.build(cells)
        self.context.build(columns)
        self.ctc_layer.build(context)
        self.position_attention.build(context)
        self.attention_layer.build((None, self.longest, 2 * self.units))
        self.built = True

    def call(self, images: Any, training: bool = False) -> dict[str, Any]:
        # White paper becomes 0, which is also what convolutions see beyond the image's edge.
        ink = 1 - ops.cast(images, self.compute_dtype) / 255
        cells = self.trunk(ink, training=training)
        columns = self.context(self.column_attention(cells))
        columns = self.context_dropout(columns, training=training)
        return {
            "ctc": self.ctc_layer(columns),
            "attention": self.attention_layer(self.position_attention(columns)),
            "letters": ops.max(ops.cast(self.letter_layer(cells), "float32"), axis=(1, 2)),
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The weighted sum of the three outputs' losses, a scalar; y is int32 [B, L], letter ids padded with 0."""
        words = padded(y, self.longest)
        losses = {
            "ctc": ctc_losses(words, y_pred["ctc"]),
            "attention": position_losses(words, y_pred["attention"], self.label_smoothing),
        }
        own = losses.pop(self.head)
        (other,) = losses.values()
        self.head_loss.update_state(own)
        letters = letter_losses(words, y_pred["letters"])
        return ops.mean(own + self.other_head_weight * other + self.letters_weight * letters)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """`loss`, `head_loss` and `word_accuracy`, of what has been seen since the epoch began."""
        read = greedy_ids(self.head, y_pred[self.head])
        self.word_accuracy.update_state(ops.all(ops.equal(read, padded(y, read.shape[1])), axis=1))
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head": self.head,
            "widths": self.widths,
            "blocks": self.blocks,
            "units": self.units,
            "dropout": self.dropout,
            "longest": self.longest,
            "letters_weight": self.letters_weight,
            "other_head_weight": self.other_head_weight,
            "label_smoothing": self.label_smoothing,
        }
