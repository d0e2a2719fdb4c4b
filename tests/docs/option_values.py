"""Checks the values of single options, without those that a command requires."""

from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo


def check_value(field: FieldInfo, value: object) -> None:
    """Raises ValidationError if the option does not accept the value, a text or the texts of a repeatable option."""
    kind: Any = Annotated[field.annotation, *field.metadata]
    TypeAdapter(kind).validate_python(value)
