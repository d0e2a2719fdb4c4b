"""Decodes with several captioners at once: every step takes the mean of their next-token probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

from features.runtime.keras_settings import ops
from trainer.models.captioner import Captioner, State


@dataclass(frozen=True)
class EnsembleMember:
    """A captioner of an ensemble.

    Args:
        model: The model; it is built.
        start: First of the values that it reads in the concatenated features of an image.
        shape: Shape of the features that it reads.
    """

    model: Captioner
    start: int
    shape: tuple[int, ...]

    def select(self, features: Any) -> Any:
        """Returns the features [B, *shape] of this member from the concatenated features [B, values]."""
        values = features[:, self.start : self.start + prod(self.shape)]
        return ops.reshape(values, (-1, *self.shape))


class EnsembleModel:
    """Captioners with one vocabulary that predict together; has the methods of `Captioner` that decoding needs.

    The logits of a step are the logarithm of the mean of the members' probabilities. The attention weights are the mean
    over the members with attention, if these have equal numbers of locations.

    Args:
        members: The captioners. All have the same vocabulary.
    """

    def __init__(self, members: Sequence[EnsembleMember]) -> None:
        self._members = tuple(members)
        limits = [member.model.config.max_caption_length for member in self._members]
        known = [limit for limit in limits if limit is not None]
        self.config = SimpleNamespace(max_caption_length=min(known, default=None))

    @property
    def variables(self) -> list[Any]:
        """The variables of all members."""
        return [variable for member in self._members for variable in member.model.variables]

    def init_state(self, features: Any, training: bool = False) -> State:
        """Computes the state before the first token from the concatenated features [B, values] of all members."""
        return {
            f"{number}/{name}": value
            for number, member in enumerate(self._members)
            for name, value in member.model.init_state(member.select(features), training=training).items()
        }

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        """Computes one time step of all members, as `Captioner.step`."""
        after: State = {}
        log_probabilities, attentions = [], []
        for number, member in enumerate(self._members):
            prefix = f"{number}/"
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            logits, new, attention = member.model.step(token, own)
            after |= {f"{prefix}{name}": value for name, value in new.items()}
            log_probabilities.append(ops.log_softmax(ops.cast(logits, "float32"), axis=-1))
            if attention is not None:
                attentions.append(ops.cast(attention, "float32"))
        total = ops.logsumexp(ops.stack(log_probabilities), axis=0)
        has_one_grid = len({attention.shape[-1] for attention in attentions}) == 1
        return total, after, ops.mean(ops.stack(attentions), axis=0) if has_one_grid else None
