"""Contains the hyperparameters of a run."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainer.config import LoopConfig
from trainer.models.configs import ModelConfig

AnyConfig = TypeVar("AnyConfig", bound=LoopConfig, covariant=True)


@dataclass(frozen=True)
class Hyperparameters(Generic[AnyConfig]):
    """The hyperparameters of a run.

    Args:
        choice: The option that sets the defaults, such as `{"model": "merge"}` or `{"profile": "quick"}`.
        model: Name of the model.
        training: Hyperparameters of training.
        architecture: Hyperparameters of the model.
    """

    choice: dict[str, str]
    model: str
    training: AnyConfig
    architecture: ModelConfig

    def to_dict(self, *, resolve: bool = True) -> dict[str, Any]:
        """Returns all hyperparameters by name.

        Args:
            resolve: Replaces values that depend on the machine, such as `precision: auto`.
        """
        training = self.training.resolved() if resolve else self.training
        return {**self.choice, **self.architecture.model_dump(mode="json"), **training.model_dump(mode="json")}
