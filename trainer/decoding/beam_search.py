"""Generates captions by beam search: the most probable partial captions are extended together, token by token.

    beams → step → every next token of every beam → the best `num_beams` of them

A finished beam competes with the others under the same ranking score. So a beam width of 1 is greedy decoding, and a
beam as wide as the space of captions finds the best caption. Finished beams are returned first; an unfinished beam is
returned if there are not enough finished ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import ops
from schemas.table_config import PAD
from trainer.decoding.decoding_loop import AutoregressiveDecoder, DecodingState, to_output
from trainer.decoding.generation import GenerationOutput
from trainer.models.captioner import MASKED_LOGIT, State

# Score of a beam without a caption; less than that of any caption.
_EMPTY_BEAM = -1e30


class BeamDecoder(AutoregressiveDecoder):
    """Searches for the most probable captions; the generation config has no temperature."""

    @property
    def rows_per_image(self) -> int:
        return self.config.num_beams

    def __call__(
        self, features: NDArray[Any], image_numbers: Sequence[int] = (), seed: int | None = None
    ) -> GenerationOutput:
        tokens, scores, attention = self.compiled_decode(ops.convert_to_tensor(features))
        order = np.tile(np.arange(self.config.num_return_sequences), (len(features), 1))
        return to_output(tokens, scores, attention, order)

    def decode(self, features: Any) -> tuple[Any, Any, Any]:
        """Returns tokens [B, beams, T], scores [B, beams] and attention [B, beams, T, locations], best first."""
        batch, beams = ops.shape(features)[0], self.rows_per_image
        scores = np.array([0.0] + [_EMPTY_BEAM] * (beams - 1), np.float32)
        lengths = ops.zeros((batch * beams,), dtype="float32")
        decoding = self.run(features, scores=ops.tile(scores, (batch,)), lengths=lengths)
        ranking_scores = decoding["scores"] / ops.maximum(decoding["lengths"], 1.0) ** self.config.length_penalty
        ranking_scores = ops.reshape(ranking_scores, (-1, beams))
        is_better = ops.cast(ops.expand_dims(ranking_scores, 1) > ops.expand_dims(ranking_scores, 2), "int32")
        # Finished beams are before the others.
        rank = ops.sum(is_better, axis=2) + ops.where(ops.reshape(decoding["finished"], (-1, beams)), 0, beams)
        row = self._rows(ops.cast(ops.argsort(rank, axis=1), "int32"))
        names = ("tokens", "scores", "attention")
        return self.group_by_image({name: ops.take(decoding[name], row, axis=0) for name in names})

    def decode_step(self, position: Any, decoding: DecodingState, state: State) -> tuple[DecodingState, State]:
        logits, after, attention = self.model.step(decoding["token"], state)
        # A finished beam allows padding only.
        padding = np.where(np.arange(logits.shape[-1]) == PAD, 0.0, MASKED_LOGIT).astype(np.float32)
        tokens = ops.log_softmax(self.process_logits(logits, decoding["tokens"], position), axis=-1)
        log_probabilities = ops.where(ops.expand_dims(decoding["finished"], 1), padding, tokens)
        scores = ops.expand_dims(decoding["scores"], 1) + log_probabilities
        lengths = decoding["lengths"] + ops.cast(ops.logical_not(decoding["finished"]), "float32")
        row, token, scores = self._select_beams(scores, lengths, logits.shape[-1])
        decoding = {name: ops.take(value, row, axis=0) for name, value in {**decoding, "lengths": lengths}.items()}
        attention = None if attention is None else ops.take(attention, row, axis=0)
        # A tensor that a step does not change is equal for all beams of an image.
        after = {name: value if value is state[name] else ops.take(value, row, axis=0) for name, value in after.items()}
        return self.append_token({**decoding, "scores": scores}, position, token, attention), after

    def _select_beams(self, scores: Any, lengths: Any, vocabulary: int) -> tuple[Any, Any, Any]:
        """Returns the best next beams of every image: their previous rows, tokens and scores, each [rows]."""
        beams = self.rows_per_image
        ranking_scores = scores / ops.expand_dims(lengths**self.config.length_penalty, 1)
        _, best = ops.top_k(ops.reshape(ranking_scores, (-1, beams * vocabulary)), beams)
        best = ops.cast(best, "int32")
        selected = ops.take_along_axis(ops.reshape(scores, (-1, beams * vocabulary)), best, axis=1)
        return self._rows(best // vocabulary), ops.reshape(best % vocabulary, (-1,)), ops.reshape(selected, (-1,))

    def _rows(self, beam: Any) -> Any:
        """Returns the rows int32 [B · beams] of beam numbers int32 [B, beams]."""
        first = ops.arange(ops.shape(beam)[0], dtype="int32") * self.rows_per_image
        return ops.reshape(ops.expand_dims(first, 1) + beam, (-1,))
