"""Beam search: the captions that look best so far, carried on together, word by word.

    beams → step → every next word of every beam → the best `beam` of them

A beam that has ended keeps its place among the others, compared by the same measure, so a beam of one is greedy
decoding, and a beam as wide as the space of captions finds the best of all. Beams that ended come first in the end; one
that did not is given back where none did.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from schemas.recipes import END, PAD, START
from trainer.captioner import Captioner, State
from trainer.constraints import NEVER, banned_logits, repeated_ngrams
from trainer.decoding import Decoded, Decoding, compiled

# Between beams that hold nothing yet and any that does.
_NOTHING = -1e30


class BeamDecoder:
    """Searches for the likeliest captions.

    Args:
        model: Captioner. Built.
        decoding: Decoding. Without a temperature.
    """

    def __init__(self, model: Captioner, decoding: Decoding) -> None:
        self.model = model
        self.decoding = decoding
        self._loop = compiled(self.decode)

    def __call__(self, features: NDArray[Any], numbers: Sequence[int] = ()) -> Decoded:
        """The captions of a batch.

        Args:
            features: float array [B, *shape].
            numbers: sequence of int. Of no account: nothing is drawn.
        """
        words, scores, attention = map(_array, self._loop(ops.convert_to_tensor(features)))
        kept = self.decoding.n_best
        return Decoded(words[:, :kept], scores[:, :kept], attention[:, :kept] if attention.shape[-1] else None)

    def decode(self, features: Any) -> tuple[Any, Any, Any]:
        """Words [B, beam, T], scores [B, beam] and attention [B, beam, T, places], the best first, as tensors."""
        beam, most = self.decoding.beam, self.decoding.max_words
        batch = ops.shape(features)[0]
        state = {name: ops.repeat(value, beam, axis=0) for name, value in self.model.begin(features).items()}
        rows = batch * beam
        token = ops.full((rows,), START, dtype="int32")
        _, _, seen = self.model.step(token, state)
        places = 0 if seen is None else seen.shape[-1]
        said = {
            "token": token,
            "over": ops.zeros((rows,), dtype="bool"),
            "words": ops.zeros((rows, most), dtype="int32"),
            "scores": ops.tile(np.array([0.0] + [_NOTHING] * (beam - 1), np.float32), (batch,)),
            "lengths": ops.zeros((rows,), dtype="float32"),
            "attention": ops.zeros((rows, most, places), dtype="float32"),
        }
        _, said, _ = ops.while_loop(self._goes_on, self._say, (0, said, state), maximum_iterations=most)
        return self._ranked(said)

    def _goes_on(self, position: Any, said: dict[str, Any], state: State) -> Any:
        return ops.logical_not(ops.all(said["over"]))

    def _say(self, position: Any, said: dict[str, Any], state: State) -> tuple[Any, dict[str, Any], State]:
        logits, after, seen = self.model.step(said["token"], state)
        scores = ops.expand_dims(said["scores"], 1) + self._log_probabilities(logits, said, position)
        lengths = said["lengths"] + ops.cast(ops.logical_not(said["over"]), "float32")
        row, token, scores = self._best(scores, lengths, logits.shape[-1])
        over = ops.take(said["over"], row, axis=0)
        here = ops.equal(ops.arange(self.decoding.max_words), position)
        word = ops.where(ops.equal(token, END), PAD, token)
        now = {
            "token": token,
            "over": ops.logical_or(over, ops.equal(token, END)),
            "words": ops.where(here, ops.expand_dims(word, 1), ops.take(said["words"], row, axis=0)),
            "scores": scores,
            "lengths": ops.take(lengths, row, axis=0),
            "attention": self._seen(said["attention"], seen, here, row),
        }
        # What a step leaves as it was belongs to the image, and all beams of an image have the same of it.
        moved = {name: value if value is state[name] else ops.take(value, row, axis=0) for name, value in after.items()}
        return position + 1, now, moved

    def _log_probabilities(self, logits: Any, said: dict[str, Any], position: Any) -> Any:
        """float32 [rows, V]: of each next word; of a beam that is over, 0 for padding and nothing else."""
        vocabulary = logits.shape[-1]
        allowed = ops.cast(logits, "float32") + banned_logits(vocabulary, self.decoding.banned)
        if self.decoding.no_repeat:
            allowed += repeated_ngrams(said["words"], position, self.decoding.no_repeat, vocabulary)
        only_padding = np.where(np.arange(vocabulary) == PAD, 0.0, NEVER).astype(np.float32)
        return ops.where(ops.expand_dims(said["over"], 1), only_padding, ops.log_softmax(allowed, axis=-1))

    def _best(self, scores: Any, lengths: Any, vocabulary: int) -> tuple[Any, Any, Any]:
        """The best next beams of every image: the rows they come from, their words, their scores; each [rows]."""
        beam = self.decoding.beam
        measure = scores / ops.expand_dims(lengths**self.decoding.length_penalty, 1)
        _, best = ops.top_k(ops.reshape(measure, (-1, beam * vocabulary)), beam)
        best = ops.cast(best, "int32")
        row = ops.reshape(self._first_rows(ops.shape(best)[0]) + best // vocabulary, (-1,))
        token = ops.reshape(best % vocabulary, (-1,))
        chosen = ops.take_along_axis(ops.reshape(scores, (-1, beam * vocabulary)), best, axis=1)
        return row, token, ops.reshape(chosen, (-1,))

    def _seen(self, before: Any, seen: Any, here: Any, row: Any) -> Any:
        if seen is None:
            return before
        now = ops.where(ops.expand_dims(here, 1), ops.expand_dims(ops.cast(seen, "float32"), 1), before)
        return ops.take(now, row, axis=0)

    def _ranked(self, said: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Words [B, beam, T], scores [B, beam] and attention [B, beam, T, places], the best first."""
        measure = said["scores"] / ops.maximum(said["lengths"], 1.0) ** self.decoding.length_penalty
        order = ops.argsort(self._places(measure, said["over"]), axis=1)
        batch = ops.shape(order)[0]
        row = ops.reshape(self._first_rows(batch) + ops.cast(order, "int32"), (-1,))
        words, scores, attention = (ops.take(said[name], row, axis=0) for name in ("words", "scores", "attention"))
        shape = (batch, self.decoding.beam)
        return (
            ops.reshape(words, (*shape, words.shape[-1])),
            ops.reshape(scores, shape),
            ops.reshape(attention, (*shape, *attention.shape[1:])),
        )

    def _places(self, measure: Any, over: Any) -> Any:
        """int32 [B, beam]: where each beam stands, those that are over before the others."""
        beam = self.decoding.beam
        measure, over = ops.reshape(measure, (-1, beam)), ops.reshape(over, (-1, beam))
        better = ops.cast(ops.expand_dims(measure, 1) > ops.expand_dims(measure, 2), "int32")
        return ops.sum(better, axis=2) + ops.where(over, 0, beam)

    def _first_rows(self, batch: Any) -> Any:
        return ops.expand_dims(ops.arange(batch, dtype="int32") * self.decoding.beam, 1)


def _array(tensor: Any) -> NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
