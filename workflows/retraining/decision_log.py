"""Records the decisions of a retraining in the model's history, and looks up earlier ones."""

import json
import time
from collections.abc import Sequence
from typing import Any

from features.store.model_history import ModelDecision
from schemas.manifests import Decision, ModelMetadata
from workflows.model_registry import RegisteredModel, current_time

# A retraining with the inputs of one of these is not repeated.
_FINAL = ("promoted", "rejected")


class DecisionLog:
    """The history of a registered model at the start of a retraining.

    Attributes:
        champion: Name of the champion's run at the start; None without a champion.
        run_name: Name of the challenger, once it is known.
        lineage: Inputs of the decision. The stages of the retraining add entries.
    """

    def __init__(self, model: RegisteredModel, task: str) -> None:
        self.history = model.history()
        self.champion = self.history[-1].facts.champion if self.history else None
        self.run_name: str | None = None
        self.lineage: dict[str, Any] = {}
        self._model = model
        self._task = task
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._started, 3)

    def has_champion_settings(self, settings: str) -> bool:
        """Returns whether the champion was trained with the settings of this digest."""
        trained = (one.facts.lineage for one in self.history if one.facts.run == self.champion and one.facts.lineage)
        return next(trained, {}).get("settings") == settings

    def abandon_unfinished(self) -> None:
        """Records that interrupted runs of other data or settings are abandoned."""
        decided = {one.facts.run for one in self.history}
        for run in self._model.runs():
            if run not in {*decided, self.run_name}:
                reason = "the data or the settings changed before the run was finished"
                self._model.decide(self._build_metadata("abandoned", run, (reason,), {}))

    def record(self, decision: Decision, reasons: tuple[str, ...]) -> None:
        """Records a decision that does not change the champion, unless the last decision is equal."""
        last = self.history[-1].facts if self.history else None
        if last is None or (last.decision, last.run, last.reasons) != (decision, self.run_name, reasons):
            self._model.decide(self._build_metadata(decision, self.run_name, reasons, self._final_lineage()))

    def promote(self, reasons: tuple[str, ...]) -> None:
        """Makes the challenger the champion. Raises ChampionChangedError if the champion of the start was replaced."""
        metadata = self._build_metadata("promoted", self.run_name, reasons, self._final_lineage())
        self._model.promote_over(self.champion, metadata.model_copy(update={"champion": self.run_name}))

    def _build_metadata(
        self, decision: Decision, run: str | None, reasons: tuple[str, ...], lineage: dict[str, Any]
    ) -> ModelMetadata:
        return ModelMetadata(
            task=self._task,
            decision=decision,
            run=run,
            champion=None,
            reasons=reasons,
            decided_at=current_time(),
            lineage=lineage,
        )

    def _final_lineage(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps({**self.lineage, "seconds": self.seconds})))


def find_finished(history: Sequence[ModelDecision], inputs: str) -> str:
    """Returns why a run with this digest of data and settings is not trained again; empty if it must be trained."""
    for decision in reversed(history):
        metadata = decision.facts
        if metadata.decision in _FINAL and metadata.lineage.get("inputs") == inputs:
            return f"a run with the same data and settings was {metadata.decision} on {metadata.decided_at[:10]}"
    return ""
