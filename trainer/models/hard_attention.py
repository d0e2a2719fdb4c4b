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

A look has no part in the words before it, so their costs only add noise to its credit. `discount: d` credits it with
Σ_k d^(k−t)·(c_k − b[w_k]) over the words from it on, where c_k is one word's cost and b[w] follows the mean cost of the
word w: the return of Sutton and Barto (2018, chapter 13). Its mean over words is added, so with d = 1 a weight of 1 is
unbiased; with d = 0 a look stands for its own word alone, which leaves out what it does to later ones and varies least.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import State
from trainer.models.losses import token_losses
from trainer.models.soft_attention import SoftAttention

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
        rnn_cell: str. As in `SoftAttention`, as are the next twelve; all defaults are those of the authors for COCO.
        embedding_dim: int.
        units: int.
        attention_dim: int.
        projection_dim: int or None.
        output_dim: int.
        dropout: float.
        image_dropout: float.
        attention_query: str.
        init_state: str.
        use_context_gate: bool.
        doubly_stochastic: float.
        reinforce_weight: float. Weight of (c − b)·log α_t[s_t].
        entropy_weight: float. Weight of Σ α·log α, the less of which, the more places are tried.
        discount: float or None. None credits every look with its whole caption's cost, as the authors' code does; a
            number d in 0 … 1 with the words from it on, each counting d times as much as the one before.

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
        rnn_cell: str = "lstm",
        embedding_dim: int = 512,
        units: int = 1800,
        attention_dim: int = 512,
        projection_dim: int | None = None,
        output_dim: int = 512,
        dropout: float = 0.5,
        image_dropout: float = 0.0,
        attention_query: str = "state",
        init_state: str = "mean",
        use_context_gate: bool = True,
        doubly_stochastic: float = 1.0,
        reinforce_weight: float = 0.1,
        entropy_weight: float = 0.002,
        discount: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocabulary,
            rnn_cell=rnn_cell,
            embedding_dim=embedding_dim,
            units=units,
            attention_dim=attention_dim,
            projection_dim=projection_dim,
            output_dim=output_dim,
            dropout=dropout,
            image_dropout=image_dropout,
            attention_query=attention_query,
            init_state=init_state,
            use_context_gate=use_context_gate,
            doubly_stochastic=doubly_stochastic,
            **kwargs,
        )
        self.reinforce_weight = reinforce_weight
        self.entropy_weight = entropy_weight
        self.discount = discount
        self.seeds = keras.random.SeedGenerator(name="seeds")

    def build(self, input_shape: dict[str, Any]) -> None:
        super().build(input_shape)
        shape = () if self.discount is None else (self.vocabulary,)
        self.baseline = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, autocast=False, name="baseline"
        )

    def _draws(self, tokens: Any, training: bool) -> Any:
        """A number in 0 … 1 that chooses a place, or −1 to look softly: float32 [T, B], None out of training."""
        if not training:
            return None
        batch, words = ops.shape(tokens)
        draws = keras.random.uniform((words, batch), dtype="float32", seed=self.seeds)
        is_hard = keras.random.uniform((), dtype="float32", seed=self.seeds) < _HARD_BATCHES
        return ops.where(is_hard, draws, -1.0)

    def _look(self, query: Any, memory: State, draw: Any = None) -> tuple[Any, State]:
        weights, look = super()._look(query, memory)
        if draw is None:
            return weights, look
        shares = ops.cast(weights, "float32")
        place = sample_location(shares, draw)
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
        costs = ops.stop_gradient(costs) * real
        captions = ops.maximum(ops.sum(ops.max(real, axis=1)), 1.0)
        weights = ops.cast(looks["weights"], "float32")
        negative_entropy = ops.sum(weights * ops.log(ops.maximum(weights, _LEAST)), axis=-1)
        if self.discount is None:
            advantage = captions * self._of_the_caption(costs, real, captions)
        else:
            advantage = self._of_the_words_from_it_on(inputs["targets"], costs, real)
        terms = self.reinforce_weight * advantage * looks["chosen"] + captions * self.entropy_weight * negative_entropy
        self.add_loss(ops.sum(terms * real) / ops.maximum(ops.sum(real), 1.0))

    def _of_the_caption(self, costs: Any, real: Any, captions: Any) -> Any:
        """C − b [B, 1] from the words' costs [B, T]; b follows the mean c."""
        cost = ops.sum(costs, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)
        advantage = cost - ops.convert_to_tensor(self.baseline)
        self._follow(ops.sum(cost) / captions, 1.0)
        return ops.expand_dims(advantage, 1)

    def _of_the_words_from_it_on(self, targets: Any, costs: Any, real: Any) -> Any:
        """Σ_k d^(k−t)·(c_k − b[w_k]) [B, T] over k ≥ t from the words' costs; each b follows its word's mean cost."""
        advantage = (costs - ops.take(ops.convert_to_tensor(self.baseline), targets)) * real
        word = ops.one_hot(targets, self.vocabulary, dtype="float32") * ops.expand_dims(real, -1)
        count = ops.sum(word, axis=(0, 1))
        mean = ops.sum(word * ops.expand_dims(costs, -1), axis=(0, 1)) / ops.maximum(count, 1.0)
        self._follow(mean, ops.minimum(count, 1.0))
        return costs_to_go(advantage, self.discount)

    def _follow(self, costs: Any, known: Any) -> None:
        """Move the baseline towards the costs of a batch where they are known, 0 or 1."""
        self.baseline.assign(self.baseline + (1 - _BASELINE_KEEPS) * known * (costs - self.baseline))

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "reinforce_weight": self.reinforce_weight,
            "entropy_weight": self.entropy_weight,
            "discount": self.discount,
        }


def costs_to_go(costs: Any, discount: float) -> Any:
    """What each word and those after it cost, Σ_k d^(k−t)·c_k over k ≥ t.

    Args:
        costs: float32 [B, T].
        discount: float. How much less each word counts than the one before, d in 0 … 1; with 0 it stands alone.

    Returns:
        float32 [B, T].
    """
    place = ops.arange(ops.shape(costs)[1])
    later = ops.cast(ops.expand_dims(place, 1) - place, "float32")
    return ops.matmul(costs, ops.where(later >= 0, ops.power(discount, ops.maximum(later, 0.0)), 0.0))


def sample_location(weights: Any, draw: Any) -> Any:
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
