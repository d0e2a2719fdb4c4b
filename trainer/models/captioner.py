"""Defines the interface of every captioner: a Keras model that predicts the next token of a caption.

    training    call({"features", "tokens"[, "image", "targets"]}) → logits of every next token
    decoding    init_state(features) → state;  step(token, state) → logits, state, attention weights

Both ways give the same logits for the same tokens.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.table_config import PAD, START, UNKNOWN
from trainer.models.configs import ModelConfig, RecurrentConfig
from trainer.models.recurrent_layer import RecurrentLayer, uniform

State = dict[str, Any]

# === Tokens ===

# Tokens that no caption contains.
NEVER_GENERATED = (PAD, UNKNOWN, START)
MASKED_LOGIT = -1e9


def bad_words_mask(vocabulary: int, bad_word_ids: Sequence[int] = ()) -> NDArray[np.float32]:
    """Returns numbers [vocabulary] to add to logits: −10⁹ for `NEVER_GENERATED` and `bad_word_ids`, 0 for others."""
    mask = np.zeros(vocabulary, np.float32)
    mask[[*NEVER_GENERATED, *bad_word_ids]] = MASKED_LOGIT
    return mask


# === Layers ===

# Standard deviation of a constant channel after rounding, as a fraction of its mean.
_ROUNDING = 1e-6
_MIN_DEVIATION = 0.1


@keras.saving.register_keras_serializable("capt")
class FeatureNormalization(keras.layers.Layer):
    """Standardizes features: subtracts each channel's mean and divides by its standard deviation.

    The mean is over all locations of the train images. The standard deviation is over the locations with a nonzero
    value of the channel, so that rare activations, such as those of a detector, are not amplified. Without this layer,
    a decoder learns the language long before it uses the image, because most of an extractor's output is equal for all
    images. The features are float [B, …, channels].
    """

    def build(self, input_shape: Any) -> None:
        channels = (input_shape[-1],)
        self.mean = self.add_weight(shape=channels, initializer="zeros", trainable=False, name="mean")
        self.factor = self.add_weight(shape=channels, initializer="ones", trainable=False, name="factor")

    def fit(self, features: NDArray[Any]) -> None:
        """Measures the features [N, …, channels] of some images.

        Standard deviations below a tenth of their root mean square are raised to that tenth, because the channel may
        vary more in other images. A constant channel gets the root mean square; if all are constant, they get 1.
        """
        values = np.asarray(features, np.float32).reshape(-1, features.shape[-1])
        mean, is_active = values.mean(axis=0, dtype=np.float64), values != 0
        squares = np.square(values - mean.astype(np.float32)).sum(axis=0, where=is_active, dtype=np.float64)
        deviation = np.sqrt(squares / np.maximum(is_active.sum(axis=0), 1))
        deviation = np.where(deviation > _ROUNDING * np.abs(mean), deviation, 0)
        root_mean_square = np.sqrt(np.mean(deviation**2)) or 1.0
        deviation = np.where(deviation > 0, deviation, root_mean_square)
        self.mean.assign(mean)
        self.factor.assign(1 / np.maximum(deviation, _MIN_DEVIATION * root_mean_square))

    def call(self, features: Any) -> Any:
        return (features - ops.cast(self.mean, features.dtype)) * ops.cast(self.factor, features.dtype)


# === Base classes ===


@keras.saving.register_keras_serializable("capt")
class Captioner(keras.Model):
    """Base class of captioners.

    A subclass names its `config_class`, creates its layers in `__init__`, and builds them and `feature_normalization`
    in `build`. It implements `call`, `init_state` and `step` with `keras.ops`, so that it runs on every Keras backend.
    If its loss is more than the cross-entropy of its logits, `call` adds the rest with `add_loss` in training.

    Example of a model with spatial features, of 64 locations:
        >>> model = SoftAttention(5000, SoftAttentionConfig(units=256))
        >>> logits = model({"features": np.zeros((2, 64, 2048)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)

    Args:
        vocabulary: Vocabulary size.
        config: Hyperparameters; None for the defaults.
        feature_normalization: Layer that standardizes the features, or computes them from pixels
            (`trainer.models.backbone.BackboneFeatures`); None for a new `FeatureNormalization`.

    Attributes:
        spatial: Whether the model reads spatial features [locations, channels]; otherwise it reads pooled ones. For
            models of a user's own; `trainer.models.model_specs` has the value of the others.
        ignored_ids: Target token IDs that are excluded from loss and metrics.
    """

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    spatial: ClassVar[bool] = False
    ignored_ids: ClassVar[tuple[int, ...]] = (PAD,)
    config: Any

    def __init__(
        self,
        vocabulary: int,
        config: ModelConfig | None = None,
        feature_normalization: FeatureNormalization | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        # From a saved model, the config is a dict.
        self.config = self.config_class.model_validate(config or {})
        self.feature_normalization = feature_normalization or FeatureNormalization(name="feature_normalization")

    def adapt(self, features: NDArray[Any], counts: NDArray[np.int64]) -> None:
        """Prepares the weights, before the first step, from features [N, …, channels] and token counts [V] of train."""
        self.feature_normalization.fit(features)

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Computes the logits of every next token from the tokens before it.

        Args:
            inputs: Tensors by name.
                `features`: float [N, locations, channels], or [N, channels] for models with pooled features.
                `tokens`: int32 [B, T], token IDs that begin with the start token, padded with 0.
                `image`: int32 [B], the row of `features` that each caption describes, so that an image with five
                captions is projected once. Without `image`, caption i describes row i.
                `targets`: int32 [B, T], the token after each token, padded with 0; used in training only, by models
                whose `call` adds to the loss. Without `targets`, as with `objective: cider_d`, they add nothing.
            training: Whether dropout is active.

        Returns:
            float32 [B, T, V]; position t contains the logits of token t + 1.
        """
        raise NotImplementedError

    def init_state(self, features: Any, training: bool = False) -> State:
        """Computes the state before the first token: tensors by name, each with the batch as its first axis.

        Args:
            features: float [B, locations, channels] or [B, channels].
            training: Whether dropout is active.
        """
        raise NotImplementedError

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        """Computes one time step from the token before, int32 [B], and the result of `init_state` or the last `step`.

        Returns:
            The logits float32 [B, V] of the next token, the new state, and the attention weights float [B, locations]
            (non-negative, rows sum to 1), or None for models without attention.
        """
        raise NotImplementedError

    def compute_attention(self, features: Any, tokens: Any) -> Any:
        """Computes the attention weights of every layer and head for given tokens; the model must have attention.

        Args:
            features: float [B, locations, channels].
            tokens: int32 [B, T], token IDs that begin with the start token.

        Returns:
            float32 [B, layers, heads, T, locations]: the weights of the step that predicts the token after each token.
            Their mean over layers and heads is the attention of `step`.
        """
        state, steps = self.init_state(ops.convert_to_tensor(features)), []
        for position in range(tokens.shape[1]):
            _, state, attention = self.step(tokens[:, position], state)
            steps.append(ops.cast(attention, "float32"))
        return ops.expand_dims(ops.expand_dims(ops.stack(steps, axis=1), 1), 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary": self.vocabulary, "config": self.config.model_dump()}


class RecurrentCaptioner(Captioner):
    """Base class of captioners with pooled features and one recurrent layer over the words.

        init_state      features → state: a representation of the image, and the initial recurrent state
        merge_inputs    word embeddings, state → inputs of the recurrent layer
        compute_logits  hidden states, inputs, state → logits

    Training computes all time steps at once and decoding one at a time, through the same three methods. By default, the
    state contains the projected `image` and zeros, the word embeddings are the inputs of the recurrent layer, and the
    logits are a projection of its hidden states. Subclasses override these, and their `build` calls `build_recurrence`.
    """

    config_class: ClassVar[type[ModelConfig]] = RecurrentConfig
    config: RecurrentConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, scale = self.config, getattr(self.config, "init_scale", None)
        self.embedding_layer = keras.layers.Embedding(
            self.vocabulary, config.embedding_dim, embeddings_initializer=uniform(scale, "uniform"), name="embedding"
        )
        self.word_dropout = keras.layers.Dropout(config.dropout, name="word_dropout")
        sizes, dropout = (config.rnn_cell, config.units), config.recurrent_weight_dropout
        self.recurrence = RecurrentLayer(*sizes, scale, config.forget_bias, dropout, name="recurrence")

    def build_recurrence(self, input_shape: dict[str, Any], input_dim: int) -> None:
        """Builds the layers of the base class.

        Args:
            input_shape: Shapes of the `inputs` of `call` by name.
            input_dim: Size of the recurrent layer's inputs.
        """
        self.feature_normalization.build(tuple(input_shape["features"]))
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        self.recurrence.build((None, None, input_dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        state = self.init_state(inputs["features"], training=training)
        if "image" in inputs:
            state = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in state.items()}
        words = self.word_dropout(self.embedding_layer(inputs["tokens"]), training=training)
        merged = self.merge_inputs(words, state)
        hidden = self.recurrence(merged, state, training=training)
        return self.compute_logits(hidden, merged, state, training=training)

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        merged = self.merge_inputs(ops.expand_dims(self.embedding_layer(token), 1), state)
        state = {**state, **self.recurrence.step(ops.squeeze(merged, 1), state)}
        logits = self.compute_logits(ops.expand_dims(state["hidden"], 1), merged, state)
        return ops.squeeze(logits, 1), state, None

    def init_state(self, features: Any, training: bool = False) -> State:
        image = self.image_layer(self.image_dropout(self.feature_normalization(features), training=training))
        return {"image": image, **self.recurrence.init_state(ops.shape(image)[0])}

    def merge_inputs(self, words: Any, state: State) -> Any:
        """Returns the recurrent layer's inputs [B, T, input_dim] for word embeddings [B, T, embedding_dim]."""
        return words

    def compute_logits(self, hidden: Any, merged: Any, state: State, training: bool = False) -> Any:
        """Returns the logits [B, T, V] for hidden states [B, T, units] and the recurrent layer's inputs."""
        return self.logits_layer(self.state_dropout(hidden, training=training))
