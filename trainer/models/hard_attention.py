"""Defines hard attention: in training, the decoder attends to one location at a time, sampled by its attention weights.

Show, Attend and Tell (Xu et al., 2015, arXiv:1502.03044, section 4.1) trains the attention with REINFORCE (Williams,
1992). Differences from soft attention:

    for half of the batches, at random:  s_t ~ Multinomial(α_t),  context = f at s_t
    c = a caption's mean cost per word,  b ← 0.9·b + 0.1·mean c
    loss + Σ (c − b)/10 · log α_t[s_t] + 0.002·Σ α·log α          without a gradient through c − b

The other batches, validation and decoding use soft attention. As in the authors' code, c is the cost of the whole
caption, and both sums are over all real words of the batch. The authors average the cross-entropy of a caption over
captions. capt averages the cross-entropy over words, so capt divides both sums by the number of words per caption. The
gradient of the expected loss is the mean of (Σ costs of a caption)·log α, so an unbiased weight is
(words per caption) / (captions per batch), 0.17 for 64 captions of 11 words.

A sampled location does not affect the words before it, so their costs add noise to its credit. `discount: d` credits
it with Σ_k d^(k−t)·(c_k − b[w_k]) over the words from t on. c_k is the cost of one word and b[w] follows the mean cost
of word w (the return of Sutton and Barto, 2018, chapter 13). capt adds its mean over words, so with d = 1 a weight of 1
is unbiased; d = 0 credits a location with its own word only, which ignores later effects and has the least variance.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import State
from trainer.models.configs import HardAttentionConfig
from trainer.models.losses import token_losses
from trainer.models.soft_attention import SoftAttention

_HARD_FRACTION = 0.5
_BASELINE_MOMENTUM = 0.9
# Smaller than the weight of any sampled location, so that 0 has a logarithm.
_MIN_WEIGHT = 1e-20


@keras.saving.register_keras_serializable("capt")
class HardAttention(SoftAttention):
    """Captioner with hard attention over locations.

    In training without `targets`, attention is soft and no term is added. Self-critical training does so: captions are
    sampled with soft attention, so the gradient of their probability is that of soft attention.
    """

    config_class = HardAttentionConfig
    config: HardAttentionConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seeds = keras.random.SeedGenerator(name="seeds")

    def build(self, input_shape: dict[str, Any]) -> None:
        super().build(input_shape)
        shape = () if self.config.discount is None else (self.vocabulary,)
        options = {"initializer": "zeros", "trainable": False, "autocast": False}
        self.baseline = self.add_weight(shape=shape, name="baseline", **options)

    def _sample_uniform(self, tokens: Any, adds_losses: bool) -> Any:
        """Returns numbers in 0 … 1 that select a location, or −1 for soft attention; None without additional losses."""
        if not adds_losses:
            return None
        batch, words = ops.shape(tokens)
        samples = keras.random.uniform((words, batch), dtype="float32", seed=self.seeds)
        is_hard = keras.random.uniform((), dtype="float32", seed=self.seeds) < _HARD_FRACTION
        return ops.where(is_hard, samples, -1.0)

    def _attend(self, query: Any, memory: State, sample: Any = None) -> tuple[Any, State]:
        weights, attended = super()._attend(query, memory)
        if sample is None:
            return weights, attended
        probabilities = ops.cast(weights, "float32")
        location = sample_location(probabilities, sample)
        is_hard = sample >= 0
        used = ops.where(ops.expand_dims(is_hard, 1), ops.cast(location, weights.dtype), weights)
        log_probability = ops.log(ops.maximum(ops.sum(location * probabilities, axis=-1), _MIN_WEIGHT))
        return used, {**attended, "log_probability": ops.where(is_hard, log_probability, 0.0)}

    def _init_recorded(self, memory: State, adds_losses: bool) -> State:
        if not adds_losses:
            return {}
        weights = ops.zeros_like(memory["keys"][..., 0])
        return {"weights": weights, "log_probability": ops.zeros_like(weights[:, 0], dtype="float32")}

    def _add_losses(self, inputs: dict[str, Any], logits: Any, recorded: State) -> None:
        super()._add_losses(inputs, logits, recorded)
        config = self.config
        costs, real = token_losses(inputs["targets"], logits, self.ignored_ids)
        costs = ops.stop_gradient(costs) * real
        captions = ops.maximum(ops.sum(ops.max(real, axis=1)), 1.0)
        weights = ops.cast(recorded["weights"], "float32")
        negative_entropy = ops.sum(weights * ops.log(ops.maximum(weights, _MIN_WEIGHT)), axis=-1)
        if config.discount is None:
            advantage = captions * self._caption_advantage(costs, real, captions)
        else:
            advantage = self._discounted_advantage(inputs["targets"], costs, real, config.discount)
        reinforce = config.reinforce_weight * advantage * recorded["log_probability"]
        terms = reinforce + captions * config.entropy_weight * negative_entropy
        self.add_loss(ops.sum(terms * real) / ops.maximum(ops.sum(real), 1.0))

    def _caption_advantage(self, costs: Any, real: Any, captions: Any) -> Any:
        """Returns c − b [B, 1] for the costs of the words [B, T], and updates b."""
        cost = ops.sum(costs, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)
        advantage = cost - ops.convert_to_tensor(self.baseline)
        self._update_baseline(ops.sum(cost) / captions, 1.0)
        return ops.expand_dims(advantage, 1)

    def _discounted_advantage(self, targets: Any, costs: Any, real: Any, discount: float) -> Any:
        """Returns Σ_k d^(k−t)·(c_k − b[w_k]) [B, T] over k ≥ t, and updates the b of every word."""
        advantage = (costs - ops.take(ops.convert_to_tensor(self.baseline), targets)) * real
        word = ops.one_hot(targets, self.vocabulary, dtype="float32") * ops.expand_dims(real, -1)
        count = ops.sum(word, axis=(0, 1))
        mean = ops.sum(word * ops.expand_dims(costs, -1), axis=(0, 1)) / ops.maximum(count, 1.0)
        self._update_baseline(mean, ops.minimum(count, 1.0))
        return discount_future_costs(advantage, discount)

    def _update_baseline(self, costs: Any, is_known: Any) -> None:
        """Moves the baseline towards the costs of a batch where `is_known` is 1."""
        self.baseline.assign(self.baseline + (1 - _BASELINE_MOMENTUM) * is_known * (costs - self.baseline))


def discount_future_costs(costs: Any, discount: float) -> Any:
    """Returns Σ_k d^(k−t)·c_k over k ≥ t, float32 [B, T], for the costs c float32 [B, T] of the words."""
    position = ops.arange(ops.shape(costs)[1])
    distance = ops.cast(ops.expand_dims(position, 1) - position, "float32")
    return ops.matmul(costs, ops.where(distance >= 0, ops.power(discount, ops.maximum(distance, 0.0)), 0.0))


def sample_location(weights: Any, sample: Any) -> Any:
    """Samples a location in proportion to non-negative weights [B, locations], by uniform numbers [B] in 0 … 1.

    Returns:
        float32 [B, locations]: 1 at the location, 0 elsewhere; without a gradient.
    """
    cumulative = ops.cumsum(ops.stop_gradient(weights), axis=-1)
    passed = ops.sum(ops.cast(cumulative <= ops.expand_dims(sample, 1) * cumulative[:, -1:], "int32"), axis=-1)
    locations = weights.shape[-1]
    return ops.one_hot(ops.minimum(passed, locations - 1), locations, dtype="float32")
