"""Typed, immutable values that refuse unknown keys."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Frozen(BaseModel):
    """A typed, immutable value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Frozen):
    """Values that a person writes: true and false are not numbers."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take true for 1 and false for 0.
        kind = cls.model_fields[str(info.field_name)].annotation
        kinds = {kind, *get_args(kind)}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise PydanticCustomError("number_expected", "Input should be a number")
        return value
