"""Converts options to parameters of a Typer command."""

import inspect
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from schemas.options.base import Argument, Option

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
_METAVARS = {int: "N", float: "X"}


def to_parameter(name: str, field: FieldInfo, described: Option) -> inspect.Parameter:
    """Returns the parameter that declares an option to Typer. A value that is not set is None."""
    kind = _kind(field.annotation)
    text = described.help
    if field.is_required():
        text += " [required]"
    elif not (field.default is None or field.default is False or field.default == () or "[default: " in text):
        text += f" [default: {field.default}]"
    metavar = described.metavar or _METAVARS.get(kind)
    if get_origin(kind) is Literal:
        # The options check the value, so that a wrong one is one line.
        kind, metavar = str, metavar or f"<{'|'.join(get_args(kind))}>"
    details: dict[str, Any] = {"help": text, "metavar": metavar, "show_default": False}
    is_argument = isinstance(described, Argument)
    info = typer.Argument(**details) if is_argument else typer.Option(f"--{name.replace('_', '-')}", **details)
    # A required option may be in a YAML file of options instead.
    default, annotation = (False, bool) if kind is bool else (None, kind | None)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
    )


def _kind(annotation: Any) -> Any:
    """Returns the type that the command line parses: `bool`, `int`, `float`, `str`, `list[str]` or a literal."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = [_kind(one) for one in get_args(annotation) if one is not type(None)]
        if all(get_origin(one) is Literal for one in kinds):
            return Literal[tuple(value for one in kinds for value in get_args(one))]
        return kinds[0] if len(kinds) == 1 else str
    if get_origin(annotation) is tuple:
        return list[str]
    return annotation
