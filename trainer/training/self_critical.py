"""Samples captions and their advantages for self-critical sequence training (Rennie et al., 2017, arXiv:1612.00563).

    images → K sampled captions each → CIDEr-D r → advantage r − b → loss −Σ (r − b)·log p(token), per token
    p = softmax(logits / temperature)

The baseline b is the mean reward of the image's other samples (Luo, 2020, arXiv:2003.09971), or the reward of its
greedy caption. Captions are sampled without dropout by the current weights, so a step cannot be prepared before the
last one has ended. The random numbers are a function of (seed, epoch, step).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.table_config import END, PAD, START
from trainer.config import CaptionerTraining
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.captioner import Captioner

# Maps numbers of images [B] and token IDs [B, K, T] of captions to rewards float64 [B, K].
Reward = Callable[[NDArray[np.int64], NDArray[np.int32]], NDArray[np.float64]]


@dataclass(frozen=True)
class SampledBatch:
    """A batch for `train_on_batch`, and the mean rewards of its samples and of its baseline.

    Args:
        inputs: `features`, `image` and `tokens` of `Captioner.call`.
        targets: Token IDs int32 [B · K, T]: the sampled captions with end token, padded with 0.
        weights: Advantages divided by the number of target tokens in the batch, float32 [B · K].
    """

    inputs: dict[str, Any]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    reward: float
    baseline: float


class CaptionSampler:
    """Samples captions by the current weights of a model.

    Args:
        model: The model; it is built.
        reward: Scores captions of train images.
        config: Training hyperparameters.
        max_new_tokens: Maximum number of generated tokens per caption.
        pad_tokens_to: The number of tokens is padded to a multiple of this number.
    """

    def __init__(
        self, model: Captioner, reward: Reward, config: CaptionerTraining, max_new_tokens: int, pad_tokens_to: int = 1
    ) -> None:
        self._reward, self._config = reward, config
        self._limit, self._pad_tokens_to = max_new_tokens, pad_tokens_to
        samples = GenerationConfig(
            max_new_tokens=max_new_tokens,
            temperature=config.policy_temperature,
            num_return_sequences=config.samples_per_image,
        )
        self._sample = make_decoder(model, samples).compiled_decode
        is_greedy = config.reward_baseline == "greedy"
        self._decode_greedily = (
            make_decoder(model, GenerationConfig(max_new_tokens=max_new_tokens)) if is_greedy else None
        )

    def __call__(self, features: NDArray[Any], images: NDArray[np.int64], epoch: int, step: int) -> SampledBatch:
        """Returns the batch of a step for the features [B, *shape] of images, and their numbers int64 [B]."""
        count = self._config.samples_per_image
        numbers = np.random.default_rng([self._config.seed, epoch, step])
        uniform = numbers.random((len(images) * count, self._limit), np.float32)
        tokens = ops.convert_to_numpy(self._sample(ops.convert_to_tensor(features), ops.convert_to_tensor(uniform))[0])
        rewards = self._reward(images, tokens)
        if self._decode_greedily:
            baselines = self._reward(images, self._decode_greedily(features).tokens)
        else:
            baselines = (rewards.sum(axis=1, keepdims=True) - rewards) / (count - 1)
        inputs, targets = self._to_inputs(tokens.reshape(-1, self._limit))
        advantages = (rewards - baselines).reshape(-1) / np.count_nonzero(targets)
        image = np.repeat(np.arange(len(images), dtype=np.int32), count)
        return SampledBatch(
            {"features": features, "image": image, "tokens": inputs},
            targets,
            advantages.astype(np.float32),
            float(rewards.mean()),
            float(baselines.mean()),
        )

    def _to_inputs(self, tokens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Returns inputs and targets, int32 [N, T], of captions [N, `max_new_tokens`] without end token.

        A caption of `max_new_tokens` tokens has no end token, because the model did not generate one.
        """
        lengths = np.count_nonzero(tokens != PAD, axis=1)
        width = min(int(lengths.max()) + 1, self._limit)
        width = min(-(-width // self._pad_tokens_to) * self._pad_tokens_to, self._limit)
        targets = tokens[:, :width].copy()
        complete = np.flatnonzero(lengths < self._limit)
        targets[complete, lengths[complete]] = END
        inputs = np.concatenate([np.full_like(targets[:, :1], START), tokens[:, : width - 1]], axis=1)
        return inputs, targets


def compile_train_step(model: keras.Model, batch: SampledBatch) -> None:
    """Compiles `train_on_batch` of a compiled model once for captions of any length, on TensorFlow.

    Keras would compile it for the first length and for any length, so that a resumed run, whose first length differs,
    would compute other bits. Other backends compile each length.
    """
    if keras.backend.backend() != "tensorflow" or model.train_function is not None:
        return
    import tensorflow as tf

    def specify(values: Any, is_text: bool = False) -> tf.TensorSpec:
        return tf.TensorSpec((values.shape[0], None) if is_text else values.shape, values.dtype)

    inputs = {name: specify(values, name == "tokens") for name, values in batch.inputs.items()}
    signature = [(inputs, specify(batch.targets, is_text=True), specify(batch.weights))]
    step = tf.function(model.train_step, input_signature=signature)
    model.train_function = lambda batches: step(next(batches))
