"""Resource hints: what machine a step asks of its engine; an engine that knows none ignores them."""

from collections.abc import Sequence

from apache_beam.transforms.resources import ResourceHint, parse_resource_hints

from schemas.errors import UsageError

_WHERE = "--resource-hint"


def parse_hints(texts: Sequence[str]) -> dict[str, str]:
    """Hints by name, from `name=value` each, such as `min_ram=16GB` or `accelerator=type:nvidia-l4;count:1`.

    Args:
        texts: sequence of str. Names and values are those of Beam's `with_resource_hints`.

    Raises:
        UsageError: Beam knows no such hint, or not in that form.
    """
    hints = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not ResourceHint.is_registered(name):
            raise UsageError(f"{text!r} is no resource hint", location=_WHERE, hint="write min_ram=16GB, say")
        try:
            parse_resource_hints({name: value})
        except ValueError:
            raise UsageError(
                f"{value!r} is no value of {name}", location=_WHERE, hint="write min_ram=16GB, say"
            ) from None
        hints[name] = value
    return hints
