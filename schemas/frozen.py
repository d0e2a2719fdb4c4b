"""The base of typed values: immutable, and unknown keys are refused."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A typed, immutable value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
