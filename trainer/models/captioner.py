"""The contract of every captioner: a Keras model that reads an image's features and says the next word.

    training    call({"features", "tokens"[, "image", "targets"]}) → logits of every next word
    decoding    begin(features) → state;  step(token, state) → logits, state, attention

Both ways give the same logits for the same words.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.table_config import PAD

State = dict[str, Any]


# Deviation of a channel that never changes, as a share of its mean: what rounding makes of 0.
_ROUNDING = 1e-6
_LEAST_DEVIATION = 0.1


@keras.saving.register_keras_serializable("capt")
class FeatureNormalization(keras.layers.Layer):
    """Standardizes features: takes each channel's mean away and divides by its deviation, both kept as weights.

    What all images share says nothing of any one, and it is most of what an extractor gives: without this a decoder
    learns the language long before it looks. The mean is over all places of the train split's images, the deviation
    from it over those where the channel is not 0: what is seldom there, as a detector's answer, is not large for that.

    Call arguments:
        features: float [B, …, channels].
    """

    def build(self, input_shape: Any) -> None:
        channels = (input_shape[-1],)
        self.mean = self.add_weight(shape=channels, initializer="zeros", trainable=False, name="mean")
        self.factor = self.add_weight(shape=channels, initializer="ones", trainable=False, name="factor")

    def fit(self, features: NDArray[Any]) -> None:
        """Measure the features of some images, [N, …, channels].

        A channel that hardly changes in these images may do so in others, and is taken to deviate by a tenth of what
        channels do (their root mean square). One that never changes says nothing of its size, and is taken to deviate
        as they do; where none changes, all keep their size.
        """
        values = np.asarray(features, np.float32).reshape(-1, features.shape[-1])
        mean, there = values.mean(axis=0, dtype=np.float64), values != 0
        squares = np.square(values - mean.astype(np.float32)).sum(axis=0, where=there, dtype=np.float64)
        deviation = np.sqrt(squares / np.maximum(there.sum(axis=0), 1))
        deviation = np.where(deviation > _ROUNDING * np.abs(mean), deviation, 0)
        usual = np.sqrt(np.mean(deviation**2)) or 1.0
        self.mean.assign(mean)
        self.factor.assign(1 / np.where(deviation > 0, np.maximum(deviation, _LEAST_DEVIATION * usual), usual))

    def call(self, features: Any) -> Any:
        return (features - ops.cast(self.mean, features.dtype)) * ops.cast(self.factor, features.dtype)


@keras.saving.register_keras_serializable("capt")
class Captioner(keras.Model):
    """Base class of captioners.

    A subclass takes the vocabulary's size and its own sizes as arguments, returns them all from `get_config`, and
    implements `call`, `begin` and `step` with `keras.ops`, so that it runs on every Keras backend. It passes features
    through `feature_scale` before anything else, and builds that layer with its own.

    A model whose loss is more than the cross entropy of its logits adds the rest in `call`, by `add_loss`, in training.

    Args:
        feature_scale: FeatureNormalization or None. One that makes the features first, of whatever the model is
            then given in
            their place (`trainer.models.backbone`); None for one that takes features.

    Attributes:
        left_out: tuple of int. Ids that count in neither loss nor metrics where they are the target.
        max_caption_length: int or None. Words at most in a caption that it reads or makes; None for any number.
    """

    left_out: ClassVar[tuple[int, ...]] = (PAD,)
    max_caption_length: int | None = None

    def __init__(self, feature_scale: FeatureNormalization | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.feature_scale = feature_scale or FeatureNormalization(name="feature_scale")

    def adapt(self, features: NDArray[Any], counts: NDArray[np.int64]) -> None:
        """Measure what a model knows before its first step; called once, on the train split.

        Args:
            features: float array [N, …, channels]. Those of some images.
            counts: int64 array [V]. How often each word id comes in the captions.
        """
        self.feature_scale.fit(features)

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Logits of every next word, given the words before it.

        Args:
            inputs: dict of tensors.
                `features`: float [N, places, channels], or [N, channels] for models of pooled features.
                `tokens`: int32 [B, T], word ids from the start token on, 0 where a caption is over.
                `image`: int32 [B], for each caption the row of `features` that it describes, so that an image with
                five captions is projected once. Without it, caption i describes row i.
                `targets`: int32 [B, T], the word after each token, 0 where there is none; read in training alone, by
                models whose `call` adds to the loss.
            training: bool. Whether dropout is on.

        Returns:
            float [B, T, V]; position t holds the logits of word t + 1.
        """
        raise NotImplementedError

    def begin(self, features: Any) -> State:
        """The state before the first word.

        Args:
            features: float [B, places, channels] or [B, channels].

        Returns:
            dict of tensors, each with the batch as its first axis.
        """
        raise NotImplementedError

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        """One word further.

        Args:
            token: int32 [B]. The word before, or the start token.
            state: dict of tensors, from `begin` or the last `step`.

        Returns:
            Logits float [B, V] of the next word, the new state, and the attention float [B, places] (non-negative,
            rows sum to 1), or None for models that do not attend.
        """
        raise NotImplementedError
