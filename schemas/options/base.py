"""Declares the options of a command once, for the command line, YAML, Python and the reference page."""

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from schemas.errors import UsageError
from schemas.frozen import Settings

Count = PositiveInt
Natural = NonNegativeInt
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]


@dataclass(frozen=True)
class Option:
    """Describes an option, as metadata of its type."""

    help: str  # ends with the default in words if the value itself does not state the default
    metavar: str | None = None  # name of the value in the help; None for a name that follows from the type


class Argument(Option):
    """Describes a positional argument, as metadata of its type."""


def option(default: Any, text: str, metavar: str | None = None) -> Any:
    """Declares the default and the `Option` (help text and metavar) of a field."""
    field = Field(default)
    field.metadata.append(Option(text, metavar))
    return field


class Options(Settings):
    """Options of one command; the docstring of a subclass is the help of its command.

    `option` declares an option with a default; a required one, or an argument, is an `Annotated` type.
    """

    # Building the validators of all commands took a third of the time of `capt --help`.
    model_config = ConfigDict(defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_text(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, (list, tuple)) else [value]
        if "" in values:
            raise PydanticCustomError("empty", "the value is empty")
        field = cls.model_fields[str(info.field_name)]
        is_list = field.annotation == tuple[str, ...]
        if is_list and field.is_required() and not values:
            raise PydanticCustomError("missing", "a value is required")
        texts = tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)
        return texts if is_list and value is not None else value if isinstance(value, (list, tuple)) else texts[0]

    @classmethod
    def named(cls, values: Mapping[str, Any], location: str = "") -> dict[str, Any]:
        """Returns values by the names of options, with underscores; UsageError if a name is used with a dash, too."""
        named: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name in named:
                message = f"{name} is set twice, with a dash and with an underscore"
                raise UsageError(message, location=location, hint="Keep one of the two.")
            named[name] = value
        return named

    @classmethod
    def parse(cls, values: Mapping[str, Any], location: str = "") -> Self:
        """Checks option values that a user wrote.

        Args:
            values: Values by name. Dashes equal underscores, and a text equals a list of one text.
            location: Origin of the values, for errors.

        Raises:
            UsageError: An option is unknown, missing or invalid.
        """
        try:
            return cls(**cls.named(values, location))
        except ValidationError as error:
            raise cls._to_usage_error(error, location) from None

    @classmethod
    def _to_usage_error(cls, error: ValidationError, location: str) -> UsageError:
        # An unknown name explains a missing one, and what is written comes before what is missing.
        errors = sorted(error.errors(), key=lambda one: (one["type"] != "extra_forbidden", one["type"] == "missing"))
        name = str(errors[0]["loc"][0]) if errors[0]["loc"] else ""
        options = {known: described for known, _, described in cls.declared()}
        described = options.get(name)
        flag = f"--{name.replace('_', '-')}" if name else ""
        shown = described.metavar or name.upper() if isinstance(described, Argument) else flag
        location = ": ".join(part for part in (location, shown) if part)
        match errors[0]["type"]:
            case "extra_forbidden":
                hint = f"The options are {', '.join(options)}."
                return UsageError(f"unknown option {name!r}", location=location, hint=hint)
            case "missing":
                return UsageError("a value is required", location=location)
            case "empty":
                return UsageError("the value is empty", location=location, hint="Set a value, or omit the option.")
        # An option of two types, such as `auto` or a number, has an error for each.
        expected = [one["msg"].removeprefix("Input should be ") for one in errors if one["loc"][:1] == (name,)]
        problem = f"expected {' or '.join(dict.fromkeys(expected))}, got {errors[0]['input']!r}"
        return UsageError(problem if name else str(errors[0]["msg"]), location=location)

    @classmethod
    def declared(cls) -> Iterator[tuple[str, FieldInfo, Option]]:
        """Iterates over the options: first the class's own ones, then those of its bases, the most general first."""
        classes = [cls, *reversed(cls.__mro__[1:])]
        for name in dict.fromkeys(name for kind in classes for name in inspect.get_annotations(kind)):
            field = cls.model_fields.get(name)
            described = next((item for item in field.metadata if isinstance(item, Option)), None) if field else None
            if field and described:
                yield name, field, described
