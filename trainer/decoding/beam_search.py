"""Beam search: the captions that look best so far, carried on together, word by word.

    beams → step → every next word of every beam → the best `beam` of them

A beam that has ended keeps its place among the others, compared by the same measure, so a beam of one is greedy
decoding, and a beam as wide as the space of captions finds the best of all. Beams that ended come first in the end; one
that did not is given back where none did.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.table_config import PAD
from trainer.decoding.decoding_loop import AutoregressiveDecoder, Said
from trainer.decoding.generation import GenerationConfig, GenerationOutput
from trainer.decoding.logits_processors import NEVER
from trainer.models.captioner import Captioner, State

# Between beams that hold nothing yet and any that does.
_NOTHING = -1e30


class BeamDecoder(AutoregressiveDecoder):
    """Searches for the likeliest captions.

    Args:
        model: Captioner. Built.
        decoding: GenerationConfig. Without a temperature.
    """

    def __init__(self, model: Captioner, decoding: GenerationConfig) -> None:
        super().__init__(model, decoding, decoding.num_beams)

    def __call__(self, features: NDArray[Any], numbers: Sequence[int] = ()) -> GenerationOutput:
        """The captions of a batch.

        Args:
            features: float array [B, *shape].
            numbers: sequence of int. Of no account: nothing is drawn.
        """
        words, scores, attention = map(_array, self.loop(ops.convert_to_tensor(features)))
        kept = self.decoding.num_return_sequences
        return GenerationOutput(words[:, :kept], scores[:, :kept], attention[:, :kept] if attention.shape[-1] else None)

    def decode(self, features: Any) -> tuple[Any, Any, Any]:
        """Words [B, beam, T], scores [B, beam] and attention [B, beam, T, places], the best first, as tensors."""
        batch = ops.shape(features)[0]
        first = np.array([0.0] + [_NOTHING] * (self.captions - 1), np.float32)
        lengths = ops.zeros((batch * self.captions,), dtype="float32")
        return self._ranked(self.saying(features, {"scores": ops.tile(first, (batch,)), "lengths": lengths}))

    def say(self, position: Any, said: Said, state: State) -> tuple[Said, State]:
        """The best beams of one more word."""
        logits, after, seen = self.model.step(said["token"], state)
        scores = ops.expand_dims(said["scores"], 1) + self._log_probabilities(logits, said, position)
        lengths = said["lengths"] + ops.cast(ops.logical_not(said["over"]), "float32")
        row, token, scores = self._best(scores, lengths, logits.shape[-1])
        kept = {name: ops.take(value, row, axis=0) for name, value in {**said, "lengths": lengths}.items()}
        seen = None if seen is None else ops.take(seen, row, axis=0)
        # What a step leaves as it was belongs to the image, and all beams of an image have the same of it.
        moved = {name: value if value is state[name] else ops.take(value, row, axis=0) for name, value in after.items()}
        return self.with_word({**kept, "scores": scores}, position, token, seen), moved

    def _log_probabilities(self, logits: Any, said: Said, position: Any) -> Any:
        """float32 [rows, V]: of each next word; of a beam that is over, 0 for padding and nothing else."""
        only_padding = np.where(np.arange(logits.shape[-1]) == PAD, 0.0, NEVER).astype(np.float32)
        words = ops.log_softmax(self.allowed(logits, said["words"], position), axis=-1)
        return ops.where(ops.expand_dims(said["over"], 1), only_padding, words)

    def _best(self, scores: Any, lengths: Any, vocabulary: int) -> tuple[Any, Any, Any]:
        """The best next beams of every image: the rows they come from, their words, their scores; each [rows]."""
        beam = self.captions
        measure = scores / ops.expand_dims(lengths**self.decoding.length_penalty, 1)
        _, best = ops.top_k(ops.reshape(measure, (-1, beam * vocabulary)), beam)
        best = ops.cast(best, "int32")
        row = ops.reshape(self._first_rows(ops.shape(best)[0]) + best // vocabulary, (-1,))
        token = ops.reshape(best % vocabulary, (-1,))
        chosen = ops.take_along_axis(ops.reshape(scores, (-1, beam * vocabulary)), best, axis=1)
        return row, token, ops.reshape(chosen, (-1,))

    def _ranked(self, said: Said) -> tuple[Any, Any, Any]:
        """Words [B, beam, T], scores [B, beam] and attention [B, beam, T, places], the best first."""
        measure = said["scores"] / ops.maximum(said["lengths"], 1.0) ** self.decoding.length_penalty
        order = ops.cast(ops.argsort(self._places(measure, said["over"]), axis=1), "int32")
        row = ops.reshape(self._first_rows(ops.shape(order)[0]) + order, (-1,))
        return self.by_image({name: ops.take(said[name], row, axis=0) for name in ("words", "scores", "attention")})

    def _places(self, measure: Any, over: Any) -> Any:
        """int32 [B, beam]: where each beam stands, those that are over before the others."""
        beam = self.captions
        measure, over = ops.reshape(measure, (-1, beam)), ops.reshape(over, (-1, beam))
        better = ops.cast(ops.expand_dims(measure, 1) > ops.expand_dims(measure, 2), "int32")
        return ops.sum(better, axis=2) + ops.where(over, 0, beam)

    def _first_rows(self, batch: Any) -> Any:
        return ops.expand_dims(ops.arange(batch, dtype="int32") * self.captions, 1)


def _array(tensor: Any) -> NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
