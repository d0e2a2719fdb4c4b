"""Defines the base classes of typed, immutable values that refuse unknown keys."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Frozen(BaseModel):
    """A typed, immutable value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Frozen):
    """Values that a user writes. Booleans are not accepted as numbers."""

    @field_validator("*", mode="before")
    @classmethod
    def _check_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic accepts true as 1 and false as 0.
        types = set(_member_types(cls.model_fields[str(info.field_name)].annotation))
        if isinstance(value, bool) and types & {int, float} and bool not in types:
            raise PydanticCustomError("number_expected", "Input should be a number")
        return value


def _member_types(annotation: Any) -> Iterator[Any]:
    """Iterates over the member types of a union."""
    origin = get_origin(annotation)
    if origin not in (Annotated, Union, UnionType):
        yield annotation
        return
    for member in get_args(annotation)[: 1 if origin is Annotated else None]:
        yield from _member_types(member)
