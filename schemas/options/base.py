"""Declares the options of a command once, for the command line, YAML, Python and the reference page."""

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import NonNegativeInt, PositiveInt, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from schemas.errors import UsageError
from schemas.frozen import Frozen

Count = PositiveInt
Natural = NonNegativeInt


@dataclass(frozen=True)
class Option:
    """Describes an option, as metadata of its type.

    Args:
        help: Its help text, without the default.
        metavar: What the help shows as its value; None for a name that follows from the type.
        default: The default in words, if the value itself does not tell it.
    """

    help: str
    metavar: str | None = None
    default: str | None = None


class Argument(Option):
    """Describes a positional argument, as metadata of its type."""


class Options(Frozen):
    """Options of one command; the docstring of a subclass is the help of its command.

    Each field is an `Annotated` type with an `Option` or an `Argument`. A field `hyperparameters` takes the keys of
    `--config` that are not options.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _as_text(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        is_list = cls.model_fields[str(info.field_name)].annotation == tuple[str, ...]
        if is_list and isinstance(value, (list, tuple)):
            return tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in value)
        return (value,) if is_list and isinstance(value, str) else value

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Checks option values that a person wrote.

        Args:
            values: Values by name; dashes stand for underscores, and a text for a list of one.
            where: Where they come from, for errors.

        Raises:
            UsageError: An option is unknown, missing or wrong.
        """
        named = {str(name).replace("-", "_"): value for name, value in values.items()}
        try:
            return cls(**named)
        except ValidationError as error:
            raise cls._refusal(error, where) from None

    @classmethod
    def _refusal(cls, error: ValidationError, where: str) -> UsageError:
        errors = error.errors()
        name = str(errors[0]["loc"][0]) if errors[0]["loc"] else ""
        location = ": ".join(part for part in (where, f"--{name.replace('_', '-')}" if name else "") if part)
        if errors[0]["type"] == "extra_forbidden":
            names = ", ".join(known for known, _, _ in cls.declared())
            return UsageError(f"unknown option {name!r}", where=where, mend=f"The options are {names}.")
        if errors[0]["type"] == "missing":
            return UsageError("missing", where=location)
        # An option of two types, such as `auto` or a number, has an error for each.
        wanted = [one["msg"].removeprefix("Input should be ") for one in errors if one["loc"][:1] == (name,)]
        problem = f"expected {' or '.join(dict.fromkeys(wanted))}, got {errors[0]['input']!r}"
        return UsageError(problem if name else str(errors[0]["msg"]), where=location)

    @classmethod
    def declared(cls) -> Iterator[tuple[str, FieldInfo, Option]]:
        """Iterates over the options: those of the class itself first, then those of its bases, the widest first."""
        classes = [cls, *reversed(cls.__mro__[1:])]
        for name in dict.fromkeys(name for kind in classes for name in inspect.get_annotations(kind)):
            field = cls.model_fields.get(name)
            described = next((item for item in field.metadata if isinstance(item, Option)), None) if field else None
            if field and described:
                yield name, field, described


HYPERPARAMETERS = "hyperparameters"
Hyperparameters = dict[str, Any]
