"""Defines the layer that selects tokens of a vision transformer."""

from typing import Any

from features.runtime.keras_settings import keras


@keras.saving.register_keras_serializable("capt")
class TokenSlice(keras.layers.Layer):  # type: ignore[misc]
    """Selects consecutive tokens: [N, tokens, channels] becomes [N, `count`, channels], from token `first` on.

    Keras' `Cropping1D` would count from the end. The number of tokens that KerasHub states for SigLIP is one too high.
    """

    def __init__(self, first: int, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = first
        self.count = count

    def call(self, inputs: Any) -> Any:
        return inputs[:, self.first : self.first + self.count]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], self.count, input_shape[2]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "first": self.first, "count": self.count}
