"""Hard attention: in training the decoder looks at one place at a time, drawn by the attention's weights.

Show, Attend and Tell (Xu et al., 2015, arXiv:1502.03044, section 4.1), which learns where to look by REINFORCE
(Williams, 1992). Everything is as in soft attention but this:

    one batch in two, by a draw:  s_t ~ Multinomial(α_t),  context = f at s_t
    c = a caption's mean cost a word,  b ← 0.9·b + 0.1·mean c
    loss + Σ (c − b)/10 · log α_t[s_t] + 0.002·Σ α·log α          with c − b held fixed

The other batches, validation and decoding look softly, at the expected context. As in the authors' code, c is that of
the whole caption, and both sums go over all real words of the batch, where the cross entropy of a caption is averaged
over the captions. Ours is averaged over words, so both are divided by the words that a caption has, and mean what they
mean there. The gradient of the expected loss would have the mean of (Σ costs of a caption)·log α, so a weight of
(words of a caption) / (captions of a batch) is an unbiased one, 0.17 at 64 captions of 11 words.
"""

from typing import Any

import keras
from keras import ops

from trainer.captioner import State
from trainer.losses import token_losses
from trainer.soft_attention import SoftAttention

_HARD_BATCHES = 0.5
_BASELINE_KEEPS = 0.9
# Less than any weight by which a place is drawn, so that a weight of 0 has a logarithm.
_LEAST = 1e-20

# === Model ===


@keras.saving.register_keras_serializable("capt")
class HardAttention(SoftAttention):
    """Captioner with hard attention over places.

    Args:
        vocabulary: int. Number of word ids.
        cell: str. As in `SoftAttention`, as are the next ten; all defaults are those of the authors' code for COCO.
        embedding: int.
        units: int.
        attention: int.
        projection: int or None.
        output: int.
        dropout: float.
        init_state: str.
        gate: bool.
        doubly_stochastic: float.
        reinforce: float. Weight of (c − b)·log α_t[s_t].
        entropy: float. Weight of Σ α·log α, the less of which, the more places are tried.

    Call arguments:
        inputs: as in `Captioner`; training needs `targets`.

    Example:
        >>> model = HardAttention(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 196, 512)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        cell: str = "lstm",
        embedding: int = 512,
        units: int = 1800,
        attention: int = 512,
        projection: int | None = None,
        output: int = 512,
        dropout: float = 0.5,
        init_state: str = "mean",
        gate: bool = True,
        doubly_stochastic: float = 1.0,
        reinforce: float = 0.1,
        entropy: float = 0.002,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocabulary,
            cell=cell,
            embedding=embedding,
            units=units,
            attention=attention,
            projection=projection,
            output=output,
            dropout=dropout,
            init_state=init_state,
            gate=gate,
            doubly_stochastic=doubly_stochastic,
            **kwargs,
        )
        self.reinforce = reinforce
        self.entropy = entropy
        self.seeds = keras.random.SeedGenerator(name="seeds")

    def build(self, input_shape: dict[str, Any]) -> None:
        super().build(input_shape)
        self.baseline = self.add_weight(shape=(), initializer="zeros", trainable=False, autocast=False, name="baseline")

    def _draws(self, tokens: Any, training: bool) -> Any:
        """A number in 0 … 1 that chooses a place, or −1 to look softly: float32 [T, B], None out of training."""
        if not training:
            return None
        batch, words = ops.shape(tokens)
        draws = keras.random.uniform((words, batch), dtype="float32", seed=self.seeds)
        is_hard = keras.random.uniform((), dtype="float32", seed=self.seeds) < _HARD_BATCHES
        return ops.where(is_hard, draws, -1.0)

    def _look(self, hidden: Any, memory: State, draw: Any = None) -> tuple[Any, State]:
        weights, look = super()._look(hidden, memory)
        if draw is None:
            return weights, look
        shares = ops.cast(weights, "float32")
        place = drawn_place(shares, draw)
        is_hard = draw >= 0
        used = ops.where(ops.expand_dims(is_hard, 1), ops.cast(place, weights.dtype), weights)
        chosen = ops.log(ops.maximum(ops.sum(place * shares, axis=-1), _LEAST))
        return used, {**look, "chosen": ops.where(is_hard, chosen, 0.0)}

    def _unseen(self, memory: State, training: bool) -> State:
        if not training:
            return {}
        weights = ops.zeros_like(memory["keys"][..., 0])
        return {"weights": weights, "chosen": ops.zeros_like(weights[:, 0], dtype="float32")}

    def _add_losses(self, inputs: dict[str, Any], logits: Any, looks: State) -> None:
        super()._add_losses(inputs, logits, looks)
        costs, real = token_losses(inputs["targets"], logits, self.left_out)
        words = ops.sum(real, axis=1)
        captions = ops.maximum(ops.sum(ops.minimum(words, 1.0)), 1.0)
        cost = ops.stop_gradient(ops.sum(costs * real, axis=1) / ops.maximum(words, 1.0))
        weights = ops.cast(looks["weights"], "float32")
        negative_entropy = ops.sum(weights * ops.log(ops.maximum(weights, _LEAST)), axis=-1)
        advantage = ops.expand_dims(cost - ops.convert_to_tensor(self.baseline), 1)
        terms = self.reinforce * advantage * looks["chosen"] + self.entropy * negative_entropy
        self.add_loss(ops.sum(terms * real) * captions / ops.maximum(ops.sum(real), 1.0))
        self.baseline.assign(_BASELINE_KEEPS * self.baseline + (1 - _BASELINE_KEEPS) * ops.sum(cost) / captions)

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reinforce": self.reinforce, "entropy": self.entropy}


def drawn_place(weights: Any, draw: Any) -> Any:
    """The place that a number draws, as likely as its weight says.

    Args:
        weights: float32 [B, places]. Non-negative.
        draw: float32 [B]. Numbers in 0 … 1.

    Returns:
        float32 [B, places]: 1 at the place, 0 elsewhere; without a gradient.
    """
    reach = ops.cumsum(ops.stop_gradient(weights), axis=-1)
    passed = ops.sum(ops.cast(reach <= ops.expand_dims(draw, 1) * reach[:, -1:], "int32"), axis=-1)
    places = weights.shape[-1]
    return ops.one_hot(ops.minimum(passed, places - 1), places, dtype="float32")
