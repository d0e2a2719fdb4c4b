"""Typed, immutable values that refuse unknown keys."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

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
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise PydanticCustomError("number_expected", "Input should be a number")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """Iterates over the types that a union is made of."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _kinds(kind)
    else:
        yield annotation
